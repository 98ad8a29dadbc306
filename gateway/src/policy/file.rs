//! The policy file: JSON text in, a checked policy or every mistake that can be told out. Must not open the
//! file.

use std::collections::BTreeMap;

use larder_wire::digest::hex;
use larder_wire::name::Repository;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::pattern::Pattern;
use super::{Action, NamespaceQuota, Override, Part, Policy};
use crate::limits::{Excluded, Scope};

/// The longest manifest where nothing is said.
pub(super) const MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// Manifests are the one thing that is held in memory, so no policy may ask for more.
const MOST_MANIFEST_BYTES: u64 = 64 * 1024 * 1024;
/// Tags that do not count where nothing is said: referrers, signatures.
const REFERRERS: &str = "^sha256-[0-9a-f]{64}";
/// Compiled patterns are no larger, in bytes.
const PATTERN_BYTES: usize = 256 * 1024;

/// Why a policy file is none.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy file cannot be read")]
    Read(#[source] std::io::Error),
    /// With line and column.
    #[error("the policy file is not what was expected")]
    Shape(#[source] serde_json::Error),
    #[error("{}", .0.join("; "))]
    Mistakes(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    action: Action,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    overrides: Vec<RawOverride>,
    #[serde(default)]
    namespaces: BTreeMap<String, NamespaceQuota>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    image_bytes: Option<u64>,
    scope: Option<Scope>,
    tags: Option<u64>,
    manifest_bytes: Option<u64>,
    exclude_tags: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOverride {
    repositories: Vec<String>,
    #[serde(default)]
    limits: RawLimits,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError::Shape`] when it is not JSON of this shape, else all mistakes at once.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = serde_json::from_str(text).map_err(PolicyError::Shape)?;
        let mut mistakes = Vec::new();
        let defaults = part(file.limits, "limits", "the default limits", &mut mistakes);
        let entries = file.overrides.into_iter().enumerate();
        let overrides =
            entries.map(|(number, entry)| override_of(&format!("overrides[{number}]"), entry, &mut mistakes));
        let overrides = overrides.collect();
        for name in file.namespaces.keys() {
            if name.contains('/') || name.parse::<Repository>().is_err() {
                mistakes.push(format!("namespaces: {name:?} is not the first part of a repository's name"));
            }
        }
        if !mistakes.is_empty() {
            return Err(PolicyError::Mistakes(mistakes));
        }
        Ok(Self {
            generation: file.generation,
            action: file.action,
            hash: hex(&Sha256::digest(text.as_bytes())),
            defaults,
            overrides,
            namespaces: file.namespaces,
        })
    }
}

/// Tags that do not count where nothing is said.
pub(super) fn referrers() -> Excluded {
    Excluded::new(Regex::new(REFERRERS).expect("a constant, compiled by every test of this file"))
}

fn override_of(place: &str, entry: RawOverride, mistakes: &mut Vec<String>) -> Override {
    if entry.repositories.is_empty() {
        mistakes.push(format!("{place}.repositories is empty: name at least one pattern like team-a/*"));
    }
    let mut repositories = Vec::new();
    for text in &entry.repositories {
        match Pattern::parse(text) {
            Some(pattern) => repositories.push(pattern),
            None => mistakes.push(format!(
                "{place}.repositories: {text:?} is not a repository's name in which * stands for one part"
            )),
        }
    }
    let whose = format!("the limits for {}", entry.repositories.join(", "));
    Override { repositories, limits: part(entry.limits, &format!("{place}.limits"), &whose, mistakes) }
}

fn part(raw: RawLimits, place: &str, whose: &str, mistakes: &mut Vec<String>) -> Part {
    if raw.manifest_bytes.is_some_and(|bytes| !(1..=MOST_MANIFEST_BYTES).contains(&bytes)) {
        mistakes.push(format!("{place}.manifest_bytes must be from 1 to {MOST_MANIFEST_BYTES}"));
    }
    let excluded = raw.exclude_tags.and_then(|pattern| {
        let compiled = RegexBuilder::new(&pattern).size_limit(PATTERN_BYTES).unicode(false).build();
        if compiled.is_err() {
            mistakes.push(format!("{place}.exclude_tags: {pattern:?} is not a regular expression"));
        }
        compiled.ok().map(Excluded::new)
    });
    Part {
        image_bytes: raw.image_bytes,
        scope: raw.scope,
        tags: raw.tags,
        manifest_bytes: raw.manifest_bytes,
        excluded,
        whose: whose.into(),
    }
}
