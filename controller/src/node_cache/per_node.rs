//! One NodeCacheReport a node, written when the node's state changes, at most five a second over all NodeCaches. Must
//! not be needed by anything: whoever wants numbers asks `/v1/nodes`.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta};
use kube::{Resource, ResourceExt};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::{REFRESH, build};
use crate::apply::{self, Child};
use crate::context::Context;
use crate::crd::{NodeCache, NodeCacheReport, NodeCacheReportSpec, PerNodeReports, ReportedRegistry};
use crate::error::{Error, chain};
use crate::reports::{NodeState, RegistryView};

/// From one write to the next when there is one NodeCache.
const PACE: Duration = Duration::from_millis(200);

/// Nodes a reconcile: so much of its time is left for everything else.
const AT_ONCE: usize = 25;

/// However many are left then wait for the next reconcile.
const LONGEST: Duration = Duration::from_secs(10);

/// With this many left, the next look comes soon.
const SOON: Duration = Duration::from_secs(1);

/// Writes what changed, and says when to look again. `node_caches` share the five a second.
pub(super) async fn write(node_cache: &NodeCache, context: &Context, node_caches: usize) -> Duration {
    if node_cache.spec.per_node_reports == Some(PerNodeReports::None) {
        return REFRESH;
    }
    let (name, now) = (node_cache.name_any(), Timestamp::now());
    if context.fleet.summary(&name, now).warming {
        return REFRESH;
    }
    let sharers = u32::try_from(node_caches.max(1)).unwrap_or(u32::MAX);
    let most = (AT_ONCE / sharers as usize).max(1);
    let changed = context.fleet.transitions(&name, most, now);
    if changed.is_empty() {
        return REFRESH;
    }
    let more = changed.len() == most;
    let all = write_all(node_cache, context, &changed, PACE.saturating_mul(sharers));
    // What was not written by then was not marked as told.
    let in_time = timeout(LONGEST, all).await.is_ok();
    if more && in_time { SOON } else { REFRESH }
}

async fn write_all(node_cache: &NodeCache, context: &Context, changed: &[NodeState], each: Duration) {
    let mut pace = interval(each);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for state in changed {
        let wanted = report(node_cache, state);
        let written = match is_told(&wanted, context).await {
            Ok(false) => {
                pace.tick().await;
                apply::apply(context, &Child::of(&wanted)).await.map(|_| ())
            }
            told => told.map(|_| ()),
        };
        match written {
            Ok(()) => context.fleet.told(&node_cache.name_any(), state),
            Err(error) => debug!(node = state.node, error = chain(&error), "a node's report waits"),
        }
    }
}

/// Whether what is there says the same. Since when is not compared: after a change of leader nobody remembers it.
async fn is_told(wanted: &NodeCacheReport, context: &Context) -> Result<bool, Error> {
    let api: Api<NodeCacheReport> = Api::all(context.client.clone());
    let live = apply::read(&api, &wanted.name_any()).await?;
    Ok(live.is_some_and(|live| says_the_same(&live.spec, &wanted.spec)))
}

fn says_the_same(live: &NodeCacheReportSpec, wanted: &NodeCacheReportSpec) -> bool {
    let timeless = |spec: &NodeCacheReportSpec| NodeCacheReportSpec { since: None, ..spec.clone() };
    timeless(live) == timeless(wanted)
}

fn report(node_cache: &NodeCache, state: &NodeState) -> NodeCacheReport {
    let registry = |told: &RegistryView| ReportedRegistry {
        registry: told.registry.to_string(),
        state: told.state.to_owned(),
        reason: told.reason.to_string(),
    };
    let (reason, message) = state.reason.split_once(": ").unwrap_or((&state.reason, ""));
    NodeCacheReport {
        metadata: ObjectMeta {
            name: Some(state.node.clone()),
            labels: Some(apply::labels(build::COMPONENT, &node_cache.name_any())),
            owner_references: node_cache.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: NodeCacheReportSpec {
            node: state.node.clone(),
            node_cache: node_cache.name_any(),
            // The fleet knows silence as a way to be degraded; here it is a state, so that it can be selected.
            state: if reason == "Silent" { "Silent" } else { state.state }.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            since: Some(Time(state.since)),
            generation: i64::try_from(state.generation).unwrap_or(i64::MAX),
            version: state.version.clone(),
            registries: state.registries.iter().map(registry).collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(reason: &str) -> NodeState {
        NodeState {
            node: "n1".to_owned(),
            state: "Degraded",
            reason: reason.to_owned(),
            since: Timestamp::UNIX_EPOCH,
            version: "0.1.0".to_owned(),
            generation: 7,
            installed: false,
            in_use: false,
            first: true,
            registries: Vec::new(),
            mark: 0,
        }
    }

    #[test]
    fn a_report_names_the_node_its_state_and_one_word_why() {
        let mut node_cache = NodeCache::default();
        node_cache.metadata.name = Some("default".to_owned());
        let made = report(&node_cache, &state("NotInstalled: TwoRoots (docker.io)"));
        assert_eq!(made.name_any(), "n1");
        assert_eq!((made.spec.state.as_str(), made.spec.reason.as_str()), ("Degraded", "NotInstalled"));
        assert_eq!(made.spec.message, "TwoRoots (docker.io)");
        assert_eq!(report(&node_cache, &state("Silent")).spec.state, "Silent");
    }

    #[test]
    fn a_new_leader_does_not_write_what_is_there_already() {
        let node_cache = NodeCache::default();
        let wanted = report(&node_cache, &state("DiskFull")).spec;
        let live = NodeCacheReportSpec { since: None, ..wanted.clone() };
        assert!(says_the_same(&live, &wanted));
        assert!(!says_the_same(&NodeCacheReportSpec { generation: 6, ..live }, &wanted));
    }
}
