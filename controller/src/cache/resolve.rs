//! A Cache with what it names: the settings that agents are given for it, or why it is left out. Pure; both the Cache's
//! own status and every NodeCache that selects it follow this one rule.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use larder_wire::name::Registry;
use larder_wire::settings::UpstreamSettings;

use super::age::by_age;
use super::credential::{Credential, NoCredential};
use super::upstream::{self, Wrong};
use crate::crd::{Access, Cache};

/// The key that a ConfigMap of authorities must have.
const AUTHORITIES: &str = "ca.crt";

/// All Caches' authorities share one ConfigMap, which takes 1 MiB.
const LONGEST: usize = 256 * 1024;

/// An upstream that nodes can be given.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) settings: UpstreamSettings,
    pub(crate) credential: Option<Credential>,
    /// Why a Public upstream goes on without its credential.
    pub(crate) without: Option<NoCredential>,
    /// PEM
    pub(crate) authorities: Option<String>,
}

/// Why a Cache's upstream is not given to nodes; pulls go direct.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeftOut {
    #[error("{0}")]
    Spec(Wrong),
    #[error(
        "Secret {secret}: {why}; nodes that have its last good one go on with that while the Cache stays as it is, on \
         others pulls go direct"
    )]
    Credential { secret: String, why: NoCredential },
    #[error("ConfigMap {name} has no key ca.crt with PEM certificates of at most 256 KiB; pulls go direct")]
    Authorities { name: String },
}

impl LeftOut {
    /// A word for a condition.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Spec(_) => "InvalidSpec",
            Self::Credential { .. } => "CredentialsInvalid",
            Self::Authorities { .. } => "AuthoritiesMissing",
        }
    }
}

/// `secret` and `authorities` are the objects that the Cache names, where they are there.
pub(crate) fn resolve(
    cache: &Cache,
    secret: Option<&Secret>,
    authorities: Option<&ConfigMap>,
) -> Result<Resolved, LeftOut> {
    let settings = upstream::settings(&cache.spec).map_err(LeftOut::Spec)?;
    let authorities = authorities_named(cache).map(|name| read_authorities(name, authorities)).transpose()?;
    let read = cache.spec.secret_reference_name.as_deref().map(|name| (name, Credential::read(secret)));
    let (credential, without) = match read {
        None => (None, None),
        Some((_, Ok(credential))) => (Some(credential), None),
        Some((secret, Err(why))) if cache.spec.access() == Access::Shared => {
            return Err(LeftOut::Credential { secret: secret.to_owned(), why });
        }
        // What anybody may read can be read without it.
        Some((_, Err(why))) => (None, Some(why)),
    };
    Ok(Resolved { settings, credential, without, authorities })
}

/// The ConfigMap of authorities that a Cache names.
pub(crate) fn authorities_named(cache: &Cache) -> Option<&str> {
    Some(&cache.spec.tls.as_ref()?.ca_config_map_ref.as_ref()?.name)
}

fn read_authorities(name: &str, config_map: Option<&ConfigMap>) -> Result<String, LeftOut> {
    let pem = config_map.and_then(|config_map| config_map.data.as_ref()?.get(AUTHORITIES));
    pem.filter(|pem| pem.contains("-----BEGIN CERTIFICATE-----") && pem.len() <= LONGEST)
        .cloned()
        .ok_or_else(|| LeftOut::Authorities { name: name.to_owned() })
}

/// The elder Cache for the same registry, among those that would be kept by the same nodes.
pub(crate) fn elder<'a>(cache: &Cache, among: impl IntoIterator<Item = &'a Cache>) -> Option<&'a Cache> {
    let registry: Registry = upstream::registry(&cache.spec).ok()?;
    among
        .into_iter()
        .filter(|other| other.name_any() != cache.name_any())
        .filter(|other| upstream::registry(&other.spec).is_ok_and(|other| other == registry))
        .filter(|other| by_age(*other, cache).is_lt())
        .min_by(|one, other| by_age(*one, *other))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    fn cache(name: &str, created: &str, spec: &str) -> Cache {
        let text = format!(
            "{{apiVersion: registry-operator.dev/v1alpha1, kind: Cache, \
             metadata: {{name: {name}, creationTimestamp: '{created}'}}, spec: {spec}}}"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    const DAY: &str = "2026-11-20T09:00:00Z";

    #[test]
    fn a_public_upstream_goes_on_without_its_credential_and_a_shared_one_does_not() {
        let with = |access: &str| {
            cache(
                "quay",
                DAY,
                &format!(
                    "{{upstreamRegistryURL: 'https://quay.io', access: {access}, secretReferenceName: s}}"
                ),
            )
        };
        let public = resolve(&with("Public"), None, None).unwrap();
        assert_eq!((public.credential, public.without), (None, Some(NoCredential::Missing)));
        let left_out = resolve(&with("Shared"), None, None).unwrap_err();
        assert_eq!(left_out.reason(), "CredentialsInvalid");
        let pairs = [("username", "u"), ("password", "p")];
        let data = pairs.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let secret = Secret { data: Some(BTreeMap::from(data)), ..Secret::default() };
        assert!(resolve(&with("Shared"), Some(&secret), None).unwrap().credential.is_some());
    }

    #[test]
    fn authorities_must_be_there_when_they_are_named() {
        let spec = "{upstreamRegistryURL: 'https://a.b', tls: {caConfigMapRef: {name: corp}}}";
        let named = cache("corp", DAY, spec);
        assert_eq!(resolve(&named, None, None).unwrap_err().reason(), "AuthoritiesMissing");
        let pem = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        let data = Some(BTreeMap::from([(AUTHORITIES.to_owned(), pem.to_owned())]));
        let corp = ConfigMap { data, ..ConfigMap::default() };
        assert_eq!(resolve(&named, None, Some(&corp)).unwrap().authorities.as_deref(), Some(pem));
    }

    #[test]
    fn the_first_made_is_the_elder_and_a_name_decides_between_twins() {
        let spec = "{upstreamRegistryURL: 'https://registry-1.docker.io'}";
        let mirror = "{upstreamRegistryURL: 'https://mirror.example', upstream: docker.io}";
        let all = [
            cache("b", DAY, spec),
            cache("a", DAY, mirror),
            cache("c", "2026-11-19T09:00:00Z", "{upstreamRegistryURL: 'https://quay.io'}"),
            cache("d", "2026-11-21T09:00:00Z", spec),
        ];
        let of = |at: usize| elder(&all[at], &all).map(ResourceExt::name_any);
        assert_eq!(of(0), Some("a".to_owned()));
        assert_eq!(of(1), None);
        assert_eq!(of(2), None);
        assert_eq!(of(3), Some("a".to_owned()));
    }
}
