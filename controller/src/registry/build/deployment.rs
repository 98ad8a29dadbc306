//! The Deployment: what belongs to its revision, and what may change without a new one. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
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
/// On the pods: what they mount and read only once.
const MOUNTED: &str = "registry-operator.dev/mounted";

/// How long the Deployment may make no step forward before it says so.
const PROGRESS_DEADLINE: i32 = 120;
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
        progress_deadline_seconds: Some(PROGRESS_DEADLINE),
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

/// The Deployment of a revision, the wanted one or the last good one. `mounted` is the hash of what its pods mount now:
/// a renewed certificate reaches the pods of either.
#[must_use]
pub(crate) fn running(
    names: &Names,
    owner: &OwnerReference,
    mut spec: DeploymentSpec,
    is: &Running,
    replicas: i32,
    mounted: &str,
) -> Child {
    spec.replicas = Some(spec.replicas.map_or(replicas, |most| replicas.min(most)));
    let pods = spec.template.metadata.get_or_insert_default();
    pods.annotations = Some(BTreeMap::from([(MOUNTED.to_owned(), mounted.to_owned())]));
    let mut deployment = Deployment {
        metadata: metadata(names, names.workload(), Some(owner)),
        spec: Some(spec),
        status: None,
    };
    let annotations = deployment.annotations_mut();
    annotations.insert(REVISION.to_owned(), is.revision.clone());
    annotations.insert(SINCE.to_owned(), is.since.to_string());
    Child::of(&deployment)
}

pub(super) fn named(names: &Names) -> Child {
    Child::of(&Deployment { metadata: metadata(names, names.workload(), None), ..Deployment::default() })
}
