//! The children of a Registry, as they should be: values in, objects out. Pure; one file per kind of object. Must not
//! decide which of two revisions runs.

mod bucket;
mod budget;
mod certificate;
mod config;
mod deployment;
mod ingress;
mod pod;
mod service;
mod storage;

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::config_file::Notifications;
use super::material::Materials;
use super::names::Names;
use super::validate::Valid;
use crate::apply::{Child, labels};

pub(crate) use config::{kept_deployment, revision_of};
pub(crate) use deployment::{Mount, Rolled, Running, mounts, running, told_mounted};

/// What runs when the rollout is done.
#[derive(Debug)]
pub(crate) struct Built {
    /// Hash of configuration and pods together: what is rolled out, and rolled back to.
    pub revision: String,
    /// The Secret of the revision: the configuration, and the Deployment that goes with it.
    pub config: Child,
    /// Without what does not belong to the revision; see [`running`].
    pub deployment: DeploymentSpec,
    /// Without it nobody reaches the pods.
    pub service: Child,
    /// The Service of the metrics, Ingress, PodDisruptionBudget.
    pub children: Vec<Child>,
    /// What an earlier spec may have wanted.
    pub unwanted: Vec<Child>,
}

/// What must be there before there is anything to run: the claim of the store, the certificate.
#[must_use]
pub(crate) fn foundation(valid: &Valid) -> Vec<Child> {
    let certificate = certificate::build(valid);
    storage::build(valid).into_iter().chain(bucket::build(valid)).chain(certificate).collect()
}

/// `notifications`: whom the registry tells of pushes.
#[must_use]
pub(crate) fn build(valid: &Valid, materials: Materials, notifications: Option<Notifications>) -> Built {
    let file = config::file(valid, &materials, notifications);
    let ca = materials.trusted_ca.clone();
    // The Secret's name stands in the pods, and its hash is of them: so the hash is taken without the name.
    let revision = revision_of(&file, ca.as_deref(), &deployment::spec(valid, &materials, ""));
    let deployment = deployment::spec(valid, &materials, &revision);
    let config = config::secret(valid, &revision, &file, ca.as_deref(), &deployment);
    let (metrics, unwanted_metrics) = parted(service::metrics(valid));
    let (ingress, unwanted_ingress) = parted(ingress::build(valid));
    let (budget, unwanted_budget) = parted(budget::build(valid));
    let (_, unwanted_certificate) = parted(certificate::wanted(valid));
    Built {
        revision,
        config,
        deployment,
        service: service::build(valid),
        children: metrics.into_iter().chain(ingress).chain(budget).collect(),
        unwanted: [unwanted_metrics, unwanted_ingress, unwanted_budget, unwanted_certificate]
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// Everything but the store: what a Registry that is Removed leaves behind nothing of.
#[must_use]
pub(crate) fn workload(names: &Names) -> Vec<Child> {
    let children =
        [service::named(names), service::metrics_named(names), ingress::named(names), budget::named(names)];
    std::iter::once(deployment::named(names)).chain(children).collect()
}

pub(crate) use bucket::{named_access, named_claim};
pub(crate) use certificate::named as named_certificate;
pub(crate) use config::named as named_config;
pub(crate) use storage::named as named_volume;

/// A child that is wanted, or the name of one that is not.
enum Wanted {
    Yes(Box<Child>),
    No(Box<Child>),
}

impl Wanted {
    fn yes(child: Child) -> Self {
        Self::Yes(Box::new(child))
    }

    fn no(child: Child) -> Self {
        Self::No(Box::new(child))
    }
}

fn parted(wanted: Wanted) -> (Option<Child>, Option<Child>) {
    match wanted {
        Wanted::Yes(child) => (Some(*child), None),
        Wanted::No(child) => (None, Some(*child)),
    }
}

/// Name, labels and namespace of a child; with an owner it goes with the Registry.
fn metadata(names: &Names, name: String, owner: Option<&OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(names.namespace.clone()),
        labels: Some(labels("registry", &names.registry)),
        owner_references: owner.map(|owner| vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
