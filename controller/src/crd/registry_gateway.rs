//! RegistryGateway: the push gateway in front of one Registry, and its limits. Must not hold what counts tags.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::cel;
use super::exposure::{Service, Tls};
use super::references::NameReference;
use super::words::{CapacityTier, GatewayAction, OnUnknown, SizeScope, TagIndexMode};

/// A push gateway and its policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "registry-operator.dev",
    version = "v1alpha1",
    kind = "RegistryGateway",
    plural = "registrygateways",
    shortname = "rgw",
    category = "larder",
    doc = "A gateway that holds pushes to one Registry to limits on size and number.",
    namespaced,
    status = "RegistryGatewayStatus",
    derive = "PartialEq",
    derive = "Default",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "REGISTRY", type_ = "string", json_path = ".spec.registryRef.name"),
    printcolumn(name = "READY", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(
        name = "AVAILABLE",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Available\")].status"
    ),
    printcolumn(
        name = "POLICY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"PolicyAccepted\")].status"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = cel::object_name_length("RegistryGateway", 40),
    validation = cel::service_name("RegistryGateway")
)]
#[serde(rename_all = "camelCase")]
pub struct RegistryGatewaySpec {
    /// The Registry behind it, in the same namespace.
    #[x_kube(
        validation = cel::immutable("spec.registryRef", "make a RegistryGateway for the other Registry")
    )]
    pub registry_ref: NameReference,
    /// Replicas and resources for about 100, 1,000 or 5,000 pods; Small where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_tier: Option<CapacityTier>,
    /// The number of pods; an autoscaler needs it written.
    #[x_kube(validation = cel::between("spec.replicas", 0, 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// The controller's own release where nothing is written.
    #[x_kube(validation = cel::image("spec.image"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Enforce where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<GatewayAction>,
    /// For every repository that no override names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<GatewayLimits>,
    /// The first that names a repository holds for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Vec<GatewayOverride>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_index: Option<GatewayTagIndex>,
    /// Requests and limits of the gateway container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
}

/// What a push may come to; what is absent has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<GatewayImageLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<GatewayTagLimit>,
    /// The longest manifest: `4Mi` where nothing is written.
    #[x_kube(validation = cel::positive_quantity("limits.manifestMaxBytes"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_max_bytes: Option<String>,
}

/// How large an image may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayImageLimit {
    /// Config and distinct layers together: `1Gi`.
    #[x_kube(validation = cel::positive_quantity("limits.image.max"))]
    pub max: String,
    /// PerManifest where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<SizeScope>,
}

/// How many tags a repository may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTagLimit {
    #[x_kube(validation = cel::between("limits.tags.maxPerRepository", 1, 10_000_000))]
    pub max_per_repository: i32,
    /// Tags that do not count, as a regular expression; signatures and referrers where nothing is written.
    #[x_kube(validation = cel::regular_expression("limits.tags.excludePattern"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_pattern: Option<String>,
}

/// Limits for some repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct GatewayOverride {
    /// Names; `*` stands for one part of a path: `team-a/*`.
    #[x_kube(
        validation = Rule::new("self.size() >= 1")
            .message("overrides[].repositories needs at least one pattern like team-a/*"),
        validation = cel::repository_patterns("overrides[].repositories")
    )]
    pub repositories: Vec<String>,
    pub limits: GatewayLimits,
}

/// How the gateway knows a repository's tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTagIndex {
    /// Indexed where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TagIndexMode>,
    /// How long a push waits for the first list: `2s`.
    #[x_kube(validation = cel::positive_duration("tagIndex.seedTimeout"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed_timeout: Option<String>,
    /// Allow where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,
    /// How often the index is compared with the registry: `10m`.
    #[x_kube(validation = cel::positive_duration("tagIndex.resyncInterval"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resync_interval: Option<String>,
}

/// What the controller tells of a RegistryGateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryGatewayStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub replicas: i32,
    #[serde(default)]
    pub ready_replicas: i32,
    /// The pods' label selector, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Of the policy that the pods are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_hash: Option<String>,
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
