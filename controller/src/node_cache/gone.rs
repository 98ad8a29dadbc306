//! Nodes that are no more, or are no longer meant: what they told last is forgotten, or they would count as silent for
//! a day. Must not forget a node that reports.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use tracing::debug;

use super::conflict;
use crate::context::Context;
use crate::crd::{NodeCache, NodeCacheReport};
use crate::error::chain;

/// So many a reconcile: each may cost a request.
const AT_ONCE: usize = 25;

/// How the fleet calls a node that does not report.
const SILENT: &str = "Silent";

pub(super) async fn forget(node_cache: &NodeCache, context: &Context) {
    let (name, now) = (node_cache.name_any(), Timestamp::now());
    let nodes = context.nodes.state();
    if nodes.is_empty() || context.fleet.summary(&name, now).silent == 0 {
        return;
    }
    let meant: BTreeSet<String> =
        nodes.iter().filter(|node| conflict::selects(node_cache, node)).map(|node| node.name_any()).collect();
    let views = context.fleet.nodes(Some(&name), now);
    let gone = views.iter().filter(|view| view.reason == SILENT && !meant.contains(&*view.node));
    for view in gone.take(AT_ONCE) {
        context.fleet.forget_node(&view.node);
        remove_report(&view.node, context).await;
    }
}

/// Best effort: a report that is left says that its node is silent, which is true.
async fn remove_report(node: &str, context: &Context) {
    let api: Api<NodeCacheReport> = Api::all(context.client.clone());
    match api.delete(node, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => debug!(node, error = chain(&error), "the report of a node that is gone stays"),
    }
}
