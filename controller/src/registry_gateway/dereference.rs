//! The dereference step of a RegistryGateway: the registry behind it as it runs, and what its certificate needs. Must
//! not judge: what is not there is told as absent.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt, discovery};

use crate::apply::read;
use crate::context::Context;
use crate::crd::{Registry, RegistryGateway, TlsMode};
use crate::error::Error;

/// What a gateway depends on, as far as it is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) registry: Option<Registry>,
    /// The registry's Service.
    pub(super) service: Option<Service>,
    /// The Secret of the registry's own certificate, where it serves with one.
    pub(super) registry_tls: Option<Secret>,
    /// The gateway's own, as it runs.
    pub(super) deployment: Option<Deployment>,
    /// Whether cert-manager's API is served; looked at only where it is needed.
    pub(super) has_cert_manager: bool,
    pub(super) certificate: Option<DynamicObject>,
    /// The Secret with the gateway's certificate.
    pub(super) tls: Option<Secret>,
}

/// cert-manager's Certificate.
#[must_use]
pub(super) fn certificates() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"))
}

/// What the children of a gateway are called.
pub(super) fn workload_name(gateway: &str) -> String {
    format!("{gateway}-gateway")
}

/// The Secret that holds the gateway's certificate, where it has one.
pub(super) fn tls_secret(gateway: &RegistryGateway) -> Option<String> {
    let tls = gateway.spec.tls.as_ref()?;
    match tls.mode {
        TlsMode::None => None,
        TlsMode::CertManager => Some(format!("{}-tls", workload_name(&gateway.name_any()))),
        TlsMode::Secret => tls.secret_ref.as_ref().map(|reference| reference.name.clone()),
    }
}

pub(super) async fn dereference(context: &Context, gateway: &RegistryGateway) -> Result<Found, Error> {
    let client = &context.client;
    let namespace = gateway.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let registry = &gateway.spec.registry_ref.name;
    let behind = format!("{registry}-registry");
    let registry_pods = read(&deployments, &behind).await?;
    let mut found = Found {
        registry: read(&Api::namespaced(client.clone(), &namespace), registry).await?,
        service: read(&Api::namespaced(client.clone(), &namespace), &behind).await?,
        deployment: read(&deployments, &workload_name(&gateway.name_any())).await?,
        ..Found::default()
    };
    if let Some(name) = registry_pods.as_ref().and_then(mounted_certificate) {
        found.registry_tls = read(&secrets, &name).await?;
    }
    if let Some(name) = tls_secret(gateway) {
        found.tls = read(&secrets, &name).await?;
    }
    if gateway.spec.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::CertManager) {
        found.has_cert_manager = has_cert_manager(client).await?;
        if found.has_cert_manager {
            let api = Api::namespaced_with(client.clone(), &namespace, &certificates());
            found.certificate = read(&api, &format!("{}-tls", workload_name(&gateway.name_any()))).await?;
        }
    }
    Ok(found)
}

/// The Secret that the registry's pods serve with: what runs says it, whatever template it came from.
fn mounted_certificate(pods: &Deployment) -> Option<String> {
    let volumes = pods.spec.as_ref()?.template.spec.as_ref()?.volumes.as_ref()?;
    volumes.iter().find(|volume| volume.name == "tls")?.secret.as_ref()?.secret_name.clone()
}

async fn has_cert_manager(client: &Client) -> Result<bool, Error> {
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate");
    match discovery::pinned_kind(client, &kind).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Discovery(_)) => Ok(false),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(Error::api("discover cert-manager.io")(error)),
    }
}
