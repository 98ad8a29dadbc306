//! NodeCacheReport: one node as the controller last saw it change. Only the controller writes them. Must not be
//! written when nothing but a number changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// One node of one NodeCache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "registry-operator.dev",
    version = "v1alpha1",
    kind = "NodeCacheReport",
    plural = "nodecachereports",
    shortname = "ncr",
    category = "larder",
    doc = "One node's cache as the controller last saw it change; written by the controller alone.",
    derive = "PartialEq",
    derive = "Default",
    selectable = ".spec.node",
    selectable = ".spec.nodeCache",
    selectable = ".spec.state",
    printcolumn(name = "NODECACHE", type_ = "string", json_path = ".spec.nodeCache"),
    printcolumn(name = "NODE", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "STATE", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "SINCE", type_ = "date", json_path = ".spec.since"),
    printcolumn(name = "VERSION", type_ = "string", json_path = ".spec.version", priority = 1),
    validation = Rule::new("self.spec.node == oldSelf.spec.node && self.spec.nodeCache == oldSelf.spec.nodeCache")
        .message("spec.node and spec.nodeCache cannot change: each node of each NodeCache has a report of its own")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeCacheReportSpec {
    pub node: String,
    pub node_cache: String,
    /// Ready, Degraded, Silent, Unsupported, Conflict.
    pub state: String,
    /// One word, empty when all is well.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// Since when the state is this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Of the settings that the node has applied.
    #[serde(default)]
    pub generation: i64,
    /// The agent's version.
    #[serde(default)]
    pub version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<ReportedRegistry>,
}

/// What stands in one registry's directory of the node's certs.d.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportedRegistry {
    pub registry: String,
    /// installed, waiting, withdrawn, external or refused.
    pub state: String,
    /// The installer's reason.
    #[serde(default)]
    pub reason: String,
}
