//! The status step of a NodeCache: counts, sums and conditions, written when a rounded value changed and at most every
//! 30 s; a condition that flips is written at once, with an event. Must not touch a child.

mod conditions;
mod counts;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use larder_wire::settings::{Settings, parse};

use super::dereference::Dereferenced;
use super::rollout::{Pods, Rollout};
use super::validate::{Effective, Refusal};
use crate::cache::due;
use crate::condition::{Conditions, Transition};
use crate::context::Context;
use crate::crd::{NodeCache, NodeCacheStatus};
use crate::error::Error;
use crate::events::Kind;
use crate::reports::{Desired, Summary, Withdrawal};

pub(super) use conditions::Progress;

/// What a status is made of.
#[derive(Clone, Copy)]
struct Observed<'a> {
    node_cache: &'a NodeCache,
    refusal: Option<&'a Refusal>,
    pods: Pods,
    rollout: Rollout,
    /// Of the settings that nodes are to apply.
    generation: u64,
    summary: &'a Summary,
    /// How far the nodes are with taking their entries out, where that is asked for.
    withdrawal: Option<&'a Withdrawal>,
}

/// Tells the fleet what is wanted of it, and people what became of it.
pub(super) async fn tell(
    node_cache: &NodeCache,
    context: &Context,
    known: &Dereferenced,
    decided: Result<&Effective, &Refusal>,
) -> Result<(), Error> {
    let (name, now) = (node_cache.name_any(), Timestamp::now());
    // Refused, nodes go on with what they have.
    let settings = match decided {
        Ok(effective) => Some(effective.settings.clone()),
        Err(_) => known.live.settings().map(|text| parse(text).settings),
    };
    if let Some(settings) = &settings {
        measure_by(settings, &name, context);
    }
    let generation = settings.as_ref().map_or(0, |settings| settings.generation);
    let withdrawal =
        conditions::is_removed(node_cache).then(|| context.fleet.withdrawn(&name, generation, now));
    let observed = Observed {
        node_cache,
        refusal: decided.err(),
        pods: Pods::of(known.live.daemon_set.as_ref()),
        rollout: decided.map_or(Rollout::Rolling, |effective| effective.rollout),
        generation,
        summary: &context.fleet.summary(&name, now),
        withdrawal: withdrawal.as_ref(),
    };
    let conditions = conditions::conditions(&observed);
    let status = counts::status(&observed, conditions.clone());
    counts::publish(&context.metrics, &name, &status.nodes);
    write(node_cache, context, &status, &conditions).await
}

/// Changes how far things are, and nothing else of the status.
pub(super) async fn progress(
    node_cache: &NodeCache,
    context: &Context,
    progress: &Progress,
) -> Result<(), Error> {
    let conditions = conditions::with_progress(node_cache, progress);
    let old = node_cache.status.clone().unwrap_or_default();
    let status = NodeCacheStatus { conditions: conditions.clone().into_vec(), ..old };
    write(node_cache, context, &status, &conditions).await
}

fn measure_by(settings: &Settings, name: &str, context: &Context) {
    let (generation, interval) = (settings.generation, settings.report.interval);
    context.fleet.set_desired(name, Desired { generation, interval }, Timestamp::now());
    context.fleet.set_min_free(name, settings.cache.min_free);
}

async fn write(
    node_cache: &NodeCache,
    context: &Context,
    status: &NodeCacheStatus,
    conditions: &Conditions,
) -> Result<(), Error> {
    let old = node_cache.status.as_ref();
    let written = due::last_written(node_cache);
    if !is_due(old, status, written, Timestamp::now()) {
        return Ok(());
    }
    crate::status::write(context, &Api::all(context.client.clone()), node_cache, old, status).await?;
    for transition in conditions.transitions() {
        if let Some(kind) = event(&transition, old.is_none()) {
            let note = format!("{} is {}: {}", transition.type_, transition.status, transition.message);
            context.events.tell(node_cache, kind, &transition.reason, note).await;
        }
    }
    Ok(())
}

/// Whether a status is written now. What people wait for is not kept back; numbers are.
fn is_due(
    old: Option<&NodeCacheStatus>,
    new: &NodeCacheStatus,
    written: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let told = |status: &'_ NodeCacheStatus| (status.observed_generation, status.generation);
    let news = old.is_none_or(|old| {
        told(old) != told(new) || due::words(&old.conditions) != due::words(&new.conditions)
    });
    due::is_due(news, old != Some(new), written, now)
}

/// What a person would ask about. That a new object is not yet what it should be is no news.
fn event(transition: &Transition, is_new: bool) -> Option<Kind> {
    match (transition.type_.as_str(), transition.status.as_str()) {
        ("Degraded", "True") => Some(Kind::Warning),
        (_, "Unknown") => None,
        _ if is_new => None,
        ("Available" | "InUse", "False") => Some(Kind::Warning),
        ("Available" | "InUse", "True") | ("Degraded", "False") => Some(Kind::Normal),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
