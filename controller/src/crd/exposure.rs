//! How a registry or a gateway is reached: Service, Ingress and certificate. Must not know what stands behind them.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cel;
use super::references::NameReference;

/// The Service in front of the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// ClusterIP where nothing is written.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// 5000 for a registry; for a gateway 443 with a certificate and 5000 without.
    #[x_kube(validation = cel::port("service.port"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// For load balancers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// The Ingress to the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// The IngressClass; the cluster's default where nothing is written.
    #[x_kube(validation = cel::object_name("ingress.className"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// The name under which clients push and pull.
    #[x_kube(validation = cel::host_name("ingress.host"))]
    pub host: String,
    /// For the ingress controller: a body limit, say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode != 'CertManager' || has(self.issuerRef)")
        .message("tls.mode CertManager needs tls.issuerRef: name the Issuer or ClusterIssuer"),
    validation = Rule::new("self.mode != 'Secret' || has(self.secretRef)")
        .message("tls.mode Secret needs tls.secretRef: name the Secret with tls.crt and tls.key"),
    validation = Rule::new("self.mode == 'CertManager' || (!has(self.issuerRef) && !has(self.renewBefore))")
        .message("tls.issuerRef and tls.renewBefore belong to mode CertManager: remove them or set the mode"),
    validation = Rule::new("self.mode == 'Secret' || !has(self.secretRef)")
        .message("tls.secretRef belongs to mode Secret: remove it or set the mode")
)]
pub struct Tls {
    /// None, a certificate of cert-manager, or a Secret of your own.
    pub mode: TlsMode,
    /// Who signs, for mode CertManager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerReference>,
    /// How long before its end a certificate is renewed, for mode CertManager; cert-manager's default otherwise.
    #[x_kube(validation = cel::positive_duration("tls.renewBefore"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<String>,
    /// A Secret with `tls.crt` and `tls.key` in the same namespace, for mode Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameReference>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    #[default]
    None,
    CertManager,
    Secret,
}

/// An issuer of cert-manager.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct IssuerReference {
    #[x_kube(validation = cel::object_name("tls.issuerRef.name"))]
    pub name: String,
    /// Issuer where nothing is written.
    #[x_kube(validation = cel::kind("tls.issuerRef.kind"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `cert-manager.io` where nothing is written.
    #[x_kube(validation = cel::host_name("tls.issuerRef.group"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}
