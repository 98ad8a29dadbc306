//! The effective spec: what the capacity tier gives, over it the template, over it what the Registry itself writes, field
//! by field. Pure; whether the result can be run is checked by the next stage.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::crd::{
    Auth, EmptyDir, Ingress, MetadataCache, PersistentVolume, Redis, RegistryProxy, RegistrySpec,
    RegistryStorage, S3, Service, StorageBackend, Tls, Upgrade, tier,
};

/// Three layers as one; what no layer writes is the next stage's default.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Effective {
    pub spec: RegistrySpec,
    /// Replicas when neither object nor template writes them; never more than the store lets be.
    pub tier_replicas: Option<i32>,
}

/// `template` is what the named RegistryTemplate writes.
#[must_use]
pub(crate) fn merge(template: Option<&RegistrySpec>, object: &RegistrySpec) -> Effective {
    let nothing = RegistrySpec::default();
    let mut spec = over(template.unwrap_or(&nothing), object);
    let figures = spec.capacity_tier.map(tier::registry);
    spec.resources = match (figures.as_ref().map(|figures| &figures.resources), &spec.resources) {
        (Some(below), Some(above)) => Some(resources(below, above)),
        (below, above) => above.as_ref().or(below).cloned(),
    };
    Effective { spec, tier_replicas: figures.map(|figures| figures.replicas) }
}

/// The upper of the two, or both where they have parts. Destructured, so that a new field cannot be forgotten.
fn over(below: &RegistrySpec, above: &RegistrySpec) -> RegistrySpec {
    let RegistrySpec {
        template_ref: _,
        management_state,
        capacity_tier,
        replicas,
        image,
        version,
        storage: stored,
        disable_redirect,
        read_only,
        service: served,
        ingress: entered,
        tls: sealed,
        auth: guarded,
        metadata_cache: cached,
        upgrade: upgraded,
        proxy: proxied,
        resources: sized,
        affinity,
        node_selector,
        tolerations,
        topology_spread_constraints,
    } = above.clone();
    RegistrySpec {
        template_ref: None,
        management_state: management_state.or(below.management_state),
        capacity_tier: capacity_tier.or(below.capacity_tier),
        replicas: replicas.or(below.replicas),
        // A version belongs to its image.
        version: version.or_else(|| if image.is_none() { below.version.clone() } else { None }),
        image: image.or_else(|| below.image.clone()),
        storage: both(&below.storage, stored, storage),
        disable_redirect: disable_redirect.or(below.disable_redirect),
        read_only: read_only.or(below.read_only),
        service: both(&below.service, served, service),
        ingress: both(&below.ingress, entered, ingress),
        tls: both(&below.tls, sealed, tls),
        auth: both(&below.auth, guarded, auth),
        metadata_cache: both(&below.metadata_cache, cached, metadata_cache),
        upgrade: both(&below.upgrade, upgraded, upgrade),
        proxy: both(&below.proxy, proxied, proxy),
        resources: both(&below.resources, sized, |below, above| resources(below, &above)),
        affinity: affinity.or_else(|| below.affinity.clone()),
        node_selector: node_selector.or_else(|| below.node_selector.clone()),
        tolerations: tolerations.or_else(|| below.tolerations.clone()),
        topology_spread_constraints: topology_spread_constraints
            .or_else(|| below.topology_spread_constraints.clone()),
    }
}

fn both<T: Clone>(below: &Option<T>, above: Option<T>, join: impl FnOnce(&T, T) -> T) -> Option<T> {
    match (below, above) {
        (Some(below), Some(above)) => Some(join(below, above)),
        (below, above) => above.or_else(|| below.clone()),
    }
}

/// One backend in the end: another one above drops the one below.
fn storage(below: &RegistryStorage, above: RegistryStorage) -> RegistryStorage {
    let management_state = above.management_state.or(below.management_state);
    let names_none = above.empty_dir.is_none()
        && above.pvc.is_none()
        && above.s3.is_none()
        && above.bucket_class_name.is_none()
        && above.bucket_access_class.is_none();
    if names_none {
        return RegistryStorage { management_state, ..below.clone() };
    }
    let mut storage = RegistryStorage { management_state, ..above };
    match (below.backend(), storage.backend()) {
        (StorageBackend::EmptyDir(Some(below)), StorageBackend::EmptyDir(Some(above))) => {
            let size_limit = above.size_limit.clone().or_else(|| below.size_limit.clone());
            storage.empty_dir = Some(EmptyDir { size_limit });
        }
        (StorageBackend::Pvc(below), StorageBackend::Pvc(above)) => storage.pvc = Some(volume(below, above)),
        (StorageBackend::S3(below), StorageBackend::S3(above)) => storage.s3 = Some(s3(below, above)),
        _ => {}
    }
    storage
}

fn volume(below: &PersistentVolume, above: &PersistentVolume) -> PersistentVolume {
    if above.claim.is_some() || below.claim.is_some() {
        return above.clone();
    }
    PersistentVolume {
        claim: None,
        size: above.size.clone().or_else(|| below.size.clone()),
        storage_class_name: above.storage_class_name.clone().or_else(|| below.storage_class_name.clone()),
        access_modes: above.access_modes.clone().or_else(|| below.access_modes.clone()),
    }
}

fn s3(below: &S3, above: &S3) -> S3 {
    S3 {
        bucket: above.bucket.clone(),
        region: above.region.clone(),
        region_endpoint: above.region_endpoint.clone().or_else(|| below.region_endpoint.clone()),
        trusted_ca: above.trusted_ca.clone().or_else(|| below.trusted_ca.clone()),
        virtual_hosted_style: above.virtual_hosted_style.or(below.virtual_hosted_style),
        encrypt: above.encrypt.or(below.encrypt),
        chunk_size_mib: above.chunk_size_mib.or(below.chunk_size_mib),
        credentials_secret_ref: above
            .credentials_secret_ref
            .clone()
            .or_else(|| below.credentials_secret_ref.clone()),
    }
}

fn service(below: &Service, above: Service) -> Service {
    Service {
        type_: above.type_.or(below.type_),
        port: above.port.or(below.port),
        annotations: above.annotations.or_else(|| below.annotations.clone()),
    }
}

fn ingress(below: &Ingress, above: Ingress) -> Ingress {
    Ingress {
        class_name: above.class_name.or_else(|| below.class_name.clone()),
        host: above.host,
        annotations: above.annotations.or_else(|| below.annotations.clone()),
    }
}

fn tls(below: &Tls, above: Tls) -> Tls {
    if above.mode != below.mode {
        return above;
    }
    Tls {
        mode: above.mode,
        issuer_ref: above.issuer_ref.or_else(|| below.issuer_ref.clone()),
        renew_before: above.renew_before.or_else(|| below.renew_before.clone()),
        secret_ref: above.secret_ref.or_else(|| below.secret_ref.clone()),
    }
}

fn auth(below: &Auth, above: Auth) -> Auth {
    if above.type_ != below.type_ {
        return above;
    }
    Auth {
        type_: above.type_,
        secret_ref: above.secret_ref.or_else(|| below.secret_ref.clone()),
        token: above.token.or_else(|| below.token.clone()),
    }
}

fn metadata_cache(below: &MetadataCache, above: MetadataCache) -> MetadataCache {
    if above.type_ != below.type_ {
        return above;
    }
    let redis = both(&below.redis, above.redis, |below, above| Redis {
        addrs: above.addrs,
        password_secret_ref: above.password_secret_ref.or_else(|| below.password_secret_ref.clone()),
        db: above.db.or(below.db),
    });
    MetadataCache { type_: above.type_, redis }
}

fn upgrade(below: &Upgrade, above: Upgrade) -> Upgrade {
    Upgrade {
        strategy: above.strategy.or(below.strategy),
        health_timeout: above.health_timeout.or_else(|| below.health_timeout.clone()),
        auto_rollback: above.auto_rollback.or(below.auto_rollback),
    }
}

fn proxy(below: &RegistryProxy, above: RegistryProxy) -> RegistryProxy {
    RegistryProxy {
        http: above.http.or_else(|| below.http.clone()),
        https: above.https.or_else(|| below.https.clone()),
        no_proxy: above.no_proxy.or_else(|| below.no_proxy.clone()),
    }
}

/// By resource: a memory limit written above leaves the processors of below.
fn resources(below: &ResourceRequirements, above: &ResourceRequirements) -> ResourceRequirements {
    type Amounts = Option<BTreeMap<String, Quantity>>;
    let join = |below: &Amounts, above: &Amounts| {
        let joined: BTreeMap<String, Quantity> = below
            .iter()
            .chain(above)
            .flatten()
            .map(|(name, amount)| (name.clone(), amount.clone()))
            .collect();
        Some(joined).filter(|joined| !joined.is_empty())
    };
    ResourceRequirements {
        claims: above.claims.clone().or_else(|| below.claims.clone()),
        limits: join(&below.limits, &above.limits),
        requests: join(&below.requests, &above.requests),
    }
}

#[cfg(test)]
mod tests;
