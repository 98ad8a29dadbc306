//! The policy: which limits hold for which repository. A policy that exists is whole and checked. Must not
//! decide about a push: `limits` does, with what this hands it.

mod file;
mod pattern;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_wire::name::Repository;
use serde::Deserialize;

use crate::limits::{self, Bound, Excluded, Limits, Quota, Scope};
pub use file::PolicyError;
use pattern::Pattern;
pub use watch::PolicyWatch;

/// What becomes of a push that breaks a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    Enforce,
    /// It is admitted; the log and the metrics say what would have been refused.
    Audit,
}

/// Limits by repository and by namespace.
#[derive(Debug)]
pub struct Policy {
    pub generation: u64,
    pub action: Action,
    /// sha256 of the file's text, hex: two replicas with the same hash decide alike.
    pub hash: String,
    defaults: Part,
    /// In the order of the file: the first that names a repository holds for it.
    overrides: Vec<Override>,
    namespaces: BTreeMap<String, NamespaceQuota>,
}

#[derive(Debug)]
struct Override {
    repositories: Vec<Pattern>,
    limits: Part,
}

/// Limits as one entry of the file sets them.
#[derive(Clone, Debug)]
struct Part {
    image_bytes: Option<u64>,
    scope: Option<Scope>,
    tags: Option<u64>,
    manifest_bytes: Option<u64>,
    excluded: Option<Excluded>,
    whose: Arc<str>,
}

/// What LimitRange and ResourceQuota of one namespace say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NamespaceQuota {
    image_bytes: Option<u64>,
    images_per_repo: Option<u64>,
    tags_per_repo: Option<u64>,
    repos: Option<u64>,
    images: Option<u64>,
    tags: Option<u64>,
}

impl Policy {
    /// What holds for a repository. Where several limits are set, the smallest wins.
    #[must_use]
    pub fn limits(&self, repository: &Repository) -> Limits {
        let first = self.overrides.iter().find(|entry| entry.names(repository)).map(|entry| &entry.limits);
        let namespace = limits::namespace(repository);
        let quota = self.namespaces.get(namespace).cloned().unwrap_or_default();
        let whose: Arc<str> = format!("the quota of namespace {namespace}").into();
        let of_namespace = |max: Option<u64>| max.map(|max| Bound { max, whose: Arc::clone(&whose) });
        let of_policy = |read: fn(&Part) -> Option<u64>| {
            let part = first.filter(|part| read(part).is_some()).unwrap_or(&self.defaults);
            read(part).map(|max| Bound { max, whose: Arc::clone(&part.whose) })
        };
        Limits {
            image_bytes: smaller(of_policy(|part| part.image_bytes), of_namespace(quota.image_bytes)),
            scope: first.and_then(|part| part.scope).or(self.defaults.scope).unwrap_or_default(),
            manifest_bytes: of_policy(|part| part.manifest_bytes)
                .map_or(file::MANIFEST_BYTES, |bound| bound.max),
            excluded: first
                .and_then(|part| part.excluded.clone())
                .or_else(|| self.defaults.excluded.clone())
                .unwrap_or_else(file::referrers),
            quota: Quota {
                tags: smaller(of_policy(|part| part.tags), of_namespace(quota.tags_per_repo)),
                images: of_namespace(quota.images_per_repo),
                namespace_repositories: of_namespace(quota.repos),
                namespace_images: of_namespace(quota.images),
                namespace_tags: of_namespace(quota.tags),
            },
        }
    }

    /// Whether a limit holds for all repositories of a namespace together, so that all of them have to be
    /// known.
    #[must_use]
    pub fn counts_whole(&self, namespace: &str) -> bool {
        let quota = self.namespaces.get(namespace);
        quota.is_some_and(|quota| quota.repos.is_some() || quota.images.is_some() || quota.tags.is_some())
    }

    /// The namespaces that have a quota, for whose use somebody asks.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }
}

impl Override {
    fn names(&self, repository: &Repository) -> bool {
        self.repositories.iter().any(|pattern| pattern.matches(repository.as_str()))
    }
}

fn smaller(one: Option<Bound>, other: Option<Bound>) -> Option<Bound> {
    [one, other].into_iter().flatten().min_by_key(|bound| bound.max)
}

#[cfg(test)]
mod tests;
