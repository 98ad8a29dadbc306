//! Which revision runs: the wanted one, or the last good one after the wanted one failed. Pure; what is decided is done
//! by the next stage.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;

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
    pub before: Before<'a>,
    /// The spec hash that was rolled back.
    pub rejected: Option<&'a str>,
    pub live: Option<&'a Deployment>,
    /// How many pods there are to be.
    pub replicas: i32,
    pub health_timeout: Duration,
    pub auto_rollback: bool,
    pub now: Timestamp,
}

/// What there is to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before<'a> {
    Nothing,
    Good(&'a str),
    /// There was one, and its Secret is gone.
    Lost,
}

/// Whether Service, Ingress and budget become as wanted, or stay as the pods of before have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrances {
    Wanted,
    Stay,
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
    /// No step forward within this time, says its Deployment.
    NoProgress(Duration),
    /// The same, and the Secret of the last good revision is gone.
    NothingKept,
}

/// What the status and the API say, side by side. `is_kept` tells whether the Secret of the last good revision is there.
#[must_use]
pub(crate) fn situation<'a>(
    registry: &'a Registry,
    valid: &Valid,
    live: &'a Live,
    wanted: &'a str,
    spec_hash: &'a str,
    is_kept: bool,
) -> Situation<'a> {
    let status = registry.status.as_ref();
    let upgrade = valid.spec.upgrade.as_ref();
    let good = status.and_then(|status| status.last_good.as_ref()).map(|good| good.config_hash.as_str());
    Situation {
        wanted,
        spec_hash,
        before: match good {
            None => Before::Nothing,
            // Its Secret is made again before anything else.
            Some(good) if good == wanted || is_kept => Before::Good(good),
            Some(_) => Before::Lost,
        },
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
    let good = match is.before {
        Before::Good(good) => Some(good),
        Before::Nothing | Before::Lost => None,
    };
    if let Some(good) = good.filter(|good| is.rejected == Some(is.spec_hash) && *good != is.wanted) {
        return Decision { run: Which::LastGood, running: running(good), stand: Stand::RolledBack };
    }
    let mut decision = Decision { run: Which::Wanted, running: running(is.wanted), stand: Stand::Rolling };
    let is_live = live.as_ref().is_some_and(|live| live.revision == is.wanted);
    let Some(deployment) = is.live.filter(|_| is_live && !is_idle) else { return decision };
    match rollout(deployment) {
        Rollout::Complete => decision.stand = Stand::Finished,
        // It was healthy before: pods that fail now are no fault of an upgrade.
        Rollout::Stuck if good != Some(is.wanted) => return given_up(is, good, decision),
        Rollout::Going | Rollout::Stuck => {}
    }
    decision
}

/// Back to what is good, if there is something and its author wants it.
fn given_up(is: &Situation<'_>, good: Option<&str>, decision: Decision) -> Decision {
    let failure = Failure::NoProgress(is.health_timeout);
    match (is.before, good) {
        (_, Some(good)) if is.auto_rollback => Decision {
            run: Which::LastGood,
            running: Running { revision: good.to_owned(), since: is.now },
            stand: Stand::RollingBack(failure),
        },
        (Before::Lost, _) if is.auto_rollback => {
            Decision { stand: Stand::Failed(Failure::NothingKept), ..decision }
        }
        _ => Decision { stand: Stand::Failed(failure), ..decision },
    }
}

/// While pods of before serve, and when they serve again, Service and Ingress stay as they have them.
#[must_use]
pub(crate) fn entrances(is: &Situation<'_>, decision: &Decision) -> Entrances {
    let serve = is.live.is_some_and(|live| wanted_replicas(live) > 0);
    let is_new = match is.before {
        Before::Nothing => false,
        Before::Good(good) => good != is.wanted,
        Before::Lost => true,
    };
    match (decision.run, &decision.stand) {
        (Which::Wanted, Stand::Finished) => Entrances::Wanted,
        (Which::Wanted, _) if !(serve && is_new) => Entrances::Wanted,
        _ => Entrances::Stay,
    }
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
