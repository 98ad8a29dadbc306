//! The policy that a gateway holds pushes to, in the gateway's own format. Pure. What LimitRange and ResourceQuota say
//! comes in as `namespaces`.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::crd::{GatewayAction, GatewayLimits, RegistryGatewaySpec, SizeScope};
use crate::quantity::Quantity;

/// The longest manifest where nothing is written, in bytes.
const MANIFEST_BYTES: u64 = 4 << 20;
/// Signatures and referrers are tags as well, and nobody's images.
const EXCLUDED_TAGS: &str = "^sha256-[0-9a-f]{64}";

/// As the gateway reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Policy {
    generation: i64,
    action: &'static str,
    limits: Limits,
    overrides: Vec<Override>,
    namespaces: BTreeMap<String, NamespaceLimits>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_bytes: Option<u64>,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<u32>,
    manifest_bytes: u64,
    exclude_tags: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Override {
    repositories: Vec<String>,
    limits: Limits,
}

/// What a namespace's LimitRange and ResourceQuota allow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct NamespaceLimits {}

/// A limit that is no number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {written:?} is no number of bytes: write a quantity above zero, like 1Gi")]
pub(super) struct BadLimit {
    field: &'static str,
    written: String,
}

impl Policy {
    /// # Errors
    /// The first limit that cannot be read.
    pub(super) fn of(
        spec: &RegistryGatewaySpec,
        generation: i64,
        namespaces: BTreeMap<String, NamespaceLimits>,
    ) -> Result<Self, BadLimit> {
        let overrides = spec.overrides.iter().flatten().map(|one| {
            let limits = limits(Some(&one.limits))?;
            Ok(Override { repositories: one.repositories.clone(), limits })
        });
        Ok(Self {
            generation,
            action: match spec.action.unwrap_or_default() {
                GatewayAction::Enforce => "enforce",
                GatewayAction::Audit => "audit",
            },
            limits: limits(spec.limits.as_ref())?,
            overrides: overrides.collect::<Result<_, _>>()?,
            namespaces,
        })
    }

    /// The file's text.
    ///
    /// # Panics
    /// Never: texts and numbers are JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers are JSON") + "\n"
    }

    /// Of what it says; a new generation that says the same is the same.
    pub(super) fn hash(&self) -> String {
        let text = Self { generation: 0, ..self.clone() }.json();
        Sha256::digest(text)[..5].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn limits(written: Option<&GatewayLimits>) -> Result<Limits, BadLimit> {
    let image = written.and_then(|limits| limits.image.as_ref());
    let tags = written.and_then(|limits| limits.tags.as_ref());
    let manifest = written.and_then(|limits| limits.manifest_max_bytes.as_ref());
    Ok(Limits {
        image_bytes: image.map(|image| bytes("limits.image.max", &image.max)).transpose()?,
        scope: match image.and_then(|image| image.scope).unwrap_or_default() {
            SizeScope::PerManifest => "manifest",
            SizeScope::IndexSum => "index",
        },
        tags: tags.map(|tags| u32::try_from(tags.max_per_repository).unwrap_or(0)),
        manifest_bytes: manifest
            .map_or(Ok(MANIFEST_BYTES), |manifest| bytes("limits.manifestMaxBytes", manifest))?,
        exclude_tags: tags
            .and_then(|tags| tags.exclude_pattern.clone())
            .unwrap_or_else(|| EXCLUDED_TAGS.to_owned()),
    })
}

fn bytes(field: &'static str, written: &str) -> Result<u64, BadLimit> {
    let read = written.parse::<Quantity>().ok().and_then(Quantity::units).filter(|bytes| *bytes > 0);
    read.ok_or_else(|| BadLimit { field, written: written.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: &str, generation: i64) -> Result<Policy, BadLimit> {
        let spec: RegistryGatewaySpec =
            serde_saphyr::from_str(&format!("registryRef: {{name: main}}\n{spec}")).unwrap();
        Policy::of(&spec, generation, BTreeMap::new())
    }

    #[test]
    fn nothing_written_limits_only_the_manifest() {
        let json: serde_json::Value = serde_json::from_str(&policy("", 1).unwrap().json()).unwrap();
        let limits = serde_json::json!({
            "scope": "manifest", "manifest_bytes": 4_194_304, "exclude_tags": "^sha256-[0-9a-f]{64}",
        });
        let wanted = serde_json::json!({
            "generation": 1, "action": "enforce", "limits": limits, "overrides": [], "namespaces": {},
        });
        assert_eq!(json, wanted);
    }

    #[test]
    fn the_hash_is_of_what_it_says() {
        let one = policy("limits: {image: {max: 1Gi}}", 1).unwrap();
        assert_eq!(one.hash(), policy("limits: {image: {max: 1024Mi}}", 2).unwrap().hash());
        assert_ne!(one.hash(), policy("limits: {image: {max: 2Gi}}", 1).unwrap().hash());
    }

    #[test]
    fn a_limit_that_is_no_number_is_told() {
        for written in ["100m", "9Ei"] {
            let told = policy(&format!("limits: {{image: {{max: {written}}}}}"), 1);
            let told = told.map(|policy| policy.limits.image_bytes);
            // Less than one byte is none; nine exbibytes are still a number.
            assert_eq!(told.is_err(), written == "100m", "{written}");
        }
        assert!(policy("overrides: [{repositories: [a], limits: {manifestMaxBytes: big}}]", 1).is_err());
    }
}
