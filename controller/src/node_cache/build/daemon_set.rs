//! The DaemonSet: one pod a node, replaced a few at a time.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{COMPONENT, pod};
use crate::apply::{self, MANAGED_BY};
use crate::node_cache::rollout::{DEGRADED_BEFORE, RELEASE, Rollout};
use crate::node_cache::validate::Effective;

pub(super) fn daemon_set(effective: &Effective) -> DaemonSet {
    let mut metadata = super::metadata(effective, effective.child_name());
    let marks =
        [(RELEASE, effective.release.clone()), (DEGRADED_BEFORE, effective.degraded_before.to_string())];
    metadata.annotations = Some(marks.map(|(key, value)| (key.to_owned(), value)).into());
    DaemonSet {
        metadata,
        spec: Some(DaemonSetSpec {
            // Long enough for three good probes and a first report.
            min_ready_seconds: Some(20),
            revision_history_limit: Some(5),
            selector: LabelSelector {
                match_labels: Some(selector(&effective.name)),
                match_expressions: None,
            },
            template: pod::template(effective),
            update_strategy: Some(strategy(effective)),
        }),
        status: None,
    }
}

/// It can never change, so it holds nothing that might.
fn selector(name: &str) -> BTreeMap<String, String> {
    let mut labels = apply::labels(COMPONENT, name);
    labels.remove(MANAGED_BY.0);
    labels
}

fn strategy(effective: &Effective) -> DaemonSetUpdateStrategy {
    match effective.rollout {
        Rollout::Paused => {
            DaemonSetUpdateStrategy { type_: Some("OnDelete".to_owned()), rolling_update: None }
        }
        Rollout::Rolling => DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDaemonSet {
                // Two agents cannot share a node's ports.
                max_surge: None,
                max_unavailable: Some(effective.max_unavailable.clone()),
            }),
        },
    }
}
