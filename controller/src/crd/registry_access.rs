//! Who may use a registry, where it keeps what it knows of its blobs, and how it is upgraded.
//! Must not hold a password: Secrets are named.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cel;
use super::references::{NameReference, SecretKeyReference};

/// Who may pull and push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'Htpasswd' || has(self.secretRef)")
        .message("auth.type Htpasswd needs auth.secretRef: name the Secret whose key htpasswd holds bcrypt lines"),
    validation = Rule::new("self.type != 'Token' || has(self.token)")
        .message("auth.type Token needs auth.token: realm, service, issuer and rootCertSecretRef"),
    validation = Rule::new("self.type == 'Htpasswd' || !has(self.secretRef)")
        .message("auth.secretRef belongs to type Htpasswd: remove it or set the type"),
    validation = Rule::new("self.type == 'Token' || !has(self.token)")
        .message("auth.token belongs to type Token: remove it or set the type")
)]
pub struct Auth {
    #[serde(rename = "type")]
    pub type_: AuthType,
    /// A Secret whose key `htpasswd` holds `user:bcrypt` lines, in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenAuth>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthType {
    #[default]
    None,
    Htpasswd,
    Token,
}

/// A token service that clients are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenAuth {
    /// Its URL, reachable by the clients.
    #[x_kube(validation = cel::web_url("auth.token.realm"))]
    pub realm: String,
    /// What it calls this registry.
    #[x_kube(validation = cel::printable("auth.token.service"))]
    pub service: String,
    /// What it calls itself in its tokens.
    #[x_kube(validation = cel::printable("auth.token.issuer"))]
    pub issuer: String,
    /// A Secret whose key `ca.crt` (or `tls.crt`) signs the tokens' keys, in the same namespace.
    pub root_cert_secret_ref: NameReference,
}

/// Where a registry keeps what it knows of its blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'Redis' || has(self.redis)")
        .message("metadataCache.type Redis needs metadataCache.redis.addrs: [HOST:PORT]"),
    validation = Rule::new("self.type == 'Redis' || !has(self.redis)")
        .message("metadataCache.redis belongs to type Redis: remove it or set the type")
)]
pub struct MetadataCache {
    /// InMemory only holds for a single replica.
    #[serde(rename = "type")]
    pub type_: MetadataCacheType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetadataCacheType {
    #[default]
    None,
    InMemory,
    Redis,
}

/// A Redis, or Valkey, Garnet, Dragonfly, KeyDB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// `HOST:PORT`; several for a cluster, which takes Distribution 3.
    #[x_kube(
        validation = Rule::new("self.size() >= 1")
            .message("metadataCache.redis.addrs needs at least one address: [HOST:PORT]"),
        validation = cel::host_ports("metadataCache.redis.addrs")
    )]
    pub addrs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyReference>,
    #[x_kube(validation = cel::between("metadataCache.redis.db", 0, 1023))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<i32>,
}

/// How a new version comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// RollingUpdate where nothing is written and the storage can be shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<UpgradeStrategy>,
    /// How long the new pods may take until they are healthy: `300s` where nothing is written.
    #[x_kube(validation = cel::positive_duration("upgrade.healthTimeout"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_timeout: Option<String>,
    /// Back to the last good version when they are not; true where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_rollback: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpgradeStrategy {
    #[default]
    RollingUpdate,
    Recreate,
}
