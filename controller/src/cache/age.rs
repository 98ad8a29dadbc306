//! Who came first, and whom a selector means: what decides between two objects that want the same. Pure.

use std::cmp::Ordering;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

use crate::crd::{Cache, NodeCache};

/// The elder first: by the time of creation, then by name.
pub(crate) fn by_age<K: ResourceExt>(one: &K, other: &K) -> Ordering {
    let age = |object: &K| (object.creation_timestamp(), object.name_any());
    age(one).cmp(&age(other))
}

/// Whether a NodeCache's nodes keep this Cache. A selector that cannot be read selects nothing.
pub(crate) fn selects(node_cache: &NodeCache, cache: &Cache) -> bool {
    selector(node_cache).is_ok_and(|selector| selector.matches(cache.labels()))
}

/// The Caches that a NodeCache wants; absent and empty mean all.
///
/// # Errors
/// What is wrong with it, for a person.
pub(crate) fn selector(node_cache: &NodeCache) -> Result<Selector, String> {
    let written: LabelSelector = node_cache.spec.cache_selector.clone().unwrap_or_default();
    Selector::try_from(written).map_err(|error| error.to_string())
}
