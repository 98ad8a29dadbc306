//! What becomes of a Cache, given the others and the NodeCaches.

use serde::de::DeserializeOwned;

use super::*;
use crate::reports::UpstreamSummary;

pub(in crate::cache) fn yaml<K: DeserializeOwned>(text: &str) -> K {
    serde_saphyr::from_str(text).unwrap()
}

pub(in crate::cache) fn cache(name: &str, day: u8, labels: &str, spec: &str) -> Cache {
    yaml(&format!(
        "{{apiVersion: registry-operator.dev/v1alpha1, kind: Cache, metadata: {{name: {name}, uid: {name}, \
         labels: {labels}, generation: 2, creationTimestamp: '2026-11-{day:02}T09:00:00Z'}}, spec: {spec}}}"
    ))
}

fn node_cache(name: &str, selector: &str) -> NodeCache {
    yaml(&format!(
        "{{apiVersion: registry-operator.dev/v1alpha1, kind: NodeCache, metadata: {{name: {name}, uid: {name}}}, \
         spec: {{cacheSelector: {selector}}}}}"
    ))
}

pub(in crate::cache) fn known(caches: Vec<Cache>, node_caches: Vec<NodeCache>) -> Dereferenced {
    let upstream = UpstreamSummary::default();
    Dereferenced { caches, node_caches, secret: None, authorities: None, upstream }
}

const HUB: &str = "{upstreamRegistryURL: 'https://registry-1.docker.io'}";

/// One word and one name of what becomes of the first Cache.
fn standing(known: &Dereferenced) -> String {
    match validate(&known.caches[0], known) {
        Standing::Served { by, .. } => format!("served by {}", by.join(" ")),
        Standing::NotSelected { .. } => "not selected".to_owned(),
        Standing::Duplicate { elder } => format!("duplicate of {elder}"),
        Standing::LeftOut(why) => why.reason().to_owned(),
    }
}

#[test]
fn the_younger_of_two_is_a_duplicate() {
    let caches = vec![cache("b", 21, "{}", HUB), cache("a", 20, "{}", HUB)];
    assert_eq!(standing(&known(caches.clone(), vec![node_cache("all", "{}")])), "duplicate of a");
    assert_eq!(
        standing(&known(caches.clone(), Vec::new())),
        "duplicate of a",
        "whoever comes to select them"
    );
    let elder = caches.into_iter().rev().collect();
    assert_eq!(standing(&known(elder, vec![node_cache("all", "{}")])), "served by all");
}

#[test]
fn pools_of_nodes_may_have_caches_of_their_own_for_one_registry() {
    let caches = vec![cache("gpu", 21, "{pool: gpu}", HUB), cache("cpu", 20, "{pool: cpu}", HUB)];
    let pools = vec![
        node_cache("gpu", "{matchLabels: {pool: gpu}}"),
        node_cache("cpu", "{matchLabels: {pool: cpu}}"),
    ];
    assert_eq!(standing(&known(caches.clone(), pools.clone())), "served by gpu");
    let both = [pools, vec![node_cache("all", "{}")]].concat();
    assert_eq!(standing(&known(caches, both)), "duplicate of cpu");
}

#[test]
fn a_cache_that_nobody_selects_is_told_so() {
    let known = known(vec![cache("a", 20, "{}", HUB)], vec![node_cache("gpu", "{matchLabels: {pool: gpu}}")]);
    assert_eq!(standing(&known), "not selected");
}

#[test]
fn what_is_wrong_with_itself_comes_first() {
    let wrong = cache("b", 21, "{}", "{upstreamRegistryURL: 'docker.io', upstream: docker.io}");
    let all = known(vec![wrong, cache("a", 20, "{}", HUB)], vec![node_cache("all", "{}")]);
    assert_eq!(standing(&all), "InvalidSpec");
    let shared = "{upstreamRegistryURL: 'https://quay.io', access: Shared, secretReferenceName: s}";
    let shared = known(vec![cache("q", 20, "{}", shared)], vec![node_cache("all", "{}")]);
    assert_eq!(standing(&shared), "CredentialsInvalid");
}
