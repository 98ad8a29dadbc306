//! Does what was decided: keeps the revision's Secret, applies the children, goes back, and clears away what no revision
//! needs any more. A crash at any point leaves nothing that the next reconcile does not find by the status.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use kube::ResourceExt;
use kube::api::Api;

use super::build::{self, Built, Rolled, Running};
use super::dereference::{Found, Live};
use super::foreign;
use super::material::mounted_hash;
use super::names::Names;
use super::trouble::Stop;
use super::upgrade::{Decision, Entrances, Stand, Which};
use super::validate::Valid;
use crate::apply::{self, Child, read};
use crate::context::Context;
use crate::crd::{Registry, RegistrySpec, RegistryStatus, StorageBackend, StoreManagement};
use crate::error::Error;
use crate::status;

/// What is carried out.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub valid: &'a Valid,
    pub built: &'a Built,
    pub decision: &'a Decision,
    pub entrances: Entrances,
    /// The Deployment of the last good revision, where its Secret was read.
    pub kept: Option<&'a DeploymentSpec>,
    pub spec_hash: &'a str,
}

/// What was rolled out.
#[derive(Debug)]
pub(crate) struct Done {
    /// As it is after the apply.
    pub deployment: Option<Deployment>,
    pub stand: Stand,
    pub entrances: Entrances,
    /// Whether the wanted revision runs from now on.
    pub begins: bool,
    /// The revisions whose Secrets are kept.
    pub configs: Vec<String>,
}

/// Applies `children` in their order. What the API server refuses as wrong is a trouble, not a fault.
pub(super) async fn apply_all(context: &Context, children: &[Child]) -> Result<(), Stop> {
    apply::apply_all(context, children).await.map(|_| ()).map_err(Stop::refused)
}

/// `registry` has the status that was written when it ends, also when it ends early.
pub(super) async fn carry_out(
    context: &Context,
    registry: &mut Registry,
    plan: &Plan<'_>,
    live: &Live,
    found: &Found,
) -> Result<Done, Stop> {
    let Plan { valid, built, decision, .. } = plan;
    let names = &valid.names;
    note(context, registry, plan).await?;
    apply_all(context, std::slice::from_ref(&built.config)).await?;
    // Before the pods: what is refused here leaves the ones that run as they are.
    enter(context, plan).await?;
    apply_all(context, &[deployment(plan, live, found)]).await?;
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), &names.namespace);
    let deployment = read(&deployments, &names.workload()).await?;
    if decision.stand == Stand::Finished {
        for child in &built.unwanted {
            remove(context, child).await?;
        }
    }
    let now = deployment.as_ref().and_then(Running::of).map(|running| running.revision);
    let configs = clear(context, registry, plan, now.as_deref()).await?;
    let before = live.deployment.as_ref().and_then(Running::of).map(|running| running.revision);
    let begins = now != before && now.as_ref() == Some(&built.revision);
    Ok(Done { deployment, stand: decision.stand.clone(), entrances: plan.entrances, begins, configs })
}

/// Service, Ingress and budget, now or later; later ones are asked for first.
async fn enter(context: &Context, plan: &Plan<'_>) -> Result<(), Stop> {
    let Built { service, children, .. } = plan.built;
    let all = std::iter::once(service).chain(children);
    match (plan.entrances, plan.decision.run) {
        (Entrances::Wanted, _) => {
            for child in all {
                apply::apply(context, child).await.map_err(Stop::refused)?;
            }
            return Ok(());
        }
        (Entrances::Stay, Which::Wanted) => {
            for child in all {
                apply::rehearse(context, child).await.map_err(Stop::refused)?;
            }
        }
        (Entrances::Stay, Which::LastGood) => {}
    }
    apply::apply_missing(context, service).await.map_err(Stop::refused)
}

fn deployment(plan: &Plan<'_>, live: &Live, found: &Found) -> Child {
    let Plan { valid, built, decision, .. } = plan;
    let spec = match (decision.run, plan.kept) {
        (Which::LastGood, Some(kept)) => kept,
        // Only what is kept is decided for, so this is the wanted one.
        _ => &built.deployment,
    };
    // What went away under running pods is no reason to start them anew: they could not.
    let told = live.deployment.as_ref().and_then(build::told_mounted).unwrap_or_default();
    let mounted = mounted_hash(&build::mounts(spec), found).unwrap_or_else(|| told.to_owned());
    let is = Rolled {
        running: &decision.running,
        replicas: valid.replicas,
        health_timeout: valid.health_timeout,
        mounted: &mounted,
    };
    build::running(&valid.names, &valid.owner, spec.clone(), &is)
}

/// Deletes the Secrets of revisions that nobody goes back to, and names the others.
async fn clear(
    context: &Context,
    registry: &Registry,
    plan: &Plan<'_>,
    live: Option<&str>,
) -> Result<Vec<String>, Error> {
    let wanted = plan.built.revision.as_str();
    let status = registry.status.clone().unwrap_or_default();
    let last_good = match plan.decision.stand {
        Stand::Finished => Some(wanted),
        _ => status.last_good.as_ref().map(|good| good.config_hash.as_str()),
    };
    let needed = |config: &String| [Some(wanted), last_good, live].contains(&Some(config.as_str()));
    let (configs, old): (Vec<_>, Vec<_>) = status.configs.iter().cloned().partition(needed);
    for config in &old {
        apply::remove(context, &build::named_config(&plan.valid.names, config)).await?;
    }
    Ok(configs)
}

/// Writes the revision into the status before its Secret is made, so that no Secret is ever forgotten; and what is given
/// up before it is taken back, so that it is not tried again.
async fn note(context: &Context, registry: &mut Registry, plan: &Plan<'_>) -> Result<(), Error> {
    let mut new = registry.status.clone().unwrap_or_default();
    if !new.configs.contains(&plan.built.revision) {
        new.configs.push(plan.built.revision.clone());
    }
    if matches!(plan.decision.stand, Stand::RollingBack(_)) {
        new.rejected = Some(plan.spec_hash.to_owned());
    }
    write_status(context, registry, new).await
}

/// Writes it, and keeps it: what is told later is told on top of it.
async fn write_status(context: &Context, registry: &mut Registry, new: RegistryStatus) -> Result<(), Error> {
    let api = Api::namespaced(context.client.clone(), &Names::of(registry).namespace);
    status::write(context, &api, registry, registry.status.as_ref(), &new).await?;
    registry.status = Some(new);
    Ok(())
}

/// Takes the Registry out of the owners of a store that is not to go with it, whatever made it so: another backend, or a
/// word that was taken back. Otherwise the store would be gone when the Registry is deleted.
pub(super) async fn let_go(context: &Context, registry: &Registry, spec: &RegistrySpec) -> Result<(), Error> {
    if goes_too(spec) {
        return Ok(());
    }
    let names = Names::of(registry);
    let uid = registry.uid().unwrap_or_default();
    apply::disown(context, &build::named_volume(&names), &uid).await?;
    match foreign::cosi(&context.client).await? {
        Some(version) => apply::disown(context, &build::named_claim(&names, version), &uid).await,
        None => Ok(()),
    }
}

/// Only where its author said so.
fn goes_too(spec: &RegistrySpec) -> bool {
    let written = spec.storage.as_ref().and_then(|storage| storage.management_state);
    written == Some(StoreManagement::Managed)
}

/// Takes everything away; the store stays, unless its author said that it goes too.
pub(super) async fn take_away(
    context: &Context,
    registry: &Registry,
    spec: &RegistrySpec,
) -> Result<(), Error> {
    let storage = spec.storage.clone().unwrap_or_default();
    let cosi = foreign::cosi(&context.client).await?;
    let has_cert_manager = foreign::has_cert_manager(&context.client).await?;
    let names = Names::of(registry);
    let mut children = build::workload(&names);
    let configs = registry.status.iter().flat_map(|status| &status.configs);
    children.extend(configs.map(|config| build::named_config(&names, config)));
    children.extend(has_cert_manager.then(|| build::named_certificate(&names)));
    children.extend(cosi.map(|version| build::named_access(&names, version)));
    if goes_too(spec) {
        match storage.backend() {
            StorageBackend::Bucket { .. } => {
                children.extend(cosi.map(|version| build::named_claim(&names, version)));
            }
            // A claim that its author named is not ours to delete.
            StorageBackend::Pvc(volume) if volume.claim.is_none() => {
                children.push(build::named_volume(&names));
            }
            StorageBackend::Pvc(_) | StorageBackend::S3(_) | StorageBackend::EmptyDir(_) => {}
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::cases::spec;

    #[test]
    fn a_store_goes_with_its_registry_only_when_that_is_written() {
        assert!(goes_too(&spec("storage: {managementState: Managed}")));
        for silent in ["{}", "storage: {pvc: {size: 1Gi}}", "storage: {managementState: Unmanaged}"] {
            assert!(!goes_too(&spec(silent)), "{silent}");
        }
    }
}
