//! The ConfigMap with the gateway's settings and its policy. Pure. It holds no secret: those are mounted by themselves.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use sha2::{Digest, Sha256};

use super::metadata;
use crate::apply::Child;
use crate::registry_gateway::settings::{POLICY_FILE, SETTINGS_FILE, Wiring, render};
use crate::registry_gateway::validate::Valid;

pub(super) fn build(valid: &Valid) -> Child {
    Child::of(&ConfigMap {
        metadata: metadata(valid, valid.workload()),
        data: Some(BTreeMap::from([
            (SETTINGS_FILE.to_owned(), settings(valid)),
            (POLICY_FILE.to_owned(), valid.policy.json()),
        ])),
        ..ConfigMap::default()
    })
}

fn settings(valid: &Valid) -> String {
    let wiring = Wiring {
        upstream: &valid.upstream,
        trusts_upstream_ca: valid.upstream_ca.is_some(),
        serves_tls: valid.tls.is_some(),
    };
    render(&wiring, valid.spec.tag_index.as_ref())
}

/// Of the settings alone: they are read at start, while the policy is read again whenever it changes.
pub(super) fn settings_hash(valid: &Valid) -> String {
    Sha256::digest(settings(valid))[..5].iter().map(|byte| format!("{byte:02x}")).collect()
}
