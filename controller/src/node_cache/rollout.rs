//! Whether a rollout goes on: it stops while more than 5 % of the nodes are degraded, lest a bad release reach them
//! all. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;

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

/// `degraded` is `None` while it is not known: then things stay as they are. Another release begins to roll in any
/// case: it may be the cure, and pods that are not available are replaced first.
pub(super) fn decide(live: Option<&DaemonSet>, degraded: Option<usize>, release: &str) -> Rollout {
    let pods = Pods::of(live);
    let is_same = live.and_then(|live| live.annotations().get(RELEASE)).is_some_and(|live| live == release);
    if !is_same || !pods.is_rolling() {
        return Rollout::Rolling;
    }
    let Some(degraded) = degraded else { return now(live) };
    if too_many(degraded, pods.desired) { Rollout::Paused } else { Rollout::Rolling }
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

    #[test]
    fn a_rollout_stops_above_five_percent_and_goes_on_below() {
        let rolling = live("RollingUpdate", 40);
        assert_eq!(decide(Some(&rolling), Some(5), "a"), Rollout::Rolling);
        assert_eq!(decide(Some(&rolling), Some(6), "a"), Rollout::Paused);
        assert_eq!(decide(Some(&live("OnDelete", 40)), Some(5), "a"), Rollout::Rolling);
    }

    #[test]
    fn without_a_rollout_there_is_nothing_to_stop() {
        assert_eq!(decide(Some(&live("OnDelete", 100)), Some(50), "a"), Rollout::Rolling);
        assert_eq!(decide(None, Some(50), "a"), Rollout::Rolling);
    }

    #[test]
    fn another_release_may_be_the_cure() {
        assert_eq!(decide(Some(&live("OnDelete", 40)), Some(50), "b"), Rollout::Rolling);
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        assert_eq!(decide(Some(&live("OnDelete", 40)), None, "a"), Rollout::Paused);
        assert_eq!(decide(Some(&live("RollingUpdate", 40)), None, "a"), Rollout::Rolling);
    }

    #[test]
    fn counts_of_an_older_generation_are_a_rollout() {
        let mut daemon_set = live("RollingUpdate", 100);
        daemon_set.metadata.generation = Some(3);
        assert!(Pods::of(Some(&daemon_set)).is_rolling());
    }
}
