//! Registry: one deployment of Distribution. What a template may set has no default in the schema, so that what is
//! absent here can come from there. Must not merge: the effective spec is made by the story.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::cel;
use super::exposure::{Ingress, Service, Tls};
use super::references::NameReference;
use super::registry_access::{Auth, MetadataCache, Upgrade};
use super::storage::RegistryStorage;
use super::words::{CapacityTier, ManagementState};
use super::workload::RegistryProxy;

/// What stands at the root of a Registry: the seeds' `template` beside its `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "registry-operator.dev",
    version = "v1alpha1",
    kind = "Registry",
    plural = "registries",
    shortname = "reg",
    category = "larder",
    doc = "An OCI registry (CNCF Distribution), deployed, upgraded and kept as described.",
    namespaced,
    no_spec,
    status = "RegistryStatus",
    derive = "PartialEq",
    derive = "Default",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "VERSION", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "READY", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "DESIRED", type_ = "integer", json_path = ".spec.replicas", priority = 1),
    printcolumn(
        name = "AVAILABLE",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Available\")].status"
    ),
    printcolumn(
        name = "DEGRADED",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Degraded\")].status"
    ),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = cel::object_name_length("Registry", 40),
    validation = cel::service_name("Registry"),
    validation = Rule::new(
        "!has(self.template) || !has(self.spec) || !has(self.spec.templateRef) || \
         self.template == self.spec.templateRef.name"
    ).message("template and spec.templateRef.name name different templates: write one of them")
)]
pub struct RegistryFields {
    /// The RegistryTemplate whose fields hold where `spec` is silent.
    #[x_kube(validation = cel::object_name("template"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(default)]
    pub spec: RegistrySpec,
}

/// A Registry, or what Registries share by a template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.storage) || !has(self.storage.emptyDir) || !has(self.replicas) || self.replicas <= 1"
    ).message("spec.replicas must be 1 or 0 on emptyDir, which pods cannot share: use pvc with ReadWriteMany or s3")
)]
pub struct RegistrySpec {
    /// The same as `template`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<NameReference>,
    /// Managed where nothing is written; Unmanaged leaves everything as it is; Removed takes the workload away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_state: Option<ManagementState>,
    /// Replicas and resources for about 100, 1,000 or 5,000 pods that pull at once; fields written out win.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_tier: Option<CapacityTier>,
    /// The number of pods; an autoscaler needs it written.
    #[x_kube(validation = cel::between("spec.replicas", 0, 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// `registry:3.1.1`, or by digest with `version`.
    #[x_kube(validation = cel::image("spec.image"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Distribution's version in the image, where its tag does not tell: `3.1.1`.
    #[x_kube(validation = cel::version("spec.version"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<RegistryStorage>,
    /// Blobs come through the registry instead of by redirect to the object storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_redirect: Option<bool>,
    /// Pulls only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_cache: Option<MetadataCache>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<RegistryProxy>,
    /// Requests and limits of the registry container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Spread over nodes and zones where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
}

/// What the controller tells of a Registry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that are there.
    #[serde(default)]
    pub replicas: i32,
    #[serde(default)]
    pub ready_replicas: i32,
    /// The pods' label selector, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Distribution's version that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What a failed upgrade goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_good: Option<LastGood>,
    /// Hash of tier, template and object together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_spec_hash: Option<String>,
    /// The effective spec that was rolled back: not tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// Hashes of the config Secrets that may exist; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<String>,
    /// Where clients find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A version that was seen healthy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastGood {
    pub version: String,
    pub image: String,
    /// The config Secret's hash.
    pub config_hash: String,
    /// When it was first seen so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
}

/// The store in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// emptyDir, pvc, s3 or bucket.
    pub backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

impl Registry {
    /// What its author wrote, without tier and template.
    #[must_use]
    pub fn written(&self) -> &RegistrySpec {
        &self.spec.spec
    }

    /// The template it names, in either spelling.
    #[must_use]
    pub fn template_name(&self) -> Option<&str> {
        let by_reference = self.written().template_ref.as_ref().map(|reference| reference.name.as_str());
        self.spec.template.as_deref().or(by_reference)
    }
}
