//! What the conditions of a NodeCache say. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::Observed;
use crate::condition::{AVAILABLE, Conditions, DEGRADED, PROGRESSING, Truth};
use crate::crd::{NodeCache, NodeManagement};
use crate::node_cache::rollout::{Rollout, in_trouble, too_many, unheard};

const IN_USE: &str = "InUse";
const CONFIG_DISTRIBUTED: &str = "ConfigDistributed";

/// So long as not every node has had the time to report again.
const WARMING: &str = "Warming";

/// A condition's value, reason and message.
type Said = (Truth, &'static str, String);

/// How far things are.
pub(in crate::node_cache) struct Progress {
    reason: &'static str,
    message: String,
}

impl Progress {
    /// A deletion that waits for nodes.
    pub(in crate::node_cache) fn withdrawing(what: &str, deadline: Timestamp) -> Self {
        let until = Timestamp::from_second(deadline.as_second()).unwrap_or(deadline);
        Self { reason: "Withdrawing", message: format!("{what}; not waited for after {until}") }
    }
}

pub(super) fn is_removed(node_cache: &NodeCache) -> bool {
    node_cache.spec.management_state == Some(NodeManagement::Removed)
}

/// All of them.
pub(super) fn conditions(observed: &Observed<'_>) -> Conditions {
    let before = before(observed.node_cache);
    // What only reports tell is not known while nodes are given time to report.
    let told = |type_: &'static str, said: fn(&Observed<'_>) -> Said| {
        (type_, if observed.summary.warming { kept(before, type_) } else { said(observed) })
    };
    let refused = observed.refusal.map(|why| (Truth::True, why.reason(), why.to_string()));
    let all = [
        (AVAILABLE, available(observed)),
        (PROGRESSING, progressing(observed)),
        refused.map_or_else(|| told(DEGRADED, degraded), |refused| (DEGRADED, refused)),
        told(IN_USE, in_use),
        told(CONFIG_DISTRIBUTED, distributed),
    ];
    let none = Conditions::of(before, observed.node_cache.metadata.generation);
    all.into_iter()
        .fold(none, |set, (type_, (truth, reason, message))| set.set(type_, truth, reason, message))
}

/// The ones that are there, with another Progressing.
pub(super) fn with_progress(node_cache: &NodeCache, progress: &Progress) -> Conditions {
    let before = before(node_cache);
    let mut conditions = Conditions::of(before, node_cache.metadata.generation);
    for condition in before {
        let truth = truth(condition);
        conditions = conditions.set(&condition.type_, truth, &condition.reason, condition.message.clone());
    }
    conditions.set(PROGRESSING, Truth::True, progress.reason, progress.message.clone())
}

fn before(node_cache: &NodeCache) -> &[Condition] {
    node_cache.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

fn truth(condition: &Condition) -> Truth {
    match condition.status.as_str() {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => Truth::Unknown,
    }
}

/// What was said before, while nothing better is known.
fn kept(before: &[Condition], type_: &str) -> Said {
    let reasons = [
        "NodesDegraded",
        "AsExpected",
        "InUse",
        "NotSeen",
        "NotInstalled",
        "Applied",
        "Distributing",
        "NoReports",
    ];
    let old = before.iter().find(|old| old.type_ == type_);
    let known = old.and_then(|old| Some((old, reasons.into_iter().find(|reason| *reason == old.reason)?)));
    known.map_or_else(
        || (Truth::Unknown, WARMING, "nodes are given two minutes to report to a new leader".to_owned()),
        |(old, reason)| (truth(old), reason, old.message.clone()),
    )
}

/// The agents run on most nodes. A few that do not are told by Degraded.
fn available(observed: &Observed<'_>) -> Said {
    let pods = observed.pods;
    let message = format!("{} of {} agents are available", pods.available, pods.desired);
    match pods {
        _ if pods.desired == 0 && !pods.observed => {
            (Truth::False, "Starting", "the DaemonSet is not looked at yet".to_owned())
        }
        _ if pods.desired == 0 => (Truth::True, "NoNodes", "no node is selected".to_owned()),
        _ if pods.available.saturating_mul(2) > pods.desired => (Truth::True, "Ready", message),
        _ => (Truth::False, "AgentsUnavailable", message),
    }
}

fn progressing(observed: &Observed<'_>) -> Said {
    let (pods, summary) = (observed.pods, observed.summary);
    let at = format!("{} of {} agents are up to date", pods.updated, pods.desired);
    if let Some(withdrawal) = observed.withdrawal {
        let of = withdrawal.known.max(usize::try_from(pods.desired).unwrap_or(0));
        let left = of.saturating_sub(withdrawal.done);
        return match left {
            0 => (Truth::False, "Removed", format!("{of} nodes have their entries out of certs.d")),
            left => (
                Truth::True,
                "Withdrawing",
                format!("{left} of {of} nodes have not confirmed that their entries are out of certs.d"),
            ),
        };
    }
    if let Some(refusal) = observed.refusal {
        return (Truth::False, refusal.reason(), refusal.to_string());
    }
    match observed.rollout {
        Rollout::Paused => {
            let message = format!(
                "{at}; stopped while {} nodes are degraded, which is more than when it began by over 5 % of all: \
                 status.unhealthyNodes says why. It goes on by itself below that; a deleted pod comes back up to date \
                 at once",
                in_trouble(summary, pods)
            );
            (Truth::True, "RolloutPaused", message)
        }
        Rollout::Rolling if pods.desired > 0 && pods.is_rolling() => (Truth::True, "RollingOut", at),
        Rollout::Rolling => (Truth::False, "AsExpected", String::new()),
    }
}

fn degraded(observed: &Observed<'_>) -> Said {
    let (summary, desired) = (observed.summary, observed.pods.desired);
    let (nodes, unheard) = (in_trouble(summary, observed.pods), unheard(summary, observed.pods));
    if nodes == 0 {
        return (Truth::False, "AsExpected", String::new());
    }
    let worst = summary.worst.iter().take(3).map(|worst| format!("{} {}", worst.node, worst.reason));
    let never = (unheard > 0).then(|| format!("{unheard} run an agent that never reported"));
    let worst: Vec<String> = worst.chain(never).collect();
    let message = format!("{nodes} of {desired} nodes are degraded: {}", worst.join(", "));
    match too_many(nodes, desired) {
        true => (Truth::True, "NodesDegraded", message),
        false => (Truth::False, "AsExpected", message),
    }
}

fn in_use(observed: &Observed<'_>) -> Said {
    let summary = observed.summary;
    let at =
        format!("containerd was seen on {} of {} nodes with an entry", summary.in_use, summary.installed);
    match (summary.installed, summary.in_use) {
        (0, 0) => (Truth::False, "NotInstalled", "no node has its entry in certs.d".to_owned()),
        (_, 0) => (Truth::False, "NotSeen", format!("{at} since the entry was written")),
        _ => (Truth::True, "InUse", at),
    }
}

fn distributed(observed: &Observed<'_>) -> Said {
    let summary = observed.summary;
    let (generation, reporting) = (observed.generation, summary.reporting);
    let at =
        format!("{} of {reporting} reporting nodes have applied generation {generation}", summary.updated);
    match reporting {
        0 => (Truth::Unknown, "NoReports", "no node reports".to_owned()),
        _ if summary.updated >= reporting => (Truth::True, "Applied", at),
        _ => (Truth::False, "Distributing", at),
    }
}
