//! The Deployment: old pods stay until new ones are ready. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{config, metadata, pod};
use crate::apply::{Child, labels};
use crate::registry_gateway::validate::Valid;

/// On the pods: which settings they started with. The policy is no part of it: it is read anew where it is mounted.
const SETTINGS: &str = "registry-operator.dev/settings";
/// How long the Deployment may make no step forward before it says so.
const PROGRESS_DEADLINE: i32 = 120;
const MIN_READY: i32 = 10;

pub(super) fn build(valid: &Valid) -> Child {
    Child::of(&Deployment {
        metadata: metadata(valid, valid.workload()),
        spec: Some(DeploymentSpec {
            replicas: Some(valid.replicas),
            selector: pod::selector(&valid.gateway),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            min_ready_seconds: Some(MIN_READY),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE),
            revision_history_limit: Some(3),
            paused: None,
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels("gateway", &valid.gateway)),
                    annotations: Some(BTreeMap::from([(SETTINGS.to_owned(), config::settings_hash(valid))])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod::build(valid)),
            },
        }),
        status: None,
    })
}
