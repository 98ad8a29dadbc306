//! NodeCache: which nodes keep which Caches, and how. Its fields are the agent's settings of that name, and where one
//! is absent the setting's own default holds. Must not repeat those defaults.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, SELinuxOptions, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::cel;
use super::references::NameReference;
use super::words::{Distribution, InstallerMode, NodeManagement, PerNodeReports};

/// One DaemonSet of agents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "registry-operator.dev",
    version = "v1alpha1",
    kind = "NodeCache",
    plural = "nodecaches",
    shortname = "nc",
    category = "larder",
    doc = "A pull-through cache on each node it selects.",
    status = "NodeCacheStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "NODES", type_ = "integer", json_path = ".status.nodes.desired"),
    printcolumn(name = "INSTALLED", type_ = "integer", json_path = ".status.nodes.installed"),
    printcolumn(name = "IN-USE", type_ = "integer", json_path = ".status.nodes.inUse"),
    printcolumn(name = "HIT%", type_ = "string", json_path = ".status.usage.hitRatio"),
    printcolumn(name = "UPSTREAM", type_ = "string", json_path = ".status.upstream"),
    printcolumn(name = "REPORTING", type_ = "integer", json_path = ".status.nodes.reporting", priority = 1),
    printcolumn(name = "DEGRADED", type_ = "integer", json_path = ".status.nodes.degraded", priority = 1),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = cel::object_name_length("NodeCache", 40)
)]
#[serde(rename_all = "camelCase")]
pub struct NodeCacheSpec {
    /// Managed where nothing is written. Removed takes every entry out of certs.d within two minutes and rolls no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_state: Option<NodeManagement>,
    /// The Caches these nodes keep; all of them where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_selector: Option<LabelSelector>,
    /// The nodes, besides `kubernetes.io/os: linux`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Every taint where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// The controller's own release where nothing is written.
    #[x_kube(validation = cel::image("spec.image"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Secrets in the agents' namespace with which that image is pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secrets: Option<Vec<NameReference>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<NodeCacheStorage>,
    /// How long an image stays after its last use; `0s`: never removed for its age. A Cache may say otherwise.
    #[x_kube(validation = cel::duration("spec.cacheTTL"))]
    #[serde(rename = "cacheTTL", skip_serializing_if = "Option::is_none")]
    pub cache_ttl: Option<String>,
    /// How long a tag is answered without asking upstream. A Cache may say otherwise.
    #[x_kube(validation = cel::duration("spec.tagTTL"))]
    #[serde(rename = "tagTTL", skip_serializing_if = "Option::is_none")]
    pub tag_ttl: Option<String>,
    /// How long a tag is answered while upstream is away. A Cache may say otherwise.
    #[x_kube(validation = cel::duration("spec.maxStale"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stale: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<NodeCacheListen>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installer: Option<NodeCacheInstaller>,
    /// How often each node reports.
    #[x_kube(validation = cel::duration_between("spec.reportInterval", "5s", "1h"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_interval: Option<String>,
    /// OnTransition where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_node_reports: Option<PerNodeReports>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<NodeCacheRollout>,
    /// How long a deletion waits for the nodes to take their entries out: `3m` where nothing is written.
    #[x_kube(validation = cel::positive_duration("spec.withdrawTimeout"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdraw_timeout: Option<String>,
    /// For nodes that enforce SELinux; applied to every container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
    /// Requests and limits of the agent container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The controller's `--priority-class` where nothing is written.
    #[x_kube(validation = cel::object_name("spec.priorityClassName"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// The store on each node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCacheStorage {
    /// The directory on the node: `/var/lib/larder`.
    #[x_kube(validation = cel::own_directory("spec.storage.hostPath"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// `100Gi`, or a share of the file system: `20%`; `0`: no limit.
    #[x_kube(validation = cel::size_or_share("spec.storage.maxSize"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<String>,
    /// What stays free, as a size or a share of the file system.
    #[x_kube(validation = cel::size_or_share("spec.storage.minFree"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free: Option<String>,
}

/// Ports on each node; the first two on loopback only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(has(self.port) ? self.port : 19500) != (has(self.adminPort) ? self.adminPort : 19501) && \
         (!has(self.metricsPort) || \
          (self.metricsPort != (has(self.port) ? self.port : 19500) && \
           self.metricsPort != (has(self.adminPort) ? self.adminPort : 19501)))"
    ).message("spec.listen needs three different ports: port is 19500 and adminPort 19501 where nothing is written")
)]
pub struct NodeCacheListen {
    /// Where containerd pulls from.
    #[x_kube(validation = cel::port("spec.listen.port"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// `/livez`, `/readyz`, `/metrics`, `/stats`.
    #[x_kube(validation = cel::port("spec.listen.adminPort"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_port: Option<i32>,
    /// `/metrics` alone, on every address of the node; absent: not served off the node.
    #[x_kube(validation = cel::port("spec.listen.metricsPort"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<i32>,
}

/// What is done to the node's certs.d.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCacheInstaller {
    /// manage, observe (write nothing, tell) or absent (take every entry out).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<InstallerMode>,
    /// Sets the two paths below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    #[x_kube(validation = cel::absolute_path("spec.installer.certsDir"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certs_dir: Option<String>,
    #[x_kube(validation = cel::absolute_path("spec.installer.containerdConfig"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerd_config: Option<String>,
    /// Leave the entries when an agent stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_on_shutdown: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCacheRollout {
    /// Nodes whose agent may be down at once, a number or a share: `5%` where nothing is written.
    #[x_kube(validation = cel::count_or_share("spec.rollout.maxUnavailable"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// What the nodes tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCacheStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Of the settings that the nodes are to apply; not the object's own.
    #[serde(default)]
    pub generation: i64,
    #[serde(default)]
    pub nodes: NodeCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<NodeUsage>,
    /// The 20 worst.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_nodes: Vec<UnhealthyNode>,
    /// How many more there are.
    #[serde(default)]
    pub more_unhealthy_nodes: i32,
    /// Registries that most of the nodes cannot reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams_down: Vec<String>,
    /// The same for people: `up`, or `down: docker.io, quay.io`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Nodes by what is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// That should have an agent.
    #[serde(default)]
    pub desired: i32,
    /// That have applied the settings of `generation`.
    #[serde(default)]
    pub updated: i32,
    #[serde(default)]
    pub reporting: i32,
    #[serde(default)]
    pub ready: i32,
    #[serde(default)]
    pub degraded: i32,
    /// Whose containerd is told to use the cache.
    #[serde(default)]
    pub installed: i32,
    /// Whose containerd was seen to use it.
    #[serde(default)]
    pub in_use: i32,
    /// Without containerd, or without a certs.d.
    #[serde(default)]
    pub unsupported: i32,
    /// That should report and do not.
    #[serde(default)]
    pub silent: i32,
}

/// What the caches did and hold, over all nodes that report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUsage {
    /// Since when the bytes below are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Whole percent of the bytes served that were at hand: `93%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<String>,
    #[serde(default)]
    pub bytes_served: i64,
    #[serde(default)]
    pub bytes_fetched: i64,
    #[serde(default)]
    pub evicted_bytes: i64,
    #[serde(default)]
    pub capacity_bytes: i64,
    #[serde(default)]
    pub used_bytes: i64,
}

/// A node in trouble.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyNode {
    pub node: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
