//! Which revision runs: the wanted one, or the last good one after the wanted one failed. Pure; what is decided is done
//! by the next stage.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::build::Running;
use super::dereference::Live;
use super::validate::Valid;
use crate::crd::Registry;

/// What a Deployment's own controller makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollout {
    /// On its way, or not looked at yet.
    Going,
    /// Every pod is of the newest template, ready, and has been for a while.
    Complete,
    /// No step forward within its deadline.
    Stuck,
}

/// What the decision rests on.
#[derive(Debug)]
pub(crate) struct Situation<'a> {
    /// The revision of the effective spec.
    pub wanted: &'a str,
    /// The hash of the effective spec, with what it copies from Secrets.
    pub spec_hash: &'a str,
    pub last_good: Option<&'a str>,
    /// The spec hash that was rolled back.
    pub rejected: Option<&'a str>,
    pub live: Option<&'a Deployment>,
    /// How many pods there are to be.
    pub replicas: i32,
    pub health_timeout: Duration,
    pub auto_rollback: bool,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub run: Which,
    pub running: Running,
    pub stand: Stand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Wanted,
    LastGood,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    Rolling,
    /// The wanted revision is seen healthy: it is the last good one from now on.
    Finished,
    /// It is not healthy, and there is nothing to go back to, or it must not.
    Failed(Failure),
    /// It goes back now.
    RollingBack(Failure),
    /// It went back; the same spec is not tried again.
    RolledBack,
}

/// Why a rollout is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    ProgressDeadline,
    HealthTimeout(Duration),
    /// The last good revision's Secret is gone.
    NothingKept,
}

/// What stands in the status, in the cluster and in the spec, side by side.
#[must_use]
pub(crate) fn situation<'a>(
    registry: &'a Registry,
    valid: &Valid,
    live: &'a Live,
    wanted: &'a str,
    spec_hash: &'a str,
) -> Situation<'a> {
    let status = registry.status.as_ref();
    let upgrade = valid.spec.upgrade.as_ref();
    Situation {
        wanted,
        spec_hash,
        last_good: status.and_then(|status| status.last_good.as_ref()).map(|good| good.config_hash.as_str()),
        rejected: status.and_then(|status| status.rejected.as_deref()),
        live: live.deployment.as_ref(),
        replicas: valid.replicas,
        health_timeout: valid.health_timeout,
        auto_rollback: upgrade.and_then(|upgrade| upgrade.auto_rollback).unwrap_or(true),
        now: Timestamp::now(),
    }
}

/// The one decision of an upgrade.
#[must_use]
pub(crate) fn decide(is: &Situation<'_>) -> Decision {
    let live = is.live.and_then(Running::of);
    let is_idle = is.live.is_some_and(|live| wanted_replicas(live) == 0);
    // Pods that come after none are a rollout of their own.
    let wakes = is_idle && is.replicas > 0;
    let running = |revision: &str| match &live {
        Some(live) if live.revision == revision && !wakes => live.clone(),
        _ => Running { revision: revision.to_owned(), since: is.now },
    };
    if let Some(good) = is.last_good.filter(|good| is.rejected == Some(is.spec_hash) && *good != is.wanted) {
        return Decision { run: Which::LastGood, running: running(good), stand: Stand::RolledBack };
    }
    let mut decision = Decision { run: Which::Wanted, running: running(is.wanted), stand: Stand::Rolling };
    let is_live = live.as_ref().is_some_and(|live| live.revision == is.wanted);
    let Some(deployment) = is.live.filter(|_| is_live && !is_idle) else { return decision };
    let failure = match rollout(deployment) {
        Rollout::Complete => {
            decision.stand = Stand::Finished;
            return decision;
        }
        // It was healthy before: pods that fail now are no fault of an upgrade.
        _ if is.last_good == Some(is.wanted) => return decision,
        Rollout::Stuck => Failure::ProgressDeadline,
        Rollout::Going if is_over(decision.running.since, is) => Failure::HealthTimeout(is.health_timeout),
        Rollout::Going => return decision,
    };
    match is.last_good.filter(|_| is.auto_rollback) {
        Some(good) => Decision {
            run: Which::LastGood,
            running: Running { revision: good.to_owned(), since: is.now },
            stand: Stand::RollingBack(failure),
        },
        None => Decision { stand: Stand::Failed(failure), ..decision },
    }
}

fn is_over(since: Timestamp, is: &Situation<'_>) -> bool {
    let limit = SignedDuration::try_from(is.health_timeout).unwrap_or(SignedDuration::MAX);
    is.now.duration_since(since) > limit
}

fn wanted_replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// As `kubectl rollout status` reads it.
#[must_use]
pub(crate) fn rollout(deployment: &Deployment) -> Rollout {
    let Some(status) = &deployment.status else { return Rollout::Going };
    if status.observed_generation < deployment.metadata.generation {
        return Rollout::Going;
    }
    let progressing = status.conditions.iter().flatten().find(|it| it.type_ == "Progressing");
    if progressing.and_then(|it| it.reason.as_deref()) == Some("ProgressDeadlineExceeded") {
        return Rollout::Stuck;
    }
    let wanted = wanted_replicas(deployment);
    let counts = [status.updated_replicas, status.replicas, status.available_replicas];
    let is_complete = counts.into_iter().all(|count| count.unwrap_or(0) == wanted);
    if is_complete { Rollout::Complete } else { Rollout::Going }
}

#[cfg(test)]
mod tests;
