//! The Deployment: what belongs to its revision, and what may change without a new one. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{PodTemplateSpec, SecretVolumeSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{metadata, pod};
use crate::apply::{Child, labels};
use crate::crd::UpgradeStrategy;
use crate::registry::material::Materials;
use crate::registry::names::Names;
use crate::registry::validate::Valid;

/// On the Deployment: which revision it is, and since when.
const REVISION: &str = "registry-operator.dev/revision";
const SINCE: &str = "registry-operator.dev/since";
/// On the pods: the hash of what they mount and read only once.
const MOUNTED: &str = "registry-operator.dev/mounted";

const MIN_READY: i32 = 10;

/// Which revision a Deployment runs, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub revision: String,
    pub since: Timestamp,
}

impl Running {
    /// As [`running`] wrote it; none when somebody else made the Deployment.
    #[must_use]
    pub(crate) fn of(live: &Deployment) -> Option<Self> {
        let since = live.annotations().get(SINCE)?.parse().ok()?;
        Some(Self { revision: live.annotations().get(REVISION)?.clone(), since })
    }
}

/// Everything that belongs to the revision, and no hashes of what is mounted.
pub(super) fn spec(valid: &Valid, materials: &Materials, revision: &str) -> DeploymentSpec {
    DeploymentSpec {
        // The most there may be of pods that cannot share their store; how many there are is no part of a revision.
        replicas: (!valid.store.is_shared()).then_some(1),
        selector: pod::selector(&valid.names),
        strategy: Some(strategy(valid.strategy)),
        min_ready_seconds: Some(MIN_READY),
        // Nor is how long it may take.
        progress_deadline_seconds: None,
        revision_history_limit: Some(3),
        paused: None,
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels("registry", &valid.names.registry)),
                ..ObjectMeta::default()
            }),
            spec: Some(pod::build(valid, materials, revision)),
        },
    }
}

fn strategy(wanted: UpgradeStrategy) -> DeploymentStrategy {
    match wanted {
        UpgradeStrategy::Recreate => {
            DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }
        }
        // The old pods stay until the new ones are ready.
        UpgradeStrategy::RollingUpdate => DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(1)),
                max_unavailable: Some(IntOrString::Int(0)),
            }),
        },
    }
}

/// The hash of what the pods of a Deployment mounted when it was applied.
#[must_use]
pub(crate) fn told_mounted(live: &Deployment) -> Option<&str> {
    let pods = live.spec.as_ref()?.template.metadata.as_ref()?;
    pods.annotations.as_ref()?.get(MOUNTED).map(String::as_str)
}

/// What is not of the revision.
#[derive(Debug)]
pub(crate) struct Rolled<'a> {
    pub running: &'a Running,
    pub replicas: i32,
    /// How long the Deployment may make no step forward before it says so.
    pub health_timeout: Duration,
    /// The hash of what the pods mount now: a renewed certificate reaches the pods of either revision.
    pub mounted: &'a str,
}

/// The Deployment of a revision, the wanted one or the last good one.
#[must_use]
pub(crate) fn running(
    names: &Names,
    owner: &OwnerReference,
    mut spec: DeploymentSpec,
    is: &Rolled<'_>,
) -> Child {
    spec.replicas = Some(spec.replicas.map_or(is.replicas, |most| is.replicas.min(most)));
    spec.progress_deadline_seconds = Some(progress_deadline(is.health_timeout));
    let pods = spec.template.metadata.get_or_insert_default();
    pods.annotations = Some(BTreeMap::from([(MOUNTED.to_owned(), is.mounted.to_owned())]));
    let mut deployment = Deployment {
        metadata: metadata(names, names.workload(), Some(owner)),
        spec: Some(spec),
        status: None,
    };
    let annotations = deployment.annotations_mut();
    annotations.insert(REVISION.to_owned(), is.running.revision.clone());
    annotations.insert(SINCE.to_owned(), is.running.since.to_string());
    Child::of(&deployment)
}

/// The API server wants it above the seconds after which a ready pod counts.
fn progress_deadline(health_timeout: Duration) -> i32 {
    i32::try_from(health_timeout.as_secs()).unwrap_or(i32::MAX).max(MIN_READY + 1)
}

/// A key of a Secret that pods mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub secret: String,
    pub key: String,
}

/// What the pods of a revision mount and read only once: certificates. Their users' file is read anew by themselves.
#[must_use]
pub(crate) fn mounts(spec: &DeploymentSpec) -> Vec<Mount> {
    let volumes = spec.template.spec.iter().flat_map(|pods| pods.volumes.iter().flatten());
    let read_once = volumes.filter(|volume| pod::READ_ONCE.contains(&volume.name.as_str()));
    let sources = read_once.filter_map(|volume| volume.secret.as_ref());
    let of = |source: &SecretVolumeSource| {
        let secret = source.secret_name.clone().unwrap_or_default();
        let items = source.items.clone().unwrap_or_default();
        items.into_iter().map(move |item| Mount { secret: secret.clone(), key: item.key })
    };
    sources.flat_map(of).collect()
}

pub(super) fn named(names: &Names) -> Child {
    Child::of(&Deployment { metadata: metadata(names, names.workload(), None), ..Deployment::default() })
}
