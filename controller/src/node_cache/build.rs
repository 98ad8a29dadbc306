//! The build step of a NodeCache: what was decided -> the objects that run it. Pure. Must not look anything up.

mod config;
mod daemon_set;
mod pod;
mod volumes;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::validate::Effective;
use crate::apply::{self, Child};

pub(super) use volumes::{CREDENTIALS_DIR, SETTINGS_DIR, TOKEN_DIR};

/// What the children are, in their labels.
pub(super) const COMPONENT: &str = "agent";

/// The key of the agents' settings in their ConfigMap.
pub(super) const SETTINGS_KEY: &str = "larder.toml";

/// Labels of nodes that have no disk and no containerd of their own.
pub(super) const VIRTUAL: [(&str, &str); 2] =
    [("type", "virtual-kubelet"), ("eks.amazonaws.com/compute-type", "fargate")];

/// The children, in the order in which they are needed: what pods mount before the pods.
pub(super) fn build(effective: &Effective) -> Vec<Child> {
    vec![
        Child::of(&service_account(effective)),
        Child::of(&config::credentials(effective)),
        Child::of(&config::config_map(effective)),
        Child::of(&daemon_set::daemon_set(effective)),
    ]
}

/// The settings alone.
pub(super) fn settings(effective: &Effective) -> Child {
    Child::of(&config::config_map(effective))
}

fn service_account(effective: &Effective) -> ServiceAccount {
    ServiceAccount {
        automount_service_account_token: Some(false),
        metadata: metadata(effective, effective.child_name()),
        ..ServiceAccount::default()
    }
}

fn metadata(effective: &Effective, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(effective.namespace.clone()),
        labels: Some(apply::labels(COMPONENT, &effective.name)),
        owner_references: Some(vec![effective.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
