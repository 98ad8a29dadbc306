//! What a Cache's status says in each situation.

use super::*;
use crate::cache::validate::tests::{cache, known, yaml};
use crate::cache::validate::validate;
use crate::crd::NodeCache;
use crate::reports::Usage;

fn everything() -> Vec<NodeCache> {
    let text =
        "{apiVersion: registry-operator.dev/v1alpha1, kind: NodeCache, metadata: {name: default}, spec: {}}";
    vec![yaml(text)]
}

/// `Type=Status/Reason` of every condition.
fn said(spec: &str, told: &UpstreamSummary) -> Vec<String> {
    let cache = cache("c", 20, "{}", spec);
    let standing = validate(&cache, &known(vec![cache.clone()], everything()));
    let conditions = conditions(&cache, told, &standing).into_vec();
    conditions.iter().map(|one| format!("{}={}/{}", one.type_, one.status, one.reason)).collect()
}

const HUB: &str = "{upstreamRegistryURL: 'https://registry-1.docker.io'}";

fn told(nodes: usize, down: usize) -> UpstreamSummary {
    UpstreamSummary { nodes, down, ..UpstreamSummary::default() }
}

#[test]
fn all_is_well() {
    assert_eq!(
        said(HUB, &told(100, 3)),
        ["Ready=True/Served", "CredentialsValid=True/Anonymous", "UpstreamReachable=True/Reachable"]
    );
}

#[test]
fn an_upstream_is_down_when_half_of_the_nodes_say_so() {
    assert_eq!(said(HUB, &told(100, 49))[2], "UpstreamReachable=True/Reachable");
    assert_eq!(said(HUB, &told(100, 50))[2], "UpstreamReachable=False/Down");
    assert_eq!(said(HUB, &told(0, 0))[2], "UpstreamReachable=Unknown/NotServed");
}

#[test]
fn a_missing_secret_is_told_and_a_public_upstream_stays_ready() {
    let public = "{upstreamRegistryURL: 'https://quay.io', secretReferenceName: s}";
    assert_eq!(said(public, &told(1, 0))[..2], ["Ready=True/Served", "CredentialsValid=False/SecretMissing"]);
    let shared = "{upstreamRegistryURL: 'https://quay.io', secretReferenceName: s, access: Shared}";
    assert_eq!(
        said(shared, &told(1, 0))[..2],
        ["Ready=False/CredentialsInvalid", "CredentialsValid=False/SecretMissing"]
    );
}

#[test]
fn a_volume_is_told_as_unused() {
    let spec = "{upstreamRegistryURL: 'https://quay.io', volume: {type: emptyDir, size: 50Gi}}";
    assert_eq!(said(spec, &told(1, 0))[3], "VolumeIgnored=True/NodeStorage");
}

#[test]
fn numbers_are_rounded_and_kept_while_nodes_report_to_a_new_leader() {
    let mut cache = cache("c", 20, "{}", HUB);
    let usage = Usage { hit_ratio: Some(0.5), bytes_served: 12_345_678, ..Usage::default() };
    let told = UpstreamSummary { nodes: 7, down: 2, ratelimit_remaining: Some(80), usage, ..told(0, 0) };
    let made = status(&cache, &told, Conditions::of(&[], Some(2)));
    assert_eq!(made.registry.as_deref(), Some("docker.io"));
    assert_eq!((made.nodes_serving, made.nodes_upstream_up, made.nodes_upstream_down), (7, 5, 2));
    assert_eq!((made.hit_ratio.as_deref(), made.ratelimit_remaining), (Some("50%"), Some(80)));
    assert!(made.bytes_served < 12_345_678 && made.bytes_served > 12_200_000);
    cache.status = Some(made.clone());
    let warming = UpstreamSummary { warming: true, ..UpstreamSummary::default() };
    assert_eq!(status(&cache, &warming, Conditions::of(&[], Some(2))), made);
}

#[test]
fn what_was_reachable_stays_so_while_nodes_report_to_a_new_leader() {
    let mut cache = cache("c", 20, "{}", HUB);
    let standing = validate(&cache, &known(vec![cache.clone()], everything()));
    let before = conditions(&cache, &told(3, 0), &standing).into_vec();
    cache.status = Some(CacheStatus { conditions: before, ..CacheStatus::default() });
    let warming = UpstreamSummary { warming: true, ..UpstreamSummary::default() };
    let after = conditions(&cache, &warming, &standing);
    assert!(after.is(UPSTREAM_REACHABLE) && after.transitions().is_empty());
}
