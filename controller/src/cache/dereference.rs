//! The dereference step of a Cache: what it names, and who else there is. Must not judge any of it.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;

use super::{resolve, upstream};
use crate::apply;
use crate::context::Context;
use crate::crd::{Cache, NodeCache};
use crate::error::Error;
use crate::reports::UpstreamSummary;

pub(super) struct Dereferenced {
    /// All of them, this one among them.
    pub(super) caches: Vec<Cache>,
    pub(super) node_caches: Vec<NodeCache>,
    /// The ones that it names, where they are there.
    pub(super) secret: Option<Secret>,
    pub(super) authorities: Option<ConfigMap>,
    /// What the nodes tell of its registry.
    pub(super) upstream: UpstreamSummary,
}

pub(super) async fn dereference(cache: &Cache, context: &Context) -> Result<Dereferenced, Error> {
    let (client, namespace) = (context.client.clone(), context.config.namespace.as_str());
    let secret = match &cache.spec.secret_reference_name {
        Some(name) => apply::read(&Api::namespaced(client.clone(), namespace), name).await?,
        None => None,
    };
    let authorities = match resolve::authorities_named(cache) {
        Some(name) => apply::read(&Api::namespaced(client.clone(), namespace), name).await?,
        None => None,
    };
    let registry = upstream::registry(&cache.spec);
    Ok(Dereferenced {
        caches: list(&Api::all(client.clone())).await?,
        node_caches: list(&Api::all(client)).await?,
        secret,
        authorities,
        upstream: registry.map_or_else(
            |_| UpstreamSummary::default(),
            |registry| context.fleet.upstream(registry.as_str(), Timestamp::now()),
        ),
    })
}

/// Every object of a kind in the API's scope.
pub(crate) async fn list<K>(api: &Api<K>) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let listed = api.list(&ListParams::default()).await;
    Ok(listed.map_err(Error::api(format!("list the {}", K::plural(&()))))?.items)
}
