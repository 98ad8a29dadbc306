//! What Registry and RegistryGateway pods share. Must not hold what only one of them has.

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::cel;
use crate::quantity::Quantity;

/// The proxy through which a registry reaches its storage and its token service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryProxy {
    /// For `http://` addresses: `http://[user:password@]host[:port]`.
    #[x_kube(validation = cel::proxy_url("proxy.http"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// For `https://` addresses: `http://[user:password@]host[:port]`.
    #[x_kube(validation = cel::proxy_url("proxy.https"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https: Option<String>,
    /// Hosts, domains and address ranges reached without it, joined by commas.
    #[x_kube(validation = cel::printable("proxy.noProxy"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
}

/// The first resource whose request is above its limit, in words. The API server would refuse such a pod, and one
/// object need not show it: the other half may come from a tier.
#[must_use]
pub fn request_above_limit(resources: &ResourceRequirements) -> Option<String> {
    resources.requests.iter().flatten().find_map(|(name, request)| {
        let limit = resources.limits.as_ref()?.get(name)?;
        let (asked, most): (Quantity, Quantity) = (request.try_into().ok()?, limit.try_into().ok()?);
        (asked > most)
            .then(|| format!("resources.requests.{name} {} is above its limit {}", request.0, limit.0))
    })
}
