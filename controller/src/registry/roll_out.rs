//! Does what was decided: keeps the revision's Secret, applies the children, goes back, and clears away what no revision
//! needs any more. A crash at any point leaves nothing that the next reconcile does not find by the status.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;

use super::build::{self, Built, Running};
use super::dereference::Found;
use super::material::Hashes;
use super::names::Names;
use super::trouble::{Part, Stop, Trouble};
use super::upgrade::{Decision, Failure, Stand, Which};
use super::validate::Valid;
use crate::apply::{self, Child, read};
use crate::context::Context;
use crate::crd::{Registry, RegistrySpec, RegistryStatus, StoreManagement};
use crate::error::Error;
use crate::status;

/// What was rolled out.
#[derive(Debug)]
pub(crate) struct Done {
    /// As it is after the apply.
    pub deployment: Option<Deployment>,
    pub stand: Stand,
    /// The revisions whose Secrets are kept.
    pub configs: Vec<String>,
}

/// Applies `children` in their order. What the API server refuses as wrong is a trouble, not a fault.
pub(super) async fn apply_all(context: &Context, children: &[Child]) -> Result<(), Stop> {
    apply::apply_all(context, children).await.map(|_| ()).map_err(refused)
}

pub(super) async fn carry_out(
    context: &Context,
    registry: &Registry,
    valid: &Valid,
    built: &Built,
    decision: &Decision,
    hashes: &Hashes,
) -> Result<Done, Stop> {
    let rejected = matches!(decision.stand, Stand::RollingBack(_)).then_some(hashes.spec.as_str());
    let configs = note(context, registry, &built.revision, rejected).await?;
    let mut stand = decision.stand.clone();
    let mut children = vec![built.config.clone()];
    let names = &valid.names;
    let spec = match decision.run {
        Which::Wanted => Some(built.deployment.clone()),
        Which::LastGood => kept(context, names, &decision.running).await?,
    };
    match spec {
        Some(spec) => {
            let running = &decision.running;
            children.push(build::running(
                names,
                &valid.owner,
                spec,
                running,
                valid.replicas,
                &hashes.mounted,
            ));
        }
        None => stand = Stand::Failed(Failure::NothingKept),
    }
    children.extend(built.children.iter().cloned());
    apply_all(context, &children).await?;
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), &names.namespace);
    let deployment = read(&deployments, &names.workload()).await?;
    if stand == Stand::Finished {
        for child in &built.unwanted {
            remove(context, child).await?;
        }
    }
    let last_good = match stand {
        Stand::Finished => Some(&built.revision),
        _ => registry
            .status
            .as_ref()
            .and_then(|status| status.last_good.as_ref())
            .map(|good| &good.config_hash),
    };
    let live = deployment.as_ref().and_then(Running::of).map(|running| running.revision);
    let needed = |config: &String| {
        *config == built.revision || Some(config) == last_good || Some(config) == live.as_ref()
    };
    let (configs, old): (Vec<_>, Vec<_>) = configs.into_iter().partition(needed);
    for config in &old {
        apply::remove(context, &build::named_config(names, config)).await?;
    }
    Ok(Done { deployment, stand, configs })
}

/// Writes the revision into the status before its Secret is made, so that no Secret is ever forgotten; and what is given
/// up before it is taken back, so that it is not tried again.
async fn note(
    context: &Context,
    registry: &Registry,
    revision: &str,
    rejected: Option<&str>,
) -> Result<Vec<String>, Error> {
    let old = registry.status.clone().unwrap_or_default();
    let mut configs = old.configs.clone();
    if !configs.iter().any(|config| config == revision) {
        configs.push(revision.to_owned());
    }
    let rejected = rejected.map(ToOwned::to_owned).or_else(|| old.rejected.clone());
    let new = RegistryStatus { configs: configs.clone(), rejected, ..old };
    let api = Api::namespaced(context.client.clone(), &Names::of(registry).namespace);
    status::write(context, &api, registry, registry.status.as_ref(), &new).await?;
    Ok(configs)
}

/// The Deployment of a revision that ran before.
async fn kept(context: &Context, names: &Names, running: &Running) -> Result<Option<DeploymentSpec>, Error> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &names.namespace);
    let secret = read(&secrets, &names.config(&running.revision)).await?;
    Ok(secret.as_ref().and_then(build::kept_deployment))
}

/// Takes everything away; the store stays, unless its author said that it goes too.
pub(super) async fn take_away(
    context: &Context,
    registry: &Registry,
    spec: &RegistrySpec,
    found: &Found,
) -> Result<(), Error> {
    let storage = spec.storage.as_ref();
    let goes_too = storage.and_then(|storage| storage.management_state) == Some(StoreManagement::Managed);
    // A claim that its author named is not ours to delete.
    let made_claim = storage.and_then(|storage| storage.pvc.as_ref()).is_some_and(|pvc| pvc.claim.is_none());
    let cosi = found.bucket.version;
    let names = Names::of(registry);
    let mut children = build::workload(&names);
    let configs = registry.status.iter().flat_map(|status| &status.configs);
    children.extend(configs.map(|config| build::named_config(&names, config)));
    children.extend(found.certificate.is_installed.then(|| build::named_certificate(&names)));
    children.extend(cosi.map(|version| build::named_access(&names, version)));
    if goes_too {
        children.extend(cosi.map(|version| build::named_claim(&names, version)));
        children.extend(made_claim.then(|| build::named_volume(&names)));
    }
    for child in &children {
        remove(context, child).await?;
    }
    Ok(())
}

/// A child of a group that nobody serves is not there.
async fn remove(context: &Context, child: &Child) -> Result<(), Error> {
    match apply::remove(context, child).await {
        Ok(_) => Ok(()),
        Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the API server found wrong with a child was written by somebody; everything else passes.
fn refused(error: Error) -> Stop {
    match error {
        Error::Api { what, source: kube::Error::Api(status) } if [400, 403, 422].contains(&status.code) => {
            Trouble::invalid(Part::Spec, "ApplyRefused", format!("{what}: {}", status.message)).into()
        }
        error => error.into(),
    }
}
