//! What people and tools are told of a Registry: its status, and events on what they would ask about. Must not change
//! anything else.

mod conditions;
mod tell;

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;

use super::dereference::{Found, Live};
use super::names::Names;
use super::roll_out::Done;
use super::trouble::{Kind, NOT_ALLOWED, Trouble};
use super::upgrade::{Entrances, Rollout, Stand, rollout};
use super::validate::{Certificate, Store, Valid};
use crate::apply::labels;
use crate::context::Context;
use crate::crd::{LastGood, Registry, RegistryStatus, StorageStatus};
use crate::error::Error;
use crate::status::write;

/// Secrets, claims and what others make of them are not watched: the story looks again.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_SOON: Duration = Duration::from_secs(10);

/// How a reconcile ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Not touched, as its author wants.
    Unmanaged,
    /// Taken away.
    Removed,
    /// In the way of what is wanted; nothing that runs was touched.
    Trouble(Trouble),
    Ran(Box<Ran>),
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub valid: Valid,
    pub found: Found,
    pub done: Done,
    pub spec_hash: String,
    pub revision: String,
}

/// Writes the status where it differs, tells what happened, and says when to look again.
pub(super) async fn report(
    context: &Context,
    registry: &Registry,
    live: &Live,
    outcome: &Outcome,
) -> Result<Action, Error> {
    let (status, events) = status_of(registry, live, outcome, Timestamp::now());
    let api = Api::namespaced(context.client.clone(), &Names::of(registry).namespace);
    write(context, &api, registry, registry.status.as_ref(), &status).await?;
    for event in events {
        context.events.tell(registry, event.kind, &event.reason, event.note).await;
    }
    Ok(Action::requeue(again(outcome)))
}

fn again(outcome: &Outcome) -> Duration {
    match outcome {
        Outcome::Trouble(trouble) if trouble.kind == Kind::Waiting => AGAIN_SOON,
        _ => AGAIN,
    }
}

/// Pure: the status, and the events that go with it.
fn status_of(
    registry: &Registry,
    live: &Live,
    outcome: &Outcome,
    now: Timestamp,
) -> (RegistryStatus, Vec<tell::Event>) {
    let old = registry.status.clone().unwrap_or_default();
    let deployment = match outcome {
        Outcome::Ran(ran) => ran.done.deployment.as_ref(),
        Outcome::Removed => None,
        Outcome::Unmanaged | Outcome::Trouble(_) => live.deployment.as_ref(),
    };
    let counts = deployment.and_then(|deployment| deployment.status.clone()).unwrap_or_default();
    let conditions = conditions::of(&conditions::Seen { registry, deployment, live, outcome, now });
    let mut status = RegistryStatus {
        observed_generation: registry.metadata.generation,
        replicas: counts.replicas.unwrap_or_default(),
        ready_replicas: counts.ready_replicas.unwrap_or_default(),
        selector: Some(selector(registry)),
        ..old.clone()
    };
    match outcome {
        // What may not be read is as it was, as far as anybody knows.
        Outcome::Trouble(trouble) if trouble.reason == NOT_ALLOWED => {
            (status.replicas, status.ready_replicas) = (old.replicas, old.ready_replicas);
        }
        Outcome::Unmanaged | Outcome::Trouble(_) => {}
        Outcome::Removed => {
            status = RegistryStatus {
                observed_generation: status.observed_generation,
                selector: status.selector,
                // Whoever comes back finds its store again, and that store is of this version.
                last_good: old.last_good.clone(),
                ..RegistryStatus::default()
            };
        }
        Outcome::Ran(ran) => ran_into(&mut status, ran, now),
    }
    let events = tell::events(&old, &status, &conditions, outcome);
    status.conditions = conditions.into_vec();
    (status, events)
}

fn ran_into(status: &mut RegistryStatus, ran: &Ran, now: Timestamp) {
    let (version, image) = (ran.valid.version.to_string(), ran.valid.image.clone());
    match ran.done.stand {
        Stand::Finished => {
            // Told once: when this revision was first seen healthy.
            if status.last_good.as_ref().is_none_or(|good| good.config_hash != ran.revision) {
                status.last_good = Some(LastGood {
                    version: version.clone(),
                    image: image.clone(),
                    config_hash: ran.revision.clone(),
                    observed_at: Some(Time(now)),
                });
            }
            status.rejected = None;
        }
        Stand::RollingBack(_) => status.rejected = Some(ran.spec_hash.clone()),
        Stand::RolledBack => {}
        Stand::Rolling | Stand::Failed(_) => status.rejected = None,
    }
    // What runs: while it changes, what ran before.
    let good = status.last_good.as_ref().map(|good| (good.version.clone(), good.image.clone()));
    let (version, image) = good.unwrap_or((version, image));
    status.version = Some(version);
    status.image = Some(image);
    status.effective_spec_hash = Some(ran.spec_hash.clone());
    status.configs.clone_from(&ran.done.configs);
    if ran.done.entrances == Entrances::Wanted {
        status.url = Some(url(&ran.valid));
    }
    status.storage = Some(storage(&ran.valid.store));
}

fn selector(registry: &Registry) -> String {
    let mut labels = labels("registry", &registry.name_any());
    labels.remove(crate::apply::MANAGED_BY.0);
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn url(valid: &Valid) -> String {
    let scheme = if valid.certificate == Certificate::None { "http" } else { "https" };
    match &valid.spec.ingress {
        Some(ingress) => format!("{scheme}://{}", ingress.host),
        None => {
            let port = valid.spec.service.as_ref().and_then(|service| service.port).unwrap_or(5000);
            format!("{scheme}://{}:{port}", valid.names.host())
        }
    }
}

fn storage(store: &Store) -> StorageStatus {
    let (claim, bucket) = match store {
        Store::EmptyDir { .. } | Store::Bucket { .. } => (None, None),
        Store::Claim { name, .. } => (Some(name.clone()), None),
        Store::S3(s3) => (None, Some(s3.bucket.clone())),
    };
    StorageStatus { backend: store.backend().to_owned(), claim, bucket }
}

/// Whether every pod is the newest and ready.
fn is_settled(deployment: Option<&Deployment>) -> bool {
    deployment.is_some_and(|deployment| rollout(deployment) == Rollout::Complete)
}

#[cfg(test)]
mod tests;
