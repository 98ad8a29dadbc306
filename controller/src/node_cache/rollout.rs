//! Whether a rollout goes on: it stops while more than 5 % of the nodes are degraded that were not when it began, lest
//! a bad release reach them all. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;

use crate::reports::Summary;

/// How pods follow a change of their template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rollout {
    Rolling,
    /// A pod follows only when somebody deletes it.
    Paused,
}

/// How far the pods are, by the DaemonSet's own counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pods {
    pub(super) desired: i32,
    pub(super) updated: i32,
    pub(super) available: i32,
    /// The counts are about the DaemonSet as it is now.
    pub(super) observed: bool,
}

impl Pods {
    pub(super) fn of(daemon_set: Option<&DaemonSet>) -> Self {
        let Some((daemon_set, status)) = daemon_set.and_then(|live| Some((live, live.status.as_ref()?)))
        else {
            return Self::default();
        };
        Self {
            desired: status.desired_number_scheduled,
            updated: status.updated_number_scheduled.unwrap_or(0),
            available: status.number_available.unwrap_or(0),
            observed: status.observed_generation >= daemon_set.metadata.generation,
        }
    }

    pub(super) fn is_rolling(self) -> bool {
        !self.observed || self.updated < self.desired
    }
}

/// The DaemonSet's annotation that tells one release from the next: a hash of what its pods are made of.
pub(super) const RELEASE: &str = "registry-operator.dev/release";

/// The DaemonSet's annotation of how many nodes were degraded when that release began.
pub(super) const DEGRADED_BEFORE: &str = "registry-operator.dev/degraded-before";

/// Degraded nodes, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Degraded {
    Now(usize),
    /// As the status has it: nodes are given time to report to a new leader.
    Lately(usize),
}

impl Degraded {
    pub(super) fn of(summary: &Summary, pods: Pods, told: i32) -> Self {
        match summary.warming {
            true => Self::Lately(usize::try_from(told).unwrap_or(0)),
            false => Self::Now(in_trouble(summary, pods)),
        }
    }

    const fn count(self) -> usize {
        match self {
            Self::Now(count) | Self::Lately(count) => count,
        }
    }
}

/// Nodes whose pod is available and that never reported to this leader: of them nothing is known, and that is no good
/// sign.
pub(super) fn unheard(summary: &Summary, pods: Pods) -> usize {
    usize::try_from(pods.available).unwrap_or(0).saturating_sub(summary.reporting + summary.silent)
}

/// All that are degraded.
pub(super) fn in_trouble(summary: &Summary, pods: Pods) -> usize {
    summary.degraded + unheard(summary, pods)
}

/// How pods follow, and how many nodes were degraded when the release began. While that is not known, things stay as
/// they are. Another release begins to roll in any case: it may be the cure, and then goes on with those that wait for
/// it.
pub(super) fn decide(live: Option<&DaemonSet>, degraded: Degraded, release: &str) -> (Rollout, usize) {
    let pods = Pods::of(live);
    let marks = live.map(|live| live.annotations());
    if marks.and_then(|marks| marks.get(RELEASE)).is_none_or(|live| live != release) {
        return (Rollout::Rolling, degraded.count());
    }
    let before = marks.and_then(|marks| marks.get(DEGRADED_BEFORE)?.parse().ok()).unwrap_or(0);
    let rollout = match degraded {
        _ if !pods.is_rolling() => Rollout::Rolling,
        Degraded::Lately(_) => now(live),
        Degraded::Now(count) if too_many(count.saturating_sub(before), pods.desired) => Rollout::Paused,
        Degraded::Now(_) => Rollout::Rolling,
    };
    (rollout, before)
}

/// More than 5 %.
pub(super) fn too_many(nodes: usize, of: i32) -> bool {
    nodes.saturating_mul(20) > usize::try_from(of).unwrap_or(0)
}

fn now(live: Option<&DaemonSet>) -> Rollout {
    let strategy = live.and_then(|live| live.spec.as_ref()?.update_strategy.as_ref()?.type_.as_deref());
    if strategy == Some("OnDelete") { Rollout::Paused } else { Rollout::Rolling }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(strategy: &str, updated: i32) -> DaemonSet {
        let text = format!(
            "{{metadata: {{generation: 2, annotations: {{registry-operator.dev/release: a}}}}, \
             spec: {{selector: {{}}, template: {{}}, updateStrategy: {{type: {strategy}}}}}, \
             status: {{observedGeneration: 2, currentNumberScheduled: 100, desiredNumberScheduled: 100, \
             numberMisscheduled: 0, numberReady: 100, updatedNumberScheduled: {updated}}}}}"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    /// The same, begun with so many degraded nodes.
    fn begun_with(mut live: DaemonSet, before: &str) -> DaemonSet {
        live.annotations_mut().insert(DEGRADED_BEFORE.to_owned(), before.to_owned());
        live
    }

    fn goes(live: Option<DaemonSet>, degraded: Degraded, release: &str) -> Rollout {
        decide(live.as_ref(), degraded, release).0
    }

    #[test]
    fn a_rollout_stops_above_five_percent_and_goes_on_below() {
        let rolling = || Some(live("RollingUpdate", 40));
        assert_eq!(goes(rolling(), Degraded::Now(5), "a"), Rollout::Rolling);
        assert_eq!(goes(rolling(), Degraded::Now(6), "a"), Rollout::Paused);
        assert_eq!(goes(Some(live("OnDelete", 40)), Degraded::Now(5), "a"), Rollout::Rolling);
    }

    #[test]
    fn without_a_rollout_there_is_nothing_to_stop() {
        assert_eq!(goes(Some(live("OnDelete", 100)), Degraded::Now(50), "a"), Rollout::Rolling);
        assert_eq!(goes(None, Degraded::Now(50), "a"), Rollout::Rolling);
    }

    #[test]
    fn another_release_may_be_the_cure_and_goes_on_until_it_makes_things_worse() {
        let paused = live("OnDelete", 40);
        assert_eq!(decide(Some(&paused), Degraded::Now(50), "b"), (Rollout::Rolling, 50));
        assert_eq!(decide(Some(&paused), Degraded::Lately(50), "b"), (Rollout::Rolling, 50));
        let curing = begun_with(live("RollingUpdate", 40), "50");
        assert_eq!(decide(Some(&curing), Degraded::Now(55), "a"), (Rollout::Rolling, 50));
        assert_eq!(decide(Some(&curing), Degraded::Now(10), "a"), (Rollout::Rolling, 50));
        assert_eq!(decide(Some(&curing), Degraded::Now(56), "a"), (Rollout::Paused, 50));
        assert_eq!(decide(Some(&begun_with(curing, "many")), Degraded::Now(6), "a"), (Rollout::Paused, 0));
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        assert_eq!(goes(Some(live("OnDelete", 40)), Degraded::Lately(0), "a"), Rollout::Paused);
        assert_eq!(goes(Some(live("RollingUpdate", 40)), Degraded::Lately(50), "a"), Rollout::Rolling);
    }

    #[test]
    fn a_pod_that_never_reported_counts_as_degraded() {
        let pods = Pods { desired: 100, updated: 40, available: 98, observed: true };
        let summary = Summary { reporting: 90, silent: 2, degraded: 3, ..Summary::default() };
        assert_eq!((unheard(&summary, pods), Degraded::of(&summary, pods, 7)), (6, Degraded::Now(9)));
        let more = Summary { reporting: 99, ..summary.clone() };
        assert_eq!(Degraded::of(&more, pods, 7), Degraded::Now(3), "old pods report while new ones start");
        let warming = Summary { warming: true, ..summary };
        assert_eq!(Degraded::of(&warming, pods, 7), Degraded::Lately(7));
    }

    #[test]
    fn counts_of_an_older_generation_are_a_rollout() {
        let mut daemon_set = live("RollingUpdate", 100);
        daemon_set.metadata.generation = Some(3);
        assert!(Pods::of(Some(&daemon_set)).is_rolling());
    }
}
