//! The validate step of a RegistryGateway: what it depends on -> everything decided, or why nothing is touched. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Secret, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::dereference::{Found, tls_secret, workload_name};
use super::policy::{BadLimit, Policy};
use crate::config::Config;
use crate::crd::{
    CapacityTier, IssuerReference, RegistryGateway, RegistryGatewaySpec, TlsMode, request_above_limit, tier,
};
use crate::error::Error;

/// What is run. Fields that need no judgement are read from `spec`.
#[derive(Clone, Debug)]
pub(super) struct Valid {
    pub(super) gateway: String,
    pub(super) namespace: String,
    pub(super) owner: OwnerReference,
    pub(super) spec: RegistryGatewaySpec,
    pub(super) image: String,
    pub(super) pull_policy: Option<String>,
    pub(super) pull_secrets: Vec<String>,
    pub(super) replicas: i32,
    pub(super) resources: ResourceRequirements,
    /// The registry, as pods of the cluster reach it.
    pub(super) upstream: String,
    /// A Secret whose `ca.crt` signed the registry's certificate.
    pub(super) upstream_ca: Option<String>,
    /// The Secret with the gateway's own certificate.
    pub(super) tls: Option<String>,
    /// Who signs it, where it is not given.
    pub(super) issuer: Option<IssuerReference>,
    pub(super) policy: Policy,
}

/// Why the children stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}; what runs keeps its policy")]
    Policy(#[from] BadLimit),
    #[error("there is no Registry {0} in this namespace: make it, or write its name in spec.registryRef")]
    NoRegistry(String),
    #[error("the Service of Registry {0} is not there yet")]
    NoService(String),
    #[error("{0}: write both; the other may come from spec.capacityTier")]
    Resources(String),
    #[error("tls.mode CertManager needs cert-manager.io/v1, which this cluster does not serve")]
    NoCertManager,
    #[error("the Secret {0} with the certificate is not there yet, or has no tls.crt and tls.key")]
    NoCertificate(String),
    /// What the API server said to an object of ours.
    #[error("{0}")]
    ApplyRefused(String),
    #[error("{0}")]
    NotOurs(String),
    #[error("{0}; the controller needs its rights in this namespace")]
    NotAllowed(String),
}

impl Refusal {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Policy(_) => "InvalidPolicy",
            Self::NoRegistry(_) => "RegistryNotFound",
            Self::NoService(_) => "RegistryNotReady",
            Self::Resources(_) => "InvalidConfiguration",
            Self::NoCertManager => "CertManagerNotInstalled",
            Self::NoCertificate(_) => "CertificateNotFound",
            Self::ApplyRefused(_) => "ApplyRefused",
            Self::NotOurs(_) => "NotOurs",
            Self::NotAllowed(_) => "NamespaceNotAllowed",
        }
    }

    /// An error of reading that does not pass by itself.
    ///
    /// # Errors
    /// With the error, when it does.
    pub(super) fn of_reading(error: Error) -> Result<Self, Error> {
        if error.is_forbidden() { Ok(Self::NotAllowed(error.told())) } else { Err(error) }
    }

    /// An error of writing that does not pass by itself.
    ///
    /// # Errors
    /// With the error, when it does.
    pub(super) fn of_writing(error: Error) -> Result<Self, Error> {
        match error {
            Error::NotOurs(_) => Ok(Self::NotOurs(error.told())),
            error if error.is_refusal() => Ok(Self::ApplyRefused(error.told())),
            error => Err(error),
        }
    }

    /// Whether it may come by itself.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self, Self::NoService(_))
    }
}

pub(super) fn validate(gateway: &RegistryGateway, found: &Found, config: &Config) -> Result<Valid, Refusal> {
    let spec = gateway.spec.clone();
    let policy = Policy::of(&spec, gateway.metadata.generation.unwrap_or_default(), BTreeMap::new())?;
    let figures = tier::gateway(spec.capacity_tier.unwrap_or(CapacityTier::Small));
    let resources = figures.resources_below(spec.resources.as_ref());
    if let Some(crossed) = request_above_limit(&resources) {
        return Err(Refusal::Resources(crossed));
    }
    let upstream = upstream(&spec, found)?;
    let tls = certificate(gateway, found)?;
    let is_issued = spec.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::CertManager);
    let upstream_ca = found.registry_tls.as_ref().filter(|secret| has(secret, "ca.crt"));
    Ok(Valid {
        gateway: gateway.name_any(),
        namespace: gateway.namespace().unwrap_or_default(),
        owner: gateway.controller_owner_ref(&()).unwrap_or_default(),
        image: spec.image.clone().unwrap_or_else(|| config.gateway_image.clone()),
        pull_policy: config.image_pull_policy.clone(),
        pull_secrets: config.image_pull_secrets.clone(),
        replicas: spec.replicas.unwrap_or(figures.replicas),
        resources,
        upstream_ca: upstream_ca.filter(|_| upstream.starts_with("https:")).map(ResourceExt::name_any),
        upstream,
        tls,
        issuer: spec.tls.as_ref().and_then(|tls| tls.issuer_ref.clone()).filter(|_| is_issued),
        policy,
        spec,
    })
}

/// The registry's Service says where it is: its port and scheme may come from a template.
fn upstream(spec: &RegistryGatewaySpec, found: &Found) -> Result<String, Refusal> {
    let name = &spec.registry_ref.name;
    if found.registry.is_none() {
        return Err(Refusal::NoRegistry(name.clone()));
    }
    let no_service = || Refusal::NoService(name.clone());
    let service = found.service.as_ref().ok_or_else(no_service)?;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let is_registry = |port: &&ServicePort| port.name.as_deref() == Some("registry");
    let port = ports.iter().find(is_registry).ok_or_else(no_service)?;
    let scheme = port.app_protocol.as_deref().filter(|scheme| *scheme == "https").unwrap_or("http");
    Ok(format!(
        "{scheme}://{}.{}.svc:{}",
        service.name_any(),
        service.namespace().unwrap_or_default(),
        port.port
    ))
}

/// One that is issued may still be on its way: pods wait for it by themselves. One that is given must be there.
fn certificate(gateway: &RegistryGateway, found: &Found) -> Result<Option<String>, Refusal> {
    let mode = gateway.spec.tls.as_ref().map(|tls| tls.mode).unwrap_or_default();
    let secret = tls_secret(gateway);
    match (mode, &secret) {
        (TlsMode::CertManager, _) if !found.has_cert_manager => Err(Refusal::NoCertManager),
        (TlsMode::Secret, Some(name))
            if !found.tls.as_ref().is_some_and(|secret| has(secret, "tls.crt") && has(secret, "tls.key")) =>
        {
            Err(Refusal::NoCertificate(name.clone()))
        }
        _ => Ok(secret),
    }
}

fn has(secret: &Secret, key: &str) -> bool {
    secret.data.as_ref().is_some_and(|data| data.contains_key(key))
}

impl Valid {
    /// Of every child but the certificate.
    pub(super) fn workload(&self) -> String {
        workload_name(&self.gateway)
    }
}
