//! Whether the effective spec can be run, and as what: a value that cannot be wrong, or the trouble in words that a
//! person can act on. Pure. What one object shows by itself is refused by the API server before.

mod store;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use larder_wire::units::parse_duration;

use super::dereference::Found;
use super::effective::Effective;
use super::names::Names;
use super::trouble::{Part, Trouble};
use super::version::{self, Major, Unsupported, Version};
use crate::config::Config;
use crate::crd::{
    IssuerReference, MetadataCacheType, Registry, RegistrySpec, StoreManagement, TlsMode, UpgradeStrategy,
};
use crate::quantity::Quantity;

pub(crate) use store::Store;

const HEALTH_TIMEOUT: Duration = Duration::from_secs(300);

/// What is run. Fields that need no judgement are read from `spec`.
#[derive(Debug)]
pub(crate) struct Valid {
    pub names: Names,
    /// For every child that goes with the Registry.
    pub owner: OwnerReference,
    pub spec: RegistrySpec,
    pub image: String,
    pub pull: Pull,
    pub version: Version,
    pub replicas: i32,
    pub store: Store,
    pub keep_store: StoreManagement,
    pub certificate: Certificate,
    pub strategy: UpgradeStrategy,
    pub health_timeout: Duration,
    /// Worth knowing, and no reason not to run: reason and words.
    pub warnings: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    None,
    Issued {
        issuer: IssuerReference,
        renew_before: Option<Duration>,
    },
    /// The name of a Secret.
    Given(String),
}

/// How images are pulled, as the controller is told for all workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pull {
    pub secrets: Vec<String>,
    pub policy: Option<String>,
}

/// `config` has the image that is run when no layer names one.
///
/// # Errors
/// The first thing in the way.
pub(crate) fn validate(
    registry: &Registry,
    effective: Effective,
    found: &Found,
    config: &Config,
) -> Result<Valid, Trouble> {
    let names = Names::of(registry);
    let Effective { spec, tier_replicas } = effective;
    let image = spec.image.clone().unwrap_or_else(|| config.registry_image.clone());
    let version = version_of(registry, &image, spec.version.as_deref())?;
    let before = registry.status.as_ref().and_then(|status| status.storage.as_ref());
    let store = store::validate(&names, &spec, found, before)?;
    let replicas = replicas(&spec, tier_replicas, &store)?;
    let strategy = strategy(&spec, &store)?;
    fits_version(&spec, &version)?;
    requests_within_limits(&spec)?;
    Ok(Valid {
        owner: registry.controller_owner_ref(&()).unwrap_or_default(),
        health_timeout: duration(
            spec.upgrade.as_ref().and_then(|upgrade| upgrade.health_timeout.as_deref()),
        )?
        .unwrap_or(HEALTH_TIMEOUT),
        certificate: certificate(&spec, found)?,
        warnings: warnings(&spec, &store, replicas),
        keep_store: spec.storage.as_ref().and_then(|storage| storage.management_state).unwrap_or_default(),
        pull: Pull { secrets: config.image_pull_secrets.clone(), policy: config.image_pull_policy.clone() },
        names,
        image,
        version,
        replicas,
        store,
        strategy,
        spec,
    })
}

fn version_of(registry: &Registry, image: &str, written: Option<&str>) -> Result<Version, Trouble> {
    let version = version::of_image(image, written).map_err(|unsupported| {
        let reason = match unsupported {
            Unsupported::Unknown(_) => "UnknownVersion",
            Unsupported::Version(_) => "UnsupportedVersion",
        };
        Trouble::invalid(Part::Version, reason, unsupported.to_string())
    })?;
    let last_good = registry.status.as_ref().and_then(|status| status.last_good.as_ref());
    let before = last_good.and_then(|good| version::of_image(&good.image, Some(&good.version)).ok());
    match before.filter(|before| !before.may_become(&version)) {
        Some(before) => Err(Trouble::invalid(
            Part::Version,
            "DowngradeRefused",
            format!(
                "from {before} to {version}: a store written by a newer major is not given to an older one"
            ),
        )),
        None => Ok(version),
    }
}

fn replicas(spec: &RegistrySpec, of_tier: Option<i32>, store: &Store) -> Result<i32, Trouble> {
    let is_shared = store.is_shared();
    match spec.replicas {
        Some(replicas) if replicas > 1 && !is_shared => Err(Trouble::invalid(
            Part::Spec,
            "StoreNotShared",
            format!(
                "{replicas} replicas cannot share {store}: use ReadWriteMany, s3 or a bucket, or one replica"
            ),
        )),
        Some(replicas) => Ok(replicas.max(0)),
        None if is_shared => Ok(of_tier.unwrap_or(1)),
        None => Ok(1),
    }
}

/// A volume that one node holds cannot be handed from pod to pod while both run.
fn strategy(spec: &RegistrySpec, store: &Store) -> Result<UpgradeStrategy, Trouble> {
    let written = spec.upgrade.as_ref().and_then(|upgrade| upgrade.strategy);
    match (written, store.must_be_handed_over()) {
        (Some(UpgradeStrategy::RollingUpdate), true) => Err(Trouble::invalid(
            Part::Spec,
            "StoreNotShared",
            format!("upgrade.strategy RollingUpdate cannot be with {store}: use Recreate, or ReadWriteMany"),
        )),
        (None, true) => Ok(UpgradeStrategy::Recreate),
        (written, _) => Ok(written.unwrap_or_default()),
    }
}

/// What Distribution 2.8 cannot do.
fn fits_version(spec: &RegistrySpec, version: &Version) -> Result<(), Trouble> {
    if version.major() != Major::Two {
        return Ok(());
    }
    let addresses = spec.metadata_cache.as_ref().and_then(|cache| cache.redis.as_ref());
    if addresses.is_some_and(|redis| redis.addrs.len() > 1) {
        let words = format!("Distribution {version} takes one address in metadataCache.redis.addrs: use 3.x");
        return Err(Trouble::invalid(Part::Version, "NeedsDistribution3", words));
    }
    let s3 = spec.storage.as_ref().and_then(|storage| storage.s3.as_ref());
    if s3.is_some_and(|s3| s3.region_endpoint.is_some() && s3.virtual_hosted_style == Some(true)) {
        let words =
            format!("Distribution {version} has no virtualHostedStyle at an endpoint of your own: use 3.x");
        return Err(Trouble::invalid(Part::Version, "NeedsDistribution3", words));
    }
    Ok(())
}

/// A tier gives what is not written, so both together can cross.
fn requests_within_limits(spec: &RegistrySpec) -> Result<(), Trouble> {
    let Some(resources) = &spec.resources else { return Ok(()) };
    for (name, request) in resources.requests.iter().flatten() {
        let Some(limit) = resources.limits.as_ref().and_then(|limits| limits.get(name)) else { continue };
        let pair: (Result<Quantity, _>, Result<Quantity, _>) = (request.try_into(), limit.try_into());
        if let (Ok(asked), Ok(most)) = pair
            && asked > most
        {
            let words = format!(
                "resources.requests.{name} {} is above its limit {}, which may come from tier or template: write both",
                request.0, limit.0
            );
            return Err(Trouble::invalid(Part::Spec, "RequestAboveLimit", words));
        }
    }
    Ok(())
}

fn duration(text: Option<&str>) -> Result<Option<Duration>, Trouble> {
    text.map(parse_duration).transpose().map_err(|error| {
        Trouble::invalid(Part::Spec, "BadDuration", format!("{:?}: {error}", text.unwrap_or_default()))
    })
}

fn certificate(spec: &RegistrySpec, found: &Found) -> Result<Certificate, Trouble> {
    let Some(tls) = &spec.tls else { return Ok(Certificate::None) };
    match (tls.mode, &tls.issuer_ref, &tls.secret_ref) {
        (TlsMode::None, ..) => Ok(Certificate::None),
        (TlsMode::CertManager, Some(_), _) if !found.certificate.is_installed => Err(Trouble::waiting(
            Part::Certificate,
            "CertManagerNotInstalled",
            "tls.mode CertManager needs cert-manager.io/v1, which this cluster does not serve",
        )),
        (TlsMode::CertManager, Some(issuer), _) => {
            let renew_before = duration(tls.renew_before.as_deref())?;
            Ok(Certificate::Issued { issuer: issuer.clone(), renew_before })
        }
        (TlsMode::Secret, _, Some(secret)) => Ok(Certificate::Given(secret.name.clone())),
        (TlsMode::CertManager | TlsMode::Secret, ..) => {
            let words = "tls.mode CertManager needs tls.issuerRef, tls.mode Secret needs tls.secretRef";
            Err(Trouble::invalid(Part::Certificate, "TlsIncomplete", words))
        }
    }
}

fn warnings(spec: &RegistrySpec, store: &Store, replicas: i32) -> Vec<(&'static str, String)> {
    let mut warnings = Vec::new();
    if matches!(store, Store::EmptyDir { .. }) {
        let words = "emptyDir: every image is lost when the pod is made anew; for development only";
        warnings.push(("StoreEphemeral", words.to_owned()));
    }
    let cache = spec.metadata_cache.as_ref().map(|cache| cache.type_);
    if cache == Some(MetadataCacheType::InMemory) && replicas > 1 {
        let words = "metadataCache InMemory is each replica's own: after a delete the others still tell of the blob; \
                     use Redis or None";
        warnings.push(("StaleMetadata", words.to_owned()));
    }
    warnings
}

#[cfg(test)]
mod tests;
