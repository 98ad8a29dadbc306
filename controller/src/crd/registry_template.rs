//! RegistryTemplate: what Registries of any namespace share. Must not name a template itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::registry::RegistrySpec;

/// What stands at the root of a RegistryTemplate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "registry-operator.dev",
    version = "v1alpha1",
    kind = "RegistryTemplate",
    plural = "registrytemplates",
    shortname = "regt",
    category = "larder",
    doc = "Settings that Registries share by naming it; what a Registry writes itself wins.",
    no_spec,
    status = "RegistryTemplateStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "USED-BY", type_ = "integer", json_path = ".status.usedBy"),
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct RegistryTemplateFields {
    #[serde(default)]
    pub spec: RegistrySpec,
}

/// What the controller tells of a template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryTemplateStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Registries that name it.
    #[serde(default)]
    pub used_by: i32,
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl RegistryTemplate {
    /// What it gives to the Registries that name it.
    #[must_use]
    pub fn settings(&self) -> &RegistrySpec {
        &self.spec.spec
    }
}
