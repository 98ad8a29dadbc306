//! The status step of a Cache: what became of it, and what the nodes tell of its upstream. Must not touch its spec.

use k8s_openapi::jiff::Timestamp;
use kube::api::Api;

use super::credential::NoCredential;
use super::dereference::Dereferenced;
use super::resolve::{LeftOut, Resolved};
use super::validate::Standing;
use super::{due, figures, upstream};
use crate::condition::{Conditions, READY, Transition, Truth};
use crate::context::Context;
use crate::crd::{Access, Cache, CacheStatus};
use crate::error::Error;
use crate::events::Kind;
use crate::reports::UpstreamSummary;

const CREDENTIALS_VALID: &str = "CredentialsValid";
const UPSTREAM_REACHABLE: &str = "UpstreamReachable";
const VOLUME_IGNORED: &str = "VolumeIgnored";

/// A condition's value, reason and message.
type Said = (Truth, &'static str, String);

pub(super) async fn tell(
    cache: &Cache,
    context: &Context,
    known: &Dereferenced,
    standing: &Standing,
) -> Result<(), Error> {
    let conditions = conditions(cache, &known.upstream, standing);
    let (old, new) = (cache.status.as_ref(), status(cache, &known.upstream, conditions.clone()));
    let news = old.is_none_or(|old| {
        old.observed_generation != new.observed_generation
            || due::words(&old.conditions) != due::words(&new.conditions)
    });
    if !due::is_due(news, old != Some(&new), due::last_written(cache), Timestamp::now()) {
        return Ok(());
    }
    crate::status::write(context, &Api::all(context.client.clone()), cache, old, &new).await?;
    for transition in conditions.transitions() {
        if let Some(kind) = event(&transition, old.is_none()) {
            context.events.tell(cache, kind, &transition.reason, transition.message).await;
        }
    }
    Ok(())
}

/// While not every node has had the time to report again, the old numbers stand.
fn status(cache: &Cache, told: &UpstreamSummary, conditions: Conditions) -> CacheStatus {
    let known = CacheStatus {
        observed_generation: cache.metadata.generation,
        registry: upstream::registry(&cache.spec).ok().map(|registry| registry.to_string()),
        conditions: conditions.into_vec(),
        ..cache.status.clone().unwrap_or_default()
    };
    if told.warming {
        return known;
    }
    CacheStatus {
        nodes_serving: figures::number(told.nodes),
        nodes_upstream_up: figures::number(told.nodes.saturating_sub(told.down)),
        nodes_upstream_down: figures::number(told.down),
        hit_ratio: told.usage.hit_ratio.map(figures::percent),
        bytes_served: figures::rounded(told.usage.bytes_served),
        bytes_fetched: figures::rounded(told.usage.bytes_fetched),
        ratelimit_remaining: told.ratelimit_remaining.map(figures::rounded),
        ..known
    }
}

fn conditions(cache: &Cache, told: &UpstreamSummary, standing: &Standing) -> Conditions {
    let before = cache.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let said = [
        (READY, ready(cache, standing)),
        (CREDENTIALS_VALID, credentials_valid(cache, standing)),
        (UPSTREAM_REACHABLE, upstream_reachable(told)),
    ];
    let all = Conditions::of(before, cache.metadata.generation);
    let all = said.into_iter().fold(all, |all, (type_, (truth, reason, message))| {
        let old = before.iter().find(|old| old.type_ == type_);
        match old.filter(|_| type_ == UPSTREAM_REACHABLE && told.warming) {
            Some(old) if old.status == "True" => {
                all.set(type_, Truth::True, &old.reason, old.message.clone())
            }
            Some(old) if old.status == "False" => {
                all.set(type_, Truth::False, &old.reason, old.message.clone())
            }
            _ => all.set(type_, truth, reason, message),
        }
    });
    if cache.spec.volume.is_none() {
        return all;
    }
    let message = "spec.volume is not used on nodes: their store is the NodeCache's spec.storage";
    all.set(VOLUME_IGNORED, Truth::True, "NodeStorage", message)
}

fn ready(cache: &Cache, standing: &Standing) -> Said {
    match standing {
        Standing::Served { by, .. } => {
            (Truth::True, "Served", format!("given to nodes by NodeCache {}", by.join(", ")))
        }
        Standing::NotSelected { .. } => {
            (Truth::False, "NotSelected", "no NodeCache's spec.cacheSelector means it".to_owned())
        }
        Standing::Duplicate { elder } => {
            let registry = upstream::registry(&cache.spec).map(|name| name.to_string()).unwrap_or_default();
            let message = format!("Cache {elder} is for {registry} too, and older; this one is left out");
            (Truth::False, "DuplicateUpstream", message)
        }
        Standing::LeftOut(why) => (Truth::False, why.reason(), why.to_string()),
    }
}

fn credentials_valid(cache: &Cache, standing: &Standing) -> Said {
    let Some(secret) = &cache.spec.secret_reference_name else {
        return (Truth::True, "Anonymous", "no Secret is named".to_owned());
    };
    let wrong = |why: NoCredential| {
        let reason = if why == NoCredential::Missing { "SecretMissing" } else { "SecretInvalid" };
        let then = match cache.spec.access() {
            Access::Public => "what anybody may read is fetched without it",
            Access::Shared => "nothing of this upstream is kept",
        };
        (Truth::False, reason, format!("Secret {secret}: {why}; {then}"))
    };
    let of = |resolved: &Resolved| match resolved.without {
        Some(why) => wrong(why),
        None => (Truth::True, "Valid", format!("Secret {secret} has a username and a password")),
    };
    match standing {
        Standing::Served { resolved, .. } | Standing::NotSelected { resolved } => of(resolved),
        Standing::LeftOut(LeftOut::Credential { why, .. }) => wrong(*why),
        Standing::LeftOut(_) | Standing::Duplicate { .. } => {
            (Truth::Unknown, "NotLookedAt", "the Cache is left out for another reason".to_owned())
        }
    }
}

/// Down when half of the nodes that serve it say so.
fn upstream_reachable(told: &UpstreamSummary) -> Said {
    let at = format!("{} of {} nodes cannot reach it", told.down, told.nodes);
    match told {
        _ if told.warming => {
            (Truth::Unknown, "Warming", "nodes are given two minutes to report to a new leader".to_owned())
        }
        UpstreamSummary { nodes: 0, .. } => {
            (Truth::Unknown, "NotServed", "no node has told of it".to_owned())
        }
        UpstreamSummary { down, nodes, .. } if down.saturating_mul(2) >= *nodes => (Truth::False, "Down", at),
        _ => (Truth::True, "Reachable", at),
    }
}

/// What a person would ask about.
fn event(transition: &Transition, is_new: bool) -> Option<Kind> {
    match (transition.type_.as_str(), transition.status.as_str()) {
        // A first install makes Caches before the NodeCache that selects them.
        (READY, "False") if is_new && transition.reason == "NotSelected" => None,
        (READY | CREDENTIALS_VALID | UPSTREAM_REACHABLE, "False") => Some(Kind::Warning),
        (READY | CREDENTIALS_VALID | UPSTREAM_REACHABLE, "True") if !is_new => Some(Kind::Normal),
        (VOLUME_IGNORED, "True") => Some(Kind::Normal),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
