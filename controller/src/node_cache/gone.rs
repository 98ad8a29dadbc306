//! Nodes that are no more, or are no longer meant: what they told last is forgotten, or they would count as silent for
//! a day. Must not forget a node that reports.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use tracing::debug;

use super::conflict;
use crate::apply;
use crate::context::Context;
use crate::crd::{NodeCache, NodeCacheReport};
use crate::error::{Error, chain};

/// So many a reconcile: each may cost two requests.
const AT_ONCE: usize = 25;

pub(super) async fn forget(node_cache: &NodeCache, context: &Context) {
    let name = node_cache.name_any();
    let nodes = context.nodes.state();
    let silent = context.fleet.silent(&name, Timestamp::now());
    if nodes.is_empty() || silent.is_empty() {
        return;
    }
    let meant: BTreeSet<String> =
        nodes.iter().filter(|node| conflict::selects(node_cache, node)).map(|node| node.name_any()).collect();
    for node in silent.into_iter().filter(|node| !meant.contains(node)).take(AT_ONCE) {
        context.fleet.forget_node(&name, &node);
        // Best effort: a report that is left says that its node is silent, which is true.
        if let Err(error) = remove_report(&node, &name, context).await {
            debug!(node, error = chain(&error), "the report of a node that is gone stays");
        }
    }
}

async fn remove_report(node: &str, node_cache: &str, context: &Context) -> Result<(), Error> {
    let api: Api<NodeCacheReport> = Api::all(context.client.clone());
    let Some(report) = apply::read(&api, node).await?.filter(|report| is_of(report, node_cache)) else {
        return Ok(());
    };
    // The very report that was looked at: another NodeCache's agent may run there by now.
    let preconditions = Preconditions { uid: report.uid(), resource_version: report.resource_version() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(node, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api(format!("delete NodeCacheReport {node}"))(error)),
    }
}

fn is_of(report: &NodeCacheReport, node_cache: &str) -> bool {
    report.spec.node_cache == node_cache
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_of_the_node_cache_that_it_names() {
        let mut report = NodeCacheReport::default();
        report.spec.node_cache = "gpu".to_owned();
        assert!(is_of(&report, "gpu") && !is_of(&report, "default"));
    }
}
