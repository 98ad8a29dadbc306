//! The status step of a RegistryGateway: what people and tools are told. Must not change anything else.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::Api;

use super::build::selector_text;
use super::validate::{Refusal, Valid};
use crate::condition::{AVAILABLE, Conditions, DEGRADED, PROGRESSING, Transition, Truth};
use crate::context::Context;
use crate::crd::{RegistryGateway, RegistryGatewayStatus};
use crate::error::Error;
use crate::events::Kind;
use crate::status::write;

const POLICY_ACCEPTED: &str = "PolicyAccepted";
const AS_EXPECTED: &str = "AsExpected";

/// Pods come and go; only what lasts is a degradation.
const INERTIA: SignedDuration = SignedDuration::from_mins(5);

/// One condition's truth, reason and message.
type Word = (Truth, &'static str, String);

/// Writes the status where it differs, and tells what flipped.
pub(super) async fn report(
    context: &Context,
    gateway: &RegistryGateway,
    deployment: Option<&Deployment>,
    decided: Result<&Valid, &Refusal>,
) -> Result<(), Error> {
    let (status, transitions) = status_of(gateway, deployment, decided, Timestamp::now());
    let api = Api::namespaced(context.client.clone(), &gateway.namespace().unwrap_or_default());
    write(context, &api, gateway, gateway.status.as_ref(), &status).await?;
    for transition in transitions {
        if let Some((kind, reason)) = news(gateway, &transition) {
            context.events.tell(gateway, kind, &reason, transition.message).await;
        }
    }
    Ok(())
}

/// Good news is told when there was bad news before; not there yet is no news of a new object.
fn news(gateway: &RegistryGateway, flipped: &Transition) -> Option<(Kind, String)> {
    let was_there = before(gateway).iter().any(|old| old.type_ == flipped.type_);
    match (flipped.type_.as_str(), flipped.status.as_str()) {
        (DEGRADED, "True") | (POLICY_ACCEPTED, "False") => Some((Kind::Warning, flipped.reason.clone())),
        (AVAILABLE, "False") if was_there => Some((Kind::Warning, flipped.reason.clone())),
        (DEGRADED, "False") if was_there => Some((Kind::Normal, "Recovered".to_owned())),
        (AVAILABLE | POLICY_ACCEPTED, "True") if was_there => Some((Kind::Normal, flipped.type_.clone())),
        _ => None,
    }
}

/// Pure: the status, and what flipped in it.
fn status_of(
    gateway: &RegistryGateway,
    deployment: Option<&Deployment>,
    decided: Result<&Valid, &Refusal>,
    now: Timestamp,
) -> (RegistryGatewayStatus, Vec<Transition>) {
    let counts = deployment.and_then(|deployment| deployment.status.clone()).unwrap_or_default();
    let wanted = deployment.and_then(|deployment| deployment.spec.as_ref()?.replicas).unwrap_or(1);
    let (replicas, ready) = match (&decided, &gateway.status) {
        // What may not be read is as it was, as far as anybody knows.
        (Err(Refusal::NotAllowed(_)), Some(old)) => (old.replicas, old.ready_replicas),
        _ => (counts.replicas.unwrap_or_default(), counts.ready_replicas.unwrap_or_default()),
    };
    let mut conditions = Conditions::of(before(gateway), gateway.metadata.generation);
    for (type_, (truth, reason, message)) in [
        (AVAILABLE, available(deployment, wanted, &counts, decided.err())),
        (PROGRESSING, progressing(deployment, wanted, &counts, decided.err())),
        (DEGRADED, degraded(gateway, wanted, &counts, decided.err(), now)),
        (POLICY_ACCEPTED, policy(decided)),
    ] {
        conditions = conditions.set(type_, truth, reason, message);
    }
    let old_hash = gateway.status.as_ref().and_then(|status| status.policy_hash.clone());
    let transitions = conditions.transitions();
    let status = RegistryGatewayStatus {
        observed_generation: gateway.metadata.generation,
        replicas,
        ready_replicas: ready,
        selector: Some(selector_text(&gateway.name_any())),
        // What the pods have: a refused policy does not reach them.
        policy_hash: decided.map_or(old_hash, |valid| Some(valid.policy.hash())),
        conditions: conditions.into_vec(),
    };
    (status, transitions)
}

fn before(gateway: &RegistryGateway) -> &[Condition] {
    gateway.status.as_ref().map_or(&[], |status| &status.conditions)
}

fn available(
    deployment: Option<&Deployment>,
    wanted: i32,
    counts: &DeploymentStatus,
    refusal: Option<&Refusal>,
) -> Word {
    if let Some(refusal @ Refusal::NotAllowed(_)) = refusal {
        return (Truth::Unknown, refusal.reason(), refusal.to_string());
    }
    let is = counts.available_replicas.unwrap_or_default();
    let words = format!("{is}/{wanted} replicas");
    match (deployment, wanted) {
        (None, _) => (Truth::False, "NotDeployed", "there is no Deployment yet".to_owned()),
        (_, 0) => (Truth::False, "ScaledToZero", "spec.replicas is 0".to_owned()),
        _ if is >= wanted => (Truth::True, "Ready", words),
        _ if is > 0 => (Truth::True, "MinimumAvailability", words),
        _ => (Truth::False, "NoReplicas", words),
    }
}

fn progressing(
    deployment: Option<&Deployment>,
    wanted: i32,
    counts: &DeploymentStatus,
    refusal: Option<&Refusal>,
) -> Word {
    if let Some(refusal) = refusal {
        let truth = Truth::from(refusal.is_waiting());
        return (truth, refusal.reason(), refusal.to_string());
    }
    let seen = deployment.is_some_and(|it| counts.observed_generation >= it.metadata.generation);
    let updated = counts.updated_replicas.unwrap_or_default();
    let is_done = seen && updated >= wanted && counts.replicas.unwrap_or_default() == updated;
    if is_done && counts.available_replicas.unwrap_or_default() >= wanted {
        return (Truth::False, AS_EXPECTED, String::new());
    }
    (Truth::True, "RollingOut", format!("{updated}/{wanted} replicas are up to date"))
}

fn degraded(
    gateway: &RegistryGateway,
    wanted: i32,
    counts: &DeploymentStatus,
    refusal: Option<&Refusal>,
    now: Timestamp,
) -> Word {
    if let Some(refusal) = refusal.filter(|refusal| !refusal.is_waiting()) {
        return (Truth::True, refusal.reason(), refusal.to_string());
    }
    let said = counts.conditions.as_deref().unwrap_or_default();
    let stuck = said.iter().find(|it| it.type_ == "Progressing" && it.status == "False");
    if let Some(stuck) = stuck {
        return (Truth::True, "RolloutStuck", stuck.message.clone().unwrap_or_default());
    }
    let is_away = |old: &&Condition| {
        old.type_ == AVAILABLE
            && old.status == "False"
            && now.duration_since(old.last_transition_time.0) > INERTIA
    };
    let none = counts.available_replicas.unwrap_or_default() == 0 && wanted > 0;
    if none && before(gateway).iter().any(|old| is_away(&old)) {
        let words = format!("no replica was available for {} minutes", INERTIA.as_mins());
        return (Truth::True, "Unavailable", words);
    }
    (Truth::False, AS_EXPECTED, String::new())
}

fn policy(decided: Result<&Valid, &Refusal>) -> Word {
    match decided {
        Ok(valid) => (Truth::True, "Accepted", format!("policy {}", valid.policy.hash())),
        Err(Refusal::Policy(bad)) => {
            (Truth::False, "InvalidPolicy", format!("{bad}; what runs keeps its policy"))
        }
        Err(other) => (Truth::Unknown, other.reason(), "it is not given to the gateway yet".to_owned()),
    }
}

#[cfg(test)]
mod tests;
