//! The dereference step of a NodeCache: everything it depends on, read through the API. Must not judge any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use tokio::time::timeout;

use super::{build, child_name, credentials_name};
use crate::apply;
use crate::cache::{age, list, resolve};
use crate::context::Context;
use crate::crd::{Cache, NodeCache};
use crate::error::Error;
use crate::reports::Summary;

/// The port of the controller's Service that takes reports.
const REPORTS: u16 = 8080;

/// What a NodeCache depends on, as it is now.
pub(super) struct Dereferenced {
    /// Those that it selects.
    pub(super) caches: Vec<Cache>,
    /// All of them, this one among them.
    pub(super) node_caches: Vec<NodeCache>,
    /// By name; what is not there is absent.
    pub(super) secrets: BTreeMap<String, Secret>,
    pub(super) authorities: BTreeMap<String, ConfigMap>,
    /// Where agents report to: `http://IP:PORT`.
    pub(super) controller: Option<String>,
    pub(super) live: Live,
    pub(super) nodes: Vec<Arc<PartialObjectMeta<Node>>>,
    pub(super) summary: Summary,
}

/// The children that steer what is decided next.
#[derive(Default)]
pub(super) struct Live {
    pub(super) config_map: Option<ConfigMap>,
    pub(super) daemon_set: Option<DaemonSet>,
    pub(super) credentials: Option<Secret>,
}

impl Live {
    /// The settings that nodes mount now.
    pub(super) fn settings(&self) -> Option<&str> {
        self.config_map.as_ref()?.data.as_ref()?.get(build::SETTINGS_KEY).map(String::as_str)
    }
}

/// How long the first list of the nodes is waited for at once.
const NODES: Duration = Duration::from_secs(5);

pub(super) async fn dereference(node_cache: &NodeCache, context: &Context) -> Result<Dereferenced, Error> {
    let (client, namespace) = (context.client.clone(), context.config.namespace.as_str());
    // Before all nodes are known no conflict is; an error is a controller that ends. Of several who wait only one is
    // told, so the others look again.
    let known = timeout(NODES, context.nodes.wait_until_ready()).await;
    let _ = known.map_err(|_| Error::Deadline(NODES))?;
    let caches = list(&Api::<Cache>::all(client.clone())).await?;
    let caches: Vec<Cache> = caches.into_iter().filter(|cache| age::selects(node_cache, cache)).collect();
    let secrets = caches.iter().filter_map(|cache| cache.spec.secret_reference_name.as_deref()).collect();
    let authorities = caches.iter().filter_map(resolve::authorities_named).collect();
    Ok(Dereferenced {
        secrets: read_all(&Api::namespaced(client.clone(), namespace), secrets).await?,
        authorities: read_all(&Api::namespaced(client.clone(), namespace), authorities).await?,
        caches,
        node_caches: list(&Api::all(client)).await?,
        controller: controller(context).await?,
        live: live(node_cache, context).await?,
        nodes: context.nodes.state(),
        summary: context.fleet.summary(&node_cache.name_any(), Timestamp::now()),
    })
}

/// The children as they are.
pub(super) async fn live(node_cache: &NodeCache, context: &Context) -> Result<Live, Error> {
    let (name, namespace) = (child_name(&node_cache.name_any()), context.config.agent_namespace.as_str());
    let credentials = credentials_name(&node_cache.name_any());
    Ok(Live {
        credentials: apply::read(&Api::namespaced(context.client.clone(), namespace), &credentials).await?,
        config_map: apply::read(&Api::namespaced(context.client.clone(), namespace), &name).await?,
        daemon_set: apply::read(&Api::namespaced(context.client.clone(), namespace), &name).await?,
    })
}

async fn read_all<K>(api: &Api<K>, names: BTreeSet<&str>) -> Result<BTreeMap<String, K>, Error>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut found = BTreeMap::new();
    for name in names {
        if let Some(object) = apply::read(api, name).await? {
            found.insert(name.to_owned(), object);
        }
    }
    Ok(found)
}

/// An address, not a name: the agents do not ask the cluster's DNS.
pub(super) async fn controller(context: &Context) -> Result<Option<String>, Error> {
    let api: Api<Service> = Api::namespaced(context.client.clone(), &context.config.namespace);
    let service = apply::read(&api, &context.config.service).await?;
    let address = service.and_then(|service| service.spec?.cluster_ip?.parse::<IpAddr>().ok());
    Ok(address.map(|address| format!("http://{}", SocketAddr::new(address, REPORTS))))
}
