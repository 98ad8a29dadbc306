//! Whether nodes that have their entry, and whose containerd asks for nothing, have reason to ask: pods were started
//! there. A few lookups a reconcile; what cannot be looked up now is looked up later, and fails nothing.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use tracing::debug;

use crate::context::Context;
use crate::crd::NodeCache;
use crate::error::chain;

/// Pods of one node that are looked at; a kubelet takes 110 unless told otherwise.
const MOST_PODS: u32 = 500;

/// Pods younger than this would have asked.
const RECENT: SignedDuration = SignedDuration::from_hours(1);

pub(super) async fn look(node_cache: &NodeCache, context: &Context) {
    for node in context.fleet.suspects(&node_cache.name_any(), Timestamp::now()) {
        if let Err(error) = look_at(&node, context).await {
            debug!(node, error = chain(&error), "it is not known yet whether pods were started there");
            return;
        }
    }
}

async fn look_at(name: &str, context: &Context) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(context.client.clone());
    let node = api.get_opt(name).await?;
    let Some(runtime) = node.and_then(|node| Some(node.status?.node_info?.container_runtime_version)) else {
        return Ok(());
    };
    context.fleet.runtime(name, &runtime);
    let api: Api<Pod> = Api::all(context.client.clone());
    let parameters = ListParams::default().fields(&format!("spec.nodeName={name}")).limit(MOST_PODS);
    let (pods, now) = (api.list_metadata(&parameters).await?, Timestamp::now());
    let started = pods.items.iter().any(|pod| {
        // A rollout of the agents themselves says nothing about their node.
        pod.namespace().as_deref() != Some(context.config.agent_namespace.as_str())
            && pod.creation_timestamp().is_some_and(|created| now.duration_since(created.0) < RECENT)
    });
    context.fleet.pods_started(name, started, now);
    Ok(())
}
