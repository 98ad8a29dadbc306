//! The custom resources of `registry-operator.dev/v1alpha1`: their types, their schemas and the rules that one object
//! can be held to by itself. Must not read a cluster: what takes two objects to see is checked by the stories.

#![expect(
    unreachable_pub,
    reason = "the derive of a schema repeats a public type inside a function of its own"
)]

// One file per kind.
mod cache;
mod node_cache;
mod node_cache_report;
mod registry;
mod registry_gateway;
mod registry_template;

// What kinds share.
mod exposure;
mod references;
mod registry_access;
mod storage;
pub mod tier;
mod words;
mod workload;

// How a type becomes a CustomResourceDefinition.
mod cel;
mod finish;

#[doc(hidden)]
pub mod cases;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use cache::{Cache, CacheProxy, CacheSpec, CacheStatus, CacheTls, CacheVolume};
pub use exposure::{Ingress, IssuerReference, Service, ServiceType, Tls, TlsMode};
pub use finish::OWNER;
pub use node_cache::{
    NodeCache, NodeCacheInstaller, NodeCacheListen, NodeCacheRollout, NodeCacheSpec, NodeCacheStatus,
    NodeCacheStorage, NodeCounts, NodeUsage, UnhealthyNode,
};
pub use node_cache_report::{NodeCacheReport, NodeCacheReportSpec, ReportedRegistry};
pub use references::{NameReference, SecretKeyReference};
pub use registry::{LastGood, Registry, RegistryFields, RegistrySpec, RegistryStatus, StorageStatus};
pub use registry_access::{
    Auth, AuthType, MetadataCache, MetadataCacheType, Redis, TokenAuth, Upgrade, UpgradeStrategy,
};
pub use registry_gateway::{
    GatewayImageLimit, GatewayLimits, GatewayOverride, GatewayTagIndex, GatewayTagLimit, RegistryGateway,
    RegistryGatewaySpec, RegistryGatewayStatus,
};
pub use registry_template::{RegistryTemplate, RegistryTemplateFields, RegistryTemplateStatus};
pub use storage::{EmptyDir, PersistentVolume, RegistryStorage, S3, StorageBackend, StoreManagement};
pub use words::{
    Access, Capability, CapacityTier, Distribution, GatewayAction, InstallerMode, ManagementState,
    NodeManagement, OnUnknown, PerNodeReports, SizeScope, TagIndexMode,
};
pub use workload::{RegistryProxy, request_above_limit};

/// The API group of every kind.
pub const GROUP: &str = "registry-operator.dev";
/// The only version that is served.
pub const VERSION: &str = "v1alpha1";

/// Every definition, ready to apply, in the order of the alphabet of their kinds.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        Cache::crd(),
        NodeCache::crd(),
        NodeCacheReport::crd(),
        Registry::crd(),
        RegistryGateway::crd(),
        RegistryTemplate::crd(),
    ]
    .into_iter()
    .map(finish::finish)
    .collect()
}

/// All definitions as YAML, `---` before each; the same text at each call.
///
/// # Panics
/// Never: a definition is a tree of JSON, which YAML can write.
#[must_use]
pub fn yaml() -> String {
    let written =
        |definition| serde_saphyr::to_string(definition).expect("a tree of JSON can be written as YAML");
    all().iter().map(|definition| format!("---\n{}", written(definition))).collect()
}

/// Whether a definition was put there by Larder, and not by another owner of the group.
#[must_use]
pub fn is_ours(definition: &CustomResourceDefinition) -> bool {
    let labels = definition.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(OWNER.0)).is_some_and(|owner| owner == OWNER.1)
}

#[cfg(test)]
mod tests;
