//! The children of a RegistryGateway, as they should be: values in, objects out. Pure; one file per kind of object.

mod certificate;
mod config;
mod deployment;
mod pod;
mod service;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::validate::Valid;
use crate::apply::{Child, labels};

pub(super) struct Built {
    /// In the order in which they are applied: what the pods need comes before them.
    pub(super) children: Vec<Child>,
    /// What an earlier spec may have wanted.
    pub(super) unwanted: Vec<Child>,
}

#[must_use]
pub(super) fn build(valid: &Valid) -> Built {
    let mut built = Built { children: vec![config::build(valid)], unwanted: Vec::new() };
    match certificate::build(valid) {
        Some(certificate) => built.children.push(certificate),
        None => built.unwanted.push(certificate::named(valid)),
    }
    built.children.push(service::build(valid));
    // A single pod has no budget: it would keep its node from ever being drained.
    let budget = budget(valid);
    if valid.replicas >= 2 { &mut built.children } else { &mut built.unwanted }.push(budget);
    built.children.push(deployment::build(valid));
    built
}

fn budget(valid: &Valid) -> Child {
    Child::of(&PodDisruptionBudget {
        metadata: metadata(valid, valid.workload()),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(1)),
            selector: Some(pod::selector(&valid.gateway)),
            // A pod that never became ready is in nobody's way.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}

pub(super) use pod::selector_text;

fn metadata(valid: &Valid, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(valid.namespace.clone()),
        labels: Some(labels("gateway", &valid.gateway)),
        owner_references: Some(vec![valid.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
