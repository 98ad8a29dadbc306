//! Which events go with a new status: conditions that flipped, revisions that came and went, warnings of a new spec. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::conditions::{CERTIFICATE_READY, ROLLED_BACK, STORAGE_READY, UPGRADEABLE};
use super::{Outcome, Ran};
use crate::condition::{AVAILABLE, Conditions, DEGRADED, Transition};
use crate::crd::RegistryStatus;
use crate::events::Kind;
use crate::registry::upgrade::Stand;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) reason: String,
    pub(super) note: String,
}

/// `new` may still lack its conditions.
pub(super) fn events(
    old: &RegistryStatus,
    new: &RegistryStatus,
    conditions: &Conditions,
    outcome: &Outcome,
) -> Vec<Event> {
    let mut events: Vec<Event> =
        conditions.transitions().iter().filter_map(|flipped| flip(old, flipped)).collect();
    if let Outcome::Ran(ran) = outcome {
        events.extend(rollout(old, new, ran, conditions));
    }
    events
}

/// Good news is told when there was bad news before.
fn flip(old: &RegistryStatus, flipped: &Transition) -> Option<Event> {
    let was_there = old.conditions.iter().any(|before| before.type_ == flipped.type_);
    let is_bad = match (flipped.type_.as_str(), flipped.status.as_str()) {
        (AVAILABLE | STORAGE_READY | CERTIFICATE_READY | UPGRADEABLE, "False") | (DEGRADED, "True") => true,
        (AVAILABLE | STORAGE_READY | CERTIFICATE_READY | UPGRADEABLE, "True") | (DEGRADED, "False") => false,
        _ => return None,
    };
    if is_bad {
        // Not there yet is no news of a new object, and a rollback is told by itself.
        let is_beginning = flipped.type_ == AVAILABLE && !was_there;
        return (!is_beginning && flipped.reason != ROLLED_BACK).then(|| Event {
            kind: Kind::Warning,
            reason: flipped.reason.clone(),
            note: flipped.message.clone(),
        });
    }
    let reason = if flipped.type_ == DEGRADED { "Recovered" } else { flipped.type_.as_str() };
    was_there.then(|| Event { kind: Kind::Normal, reason: reason.to_owned(), note: flipped.message.clone() })
}

fn rollout(old: &RegistryStatus, new: &RegistryStatus, ran: &Ran, conditions: &Conditions) -> Vec<Event> {
    let mut events = Vec::new();
    let image = &ran.valid.image;
    if ran.done.begins {
        let note = format!("{image}, revision {}", ran.revision);
        events.push(Event { kind: Kind::Normal, reason: "RollingOut".to_owned(), note });
    }
    if old.effective_spec_hash != new.effective_spec_hash {
        let warnings = ran.valid.warnings.iter();
        events.extend(warnings.map(|(reason, note)| Event {
            kind: Kind::Warning,
            reason: (*reason).to_owned(),
            note: note.clone(),
        }));
    }
    let good = |status: &RegistryStatus| status.last_good.as_ref().map(|good| good.config_hash.clone());
    if good(old) != good(new) {
        let note = format!("{image} is healthy");
        events.push(Event { kind: Kind::Normal, reason: "RolledOut".to_owned(), note });
    }
    let is_rolled_back = |it: &&Condition| it.type_ == DEGRADED && it.reason == ROLLED_BACK;
    // Whoever was killed while it went back has told nobody.
    let is_news = matches!(ran.done.stand, Stand::RollingBack(_))
        || !old.conditions.iter().any(|it| is_rolled_back(&it));
    if let Some(now) = conditions.clone().into_vec().iter().find(is_rolled_back).filter(|_| is_news) {
        let note = now.message.clone();
        events.push(Event { kind: Kind::Warning, reason: ROLLED_BACK.to_owned(), note });
    }
    events
}
