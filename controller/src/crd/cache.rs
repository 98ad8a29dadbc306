//! Cache: one upstream registry that nodes keep at hand. Must not hold a credential: it names a Secret.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::cel;
use super::references::NameReference;
use super::words::{Access, Capability};

/// One upstream; what is absent follows the NodeCache, or the agent's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "registry-operator.dev",
    version = "v1alpha1",
    kind = "Cache",
    plural = "caches",
    shortname = "cch",
    category = "larder",
    doc = "An upstream registry whose images the nodes keep close to hand.",
    status = "CacheStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "UPSTREAM", type_ = "string", json_path = ".status.registry"),
    printcolumn(name = "NODES", type_ = "integer", json_path = ".status.nodesServing"),
    printcolumn(name = "HIT%", type_ = "string", json_path = ".status.hitRatio"),
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.upstreamRegistryURL", priority = 1),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = cel::object_name_length("Cache", 63)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.upstream) == has(oldSelf.upstream)")
        .message("spec.upstream cannot be added or removed: make another Cache and delete this one"),
    validation = Rule::new(
        "!has(self.access) || self.access != 'Shared' || has(self.secretReferenceName)"
    ).message("spec.access Shared is about a credential: set spec.secretReferenceName or access Public")
)]
pub struct CacheSpec {
    /// `https://host[:port][/path]`; a path has the meaning of containerd's override_path.
    #[x_kube(
        validation = cel::upstream_url("spec.upstreamRegistryURL")
    )]
    #[serde(rename = "upstreamRegistryURL")]
    pub upstream_registry_url: String,
    /// What containerd calls the registry, `docker.io`; the URL's host where nothing is written.
    #[x_kube(
        validation = cel::registry_name("spec.upstream"),
        validation = cel::immutable("spec.upstream", "make another Cache and delete this one")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Public where nothing is written: only what anybody may read is kept. Shared: everything that the credential can
    /// read may be read by everyone on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// How long an image stays after its last use; `0s`: never removed for its age.
    #[x_kube(validation = cel::duration("spec.cacheTTL"))]
    #[serde(rename = "cacheTTL", skip_serializing_if = "Option::is_none")]
    pub cache_ttl: Option<String>,
    /// How much of each node's cache this upstream may take: `100Gi`, or a share of the file system: `20%`; `0`: no
    /// limit.
    #[x_kube(validation = cel::size_or_share("spec.maxCacheSize"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cache_size: Option<String>,
    /// How long a tag is answered without asking upstream; `0s`: asked each time.
    #[x_kube(validation = cel::duration("spec.tagTTL"))]
    #[serde(rename = "tagTTL", skip_serializing_if = "Option::is_none")]
    pub tag_ttl: Option<String>,
    /// How long a tag is answered while upstream is away; `0s`: never.
    #[x_kube(validation = cel::duration("spec.maxStale"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stale: Option<String>,
    /// A Secret in the controller's namespace with the keys `username` and `password`.
    #[x_kube(validation = cel::object_name("spec.secretReferenceName"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_reference_name: Option<String>,
    /// Accepted, and told as unused: a node's store is the NodeCache's `storage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<CacheVolume>,
    /// The proxy on the way to this upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<CacheProxy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<CacheTls>,
    /// What containerd asks the cache for; `[pull, resolve]` for Public, `[pull]` for Shared where nothing is written.
    #[x_kube(
        validation = Rule::new("self.size() >= 1 && self.all(word, self.exists_one(other, other == word))")
            .message("spec.capabilities takes pull, resolve or both, each once")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// Hosts besides the upstream's own domain that may be sent its credential.
    #[x_kube(validation = cel::hosts("spec.tokenHosts"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_hosts: Option<Vec<String>>,
    /// Private address ranges that redirects and token services may stand in: `10.0.0.0/8`.
    #[x_kube(
        validation = Rule::new("self.all(range, isCIDR(range))")
            .message("spec.allowCIDRs takes address ranges like 10.0.0.0/8 or fd00::/8")
    )]
    #[serde(rename = "allowCIDRs", skip_serializing_if = "Option::is_none")]
    pub allow_cidrs: Option<Vec<String>>,
    /// Also where an administrator's hosts.toml sends this registry elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub override_existing: Option<bool>,
    /// Requests to this upstream at once, from one node.
    #[x_kube(validation = cel::between("spec.maxConcurrent", 1, 65_536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<i32>,
    /// The upstream of clients that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
}

/// A volume as the first drafts had it; unused on nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheVolume {
    #[x_kube(validation = cel::word("spec.volume.type"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    #[x_kube(validation = cel::positive_quantity("spec.volume.size"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    #[x_kube(validation = cel::access_mode("spec.volume.accessMode"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<String>,
    #[x_kube(validation = cel::object_name("spec.volume.storageClassName"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
}

/// Proxies by the upstream's scheme; an empty text is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheProxy {
    /// `http://host[:port]`, for an upstream by `http://`.
    #[x_kube(
        validation = cel::proxy_url("spec.proxy.httpProxy"),
        validation = without_password("spec.proxy.httpProxy")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<String>,
    /// `http://host[:port]`, for an upstream by `https://`.
    #[x_kube(
        validation = cel::proxy_url("spec.proxy.httpsProxy"),
        validation = without_password("spec.proxy.httpsProxy")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_proxy: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheTls {
    /// A ConfigMap in the controller's namespace whose key `ca.crt` is trusted besides the system's authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<NameReference>,
}

/// What the nodes tell of one upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What containerd calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Nodes whose cache has it.
    #[serde(default)]
    pub nodes_serving: i32,
    /// Nodes that can reach it now.
    #[serde(default)]
    pub nodes_upstream_up: i32,
    /// Nodes that cannot.
    #[serde(default)]
    pub nodes_upstream_down: i32,
    /// Whole percent of the bytes served that were at hand: `93%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<String>,
    #[serde(default)]
    pub bytes_served: i64,
    #[serde(default)]
    pub bytes_fetched: i64,
    /// The least that upstream's own rate limit leaves any node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratelimit_remaining: Option<i64>,
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Its address stands in a ConfigMap, which is no place for a password.
fn without_password(field: &str) -> Rule {
    let message = format!(
        "{field} takes no user and password, which would stand in a ConfigMap: name a proxy that needs none, or one on \
         each node that adds them"
    );
    Rule::new("!self.contains('@')").message(message.as_str())
}

impl CacheSpec {
    /// Public unless written otherwise.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.unwrap_or_default()
    }
}
