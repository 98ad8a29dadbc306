//! Reads what a Registry refers to, each object by its name. Must not judge: what is not there is told as absent.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};

use super::build;
use super::foreign::{self, CosiVersion};
use super::names::Names;
use super::trouble::{Part, Stop, Trouble};
use crate::apply::read;
use crate::context::Context;
use crate::crd::{MetadataCacheType, Registry, RegistrySpec, RegistryTemplate, StorageBackend, TlsMode};
use crate::error::Error;

/// The seed's name for the object storage's keys.
pub(super) const S3_CREDENTIALS: &str = "image-registry-private-configuration-user";

/// What the effective spec names, as far as it is there.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By name.
    pub secrets: BTreeMap<String, Secret>,
    pub trusted_ca: Option<ConfigMap>,
    /// The claim that is named, or the one that was made.
    pub claim: Option<PersistentVolumeClaim>,
    pub bucket: FoundBucket,
    pub certificate: FoundCertificate,
}

#[derive(Debug, Default)]
pub(crate) struct FoundBucket {
    /// None: nobody serves COSI.
    pub version: Option<CosiVersion>,
    pub claim: Option<DynamicObject>,
    pub access: Option<DynamicObject>,
    /// v1alpha1 tells the bucket's real name only here.
    pub bucket: Option<DynamicObject>,
}

#[derive(Debug, Default)]
pub(crate) struct FoundCertificate {
    pub is_installed: bool,
    pub live: Option<DynamicObject>,
}

/// What runs.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub deployment: Option<Deployment>,
    /// None: nobody keeps EndpointSlices for the Service yet.
    pub ready_endpoints: Option<usize>,
}

/// What the template writes that the Registry names; a template that is not there is a trouble of whoever needs it.
pub(super) async fn template(
    context: &Context,
    registry: &Registry,
) -> Result<Result<Option<RegistrySpec>, Trouble>, Error> {
    let Some(name) = registry.template_name() else { return Ok(Ok(None)) };
    let found: Option<RegistryTemplate> = read(&Api::all(context.client.clone()), name).await?;
    Ok(match found {
        Some(template) => Ok(Some(template.settings().clone())),
        None => {
            let words = format!("RegistryTemplate {name} is not there");
            Err(Trouble::invalid(Part::Spec, "TemplateNotFound", words))
        }
    })
}

/// The Deployment of the last good revision, unless it is the `wanted` one. What its pods mount is read into `found`.
pub(super) async fn kept(
    context: &Context,
    registry: &Registry,
    wanted: &str,
    found: &mut Found,
) -> Result<Option<DeploymentSpec>, Error> {
    let names = Names::of(registry);
    let good = registry.status.as_ref().and_then(|status| status.last_good.as_ref());
    let Some(good) = good.filter(|good| good.config_hash != wanted) else { return Ok(None) };
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &names.namespace);
    let secret = read(&secrets, &names.config(&good.config_hash)).await?;
    let kept = secret.as_ref().and_then(build::kept_deployment);
    for mount in kept.iter().flat_map(build::mounts) {
        if !found.secrets.contains_key(&mount.secret)
            && let Some(secret) = read(&secrets, &mount.secret).await?
        {
            found.secrets.insert(mount.secret, secret);
        }
    }
    Ok(kept)
}

pub(super) async fn live(context: &Context, registry: &Registry) -> Result<Live, Stop> {
    let names = Names::of(registry);
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), &names.namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(context.client.clone(), &names.namespace);
    let of_service =
        ListParams::default().labels(&format!("kubernetes.io/service-name={}", names.workload()));
    let what = format!("list EndpointSlices of {}/{}", names.namespace, names.workload());
    let slices = slices.list(&of_service).await.map_err(Error::api(what))?.items;
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    // Not told is ready, says the API.
    let is_ready = |conditions: Option<bool>| conditions.unwrap_or(true);
    let ready = endpoints.filter(|it| is_ready(it.conditions.as_ref().and_then(|has| has.ready))).count();
    Ok(Live {
        deployment: read(&deployments, &names.workload()).await?,
        ready_endpoints: (!slices.is_empty()).then_some(ready),
    })
}

/// Reads everything that `spec` names.
pub(super) async fn find(
    context: &Context,
    registry: &Registry,
    spec: &RegistrySpec,
) -> Result<Found, Error> {
    let names = &Names::of(registry);
    let mut found = Found::default();
    let storage = spec.storage.clone().unwrap_or_default();
    match storage.backend() {
        StorageBackend::EmptyDir(_) => {}
        StorageBackend::Pvc(volume) => {
            let name = volume.claim.clone().unwrap_or_else(|| names.workload());
            found.claim = read(&Api::namespaced(context.client.clone(), &names.namespace), &name).await?;
        }
        StorageBackend::S3(s3) => {
            if let Some(ca) = &s3.trusted_ca {
                found.trusted_ca = trusted_ca(context, names, &ca.name).await?;
            }
        }
        StorageBackend::Bucket { .. } => found.bucket = bucket(&context.client, names).await?,
    }
    if spec.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::CertManager) {
        found.certificate = certificate(&context.client, names).await?;
    }
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &names.namespace);
    for name in secret_names(names, spec) {
        if let Some(secret) = read(&secrets, &name).await? {
            found.secrets.insert(name, secret);
        }
    }
    found.bucket.bucket = bucket_object(&context.client, names, &found).await?;
    Ok(found)
}

/// Secrets that the spec names, its own among them.
fn secret_names(names: &Names, spec: &RegistrySpec) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    let storage = spec.storage.clone().unwrap_or_default();
    match storage.backend() {
        StorageBackend::S3(s3) => {
            let named = s3.credentials_secret_ref.as_ref().map(|it| it.name.clone());
            wanted.insert(named.unwrap_or_else(|| S3_CREDENTIALS.to_owned()));
        }
        StorageBackend::Bucket { .. } => {
            wanted.insert(names.bucket_credentials());
        }
        StorageBackend::EmptyDir(_) | StorageBackend::Pvc(_) => {}
    }
    if let Some(tls) = &spec.tls {
        match tls.mode {
            TlsMode::None => {}
            TlsMode::CertManager => {
                wanted.insert(names.certificate());
            }
            TlsMode::Secret => wanted.extend(tls.secret_ref.iter().map(|it| it.name.clone())),
        }
    }
    if let Some(auth) = &spec.auth {
        wanted.extend(auth.secret_ref.iter().map(|it| it.name.clone()));
        wanted.extend(auth.token.iter().map(|it| it.root_cert_secret_ref.name.clone()));
    }
    if let Some(cache) = spec.metadata_cache.as_ref().filter(|cache| cache.type_ == MetadataCacheType::Redis)
    {
        let passwords = cache.redis.iter().filter_map(|redis| redis.password_secret_ref.as_ref());
        wanted.extend(passwords.map(|it| it.name.clone()));
    }
    wanted
}

/// In the controller's namespace, as the seed has it, else in the Registry's own.
async fn trusted_ca(context: &Context, names: &Names, name: &str) -> Result<Option<ConfigMap>, Error> {
    for namespace in [&context.config.namespace, &names.namespace] {
        let found: Option<ConfigMap> =
            read(&Api::namespaced(context.client.clone(), namespace), name).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn bucket(client: &Client, names: &Names) -> Result<FoundBucket, Error> {
    let Some(version) = foreign::cosi(client).await? else { return Ok(FoundBucket::default()) };
    let api = |resource| Api::namespaced_with(client.clone(), &names.namespace, &resource);
    Ok(FoundBucket {
        version: Some(version),
        claim: read(&api(version.claims()), &names.bucket_claim()).await?,
        access: read(&api(version.accesses()), &names.bucket_access()).await?,
        bucket: None,
    })
}

async fn bucket_object(
    client: &Client,
    names: &Names,
    found: &Found,
) -> Result<Option<DynamicObject>, Error> {
    let Some(version @ CosiVersion::V1alpha1) = found.bucket.version else { return Ok(None) };
    let told = found.secrets.get(&names.bucket_credentials()).and_then(foreign::bucket_info);
    let Some(name) = told.map(|told| told.bucket_name) else { return Ok(None) };
    read(&Api::all_with(client.clone(), &version.buckets()), &name).await
}

async fn certificate(client: &Client, names: &Names) -> Result<FoundCertificate, Error> {
    if !foreign::has_cert_manager(client).await? {
        return Ok(FoundCertificate::default());
    }
    let api = Api::namespaced_with(client.clone(), &names.namespace, &foreign::certificates());
    Ok(FoundCertificate { is_installed: true, live: read(&api, &names.certificate()).await? })
}
