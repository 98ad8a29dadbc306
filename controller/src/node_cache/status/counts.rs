//! Numbers for people: rounded, so that a fleet at rest writes nothing. Pure but for the gauges. While not every node
//! has had the time to report again, the old numbers stand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::Observed;
use crate::cache::figures::{number, percent, rounded};
use crate::condition::Conditions;
use crate::crd::{NodeCacheStatus, NodeCounts, NodeUsage, UnhealthyNode};
use crate::metrics::Metrics;
use crate::node_cache::rollout::in_trouble;
use crate::reports::Summary;

pub(super) fn status(observed: &Observed<'_>, conditions: Conditions) -> NodeCacheStatus {
    let (node_cache, summary) = (observed.node_cache, observed.summary);
    let old = node_cache.status.clone().unwrap_or_default();
    let known = NodeCacheStatus {
        observed_generation: node_cache.metadata.generation,
        generation: i64::try_from(observed.generation).unwrap_or(i64::MAX),
        nodes: NodeCounts { desired: observed.pods.desired, ..old.nodes },
        conditions: conditions.into_vec(),
        ..old
    };
    if summary.warming {
        return known;
    }
    NodeCacheStatus {
        nodes: nodes(observed),
        usage: Some(usage(summary)),
        unhealthy_nodes: summary
            .worst
            .iter()
            .map(|worst| UnhealthyNode {
                node: worst.node.clone(),
                reason: worst.reason.clone(),
                since: Some(Time(whole_second(worst.since))),
            })
            .collect(),
        more_unhealthy_nodes: number(summary.more),
        upstream: (summary.reporting > 0).then(|| match summary.upstream_down.as_slice() {
            [] => "up".to_owned(),
            down => format!("down: {}", down.join(", ")),
        }),
        upstreams_down: summary.upstream_down.clone(),
        ..known
    }
}

fn nodes(observed: &Observed<'_>) -> NodeCounts {
    let (summary, desired) = (observed.summary, observed.pods.desired);
    let reporting = number(summary.reporting);
    NodeCounts {
        desired,
        reporting,
        updated: number(summary.updated),
        ready: number(summary.ready),
        degraded: number(in_trouble(summary, observed.pods)),
        installed: number(summary.installed),
        in_use: number(summary.in_use),
        unsupported: number(summary.unsupported),
        // One that never reported is not known to the fleet.
        silent: number(summary.silent).max(desired.saturating_sub(reporting)),
    }
}

fn usage(summary: &Summary) -> NodeUsage {
    NodeUsage {
        since: Some(Time(whole_second(summary.usage.since))),
        hit_ratio: summary.usage.hit_ratio.map(percent),
        bytes_served: rounded(summary.usage.bytes_served),
        bytes_fetched: rounded(summary.usage.bytes_fetched),
        evicted_bytes: rounded(summary.usage.evicted_bytes),
        capacity_bytes: rounded(summary.capacity_bytes),
        used_bytes: rounded(summary.cache_bytes),
    }
}

/// The API server keeps no fractions.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The same counts as gauges.
pub(super) fn publish(metrics: &Metrics, node_cache: &str, nodes: &NodeCounts) {
    for (state, count) in [
        ("desired", nodes.desired),
        ("updated", nodes.updated),
        ("reporting", nodes.reporting),
        ("ready", nodes.ready),
        ("degraded", nodes.degraded),
        ("installed", nodes.installed),
        ("in_use", nodes.in_use),
        ("silent", nodes.silent),
        ("unsupported", nodes.unsupported),
    ] {
        metrics.nodes(node_cache, state, i64::from(count));
    }
}
