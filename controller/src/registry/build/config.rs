//! The Secret of one revision: Distribution's file, the CA it trusts, and the Deployment that goes with both, so that a
//! failed upgrade has everything to go back to. Immutable, and named by its hash. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

use super::metadata;
use super::pod::{
    CA_FILE, CONFIG_FILE, DEBUG_ADDRESS, DRAIN, HTPASSWD_PATH, LISTEN_ADDRESS, TLS_DIR, TOKEN_PATH,
};
use crate::apply::Child;
use crate::crd::AuthType;
use crate::registry::config_file::{self, Auth, KeyPair, Listen, Notifications, Settings};
use crate::registry::material::{Materials, short};
use crate::registry::names::Names;
use crate::registry::validate::Valid;

/// The key under which the Secret keeps its Deployment.
pub(super) const DEPLOYMENT: &str = "deployment.json";

pub(super) fn file(valid: &Valid, materials: &Materials, notifications: Option<Notifications>) -> String {
    config_file::render(&Settings {
        major: valid.version.major(),
        store: materials.store.clone(),
        disable_redirect: valid.spec.disable_redirect.unwrap_or_default(),
        read_only: valid.spec.read_only.unwrap_or_default(),
        auth: auth(valid, materials),
        cache: materials.cache.clone(),
        listen: Listen {
            address: LISTEN_ADDRESS.to_owned(),
            debug_address: DEBUG_ADDRESS.to_owned(),
            secret: materials.http_secret.clone(),
            tls: materials.tls_secret.as_ref().map(|_| KeyPair {
                certificate: format!("{TLS_DIR}/tls.crt"),
                key: format!("{TLS_DIR}/tls.key"),
            }),
            drain: DRAIN,
        },
        notifications,
    })
}

fn auth(valid: &Valid, materials: &Materials) -> Auth {
    let Some(auth) = &valid.spec.auth else { return Auth::None };
    match (auth.type_, &auth.token) {
        (AuthType::Htpasswd, _) => {
            Auth::Htpasswd { realm: valid.names.workload(), path: HTPASSWD_PATH.to_owned() }
        }
        (AuthType::Token, Some(token)) if materials.token_roots.is_some() => Auth::Token {
            realm: token.realm.clone(),
            service: token.service.clone(),
            issuer: token.issuer.clone(),
            root_certificates: TOKEN_PATH.to_owned(),
        },
        (AuthType::None | AuthType::Token, _) => Auth::None,
    }
}

/// The hash of a revision: of all that its pods are made of.
#[must_use]
pub(crate) fn revision_of(file: &str, ca: Option<&str>, pods: &DeploymentSpec) -> String {
    let mut hash = Sha256::new();
    for part in [file, ca.unwrap_or_default(), &json(pods)] {
        hash.update(part);
        hash.update([0]);
    }
    short(&hash.finalize())
}

pub(super) fn secret(
    valid: &Valid,
    revision: &str,
    file: &str,
    ca: Option<&str>,
    deployment: &DeploymentSpec,
) -> Child {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = BTreeMap::from([
        (CONFIG_FILE.to_owned(), bytes(file)),
        (DEPLOYMENT.to_owned(), bytes(&json(deployment))),
    ]);
    if let Some(ca) = ca {
        data.insert(CA_FILE.to_owned(), bytes(ca));
    }
    Child::of(&Secret {
        metadata: metadata(&valid.names, valid.names.config(revision), Some(&valid.owner)),
        data: Some(data),
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    })
}

/// What [`secret`] kept for going back. None when the Secret does not hold it.
#[must_use]
pub(crate) fn kept_deployment(secret: &Secret) -> Option<DeploymentSpec> {
    serde_json::from_slice(&secret.data.as_ref()?.get(DEPLOYMENT)?.0).ok()
}

/// By its name alone, to remove it.
#[must_use]
pub(crate) fn named(names: &Names, revision: &str) -> Child {
    Child::of(&Secret { metadata: metadata(names, names.config(revision), None), ..Secret::default() })
}

fn json(deployment: &DeploymentSpec) -> String {
    serde_json::to_string(deployment).expect("Kubernetes' types are JSON")
}
