//! Credentials, challenges and tokens. One token per (credential, scope), fetched once however many wait for it, renewed
//! before it ends. Secrets live in `SecretString` and reach nothing but the Authorization header of the host they are
//! for. Must not send requests itself: `token.rs` does, through the upstream's one client.

mod challenge;
mod token;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use larder_wire::settings::Proxy;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

pub(crate) use challenge::{Challenge, parse};
pub(crate) use token::{Fetched, TokenKey, Tokens};

/// A user name and its password, as they stood in their files when they were last read.
#[derive(Clone)]
pub(crate) struct Credential {
    pub username: String,
    pub password: SecretString,
}

/// Whose rights a request is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    Anonymous,
    /// The node's credential for this upstream.
    Node,
}

/// Where a credential is read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CredentialFiles {
    pub username: Option<PathBuf>,
    pub password: Option<PathBuf>,
}

/// A credential's file could not be read. The text names the file, never what stands in it.
#[derive(Debug, thiserror::Error)]
#[error("the credential file {path} cannot be read")]
pub(crate) struct CredentialError {
    path: PathBuf,
    source: std::io::Error,
}

impl CredentialFiles {
    pub(crate) fn configured(&self) -> bool {
        self.password.is_some()
    }

    /// Reads the files anew. Line ends at their ends are not part of a secret.
    pub(crate) async fn read(&self) -> Result<Option<Credential>, CredentialError> {
        let Some(password) = &self.password else { return Ok(None) };
        let username = match &self.username {
            Some(path) => read(path).await?,
            None => String::new(),
        };
        Ok(Some(Credential { username, password: read(password).await?.into() }))
    }
}

impl Credential {
    pub(crate) fn basic(&self) -> HeaderValue {
        let text = format!("{}:{}", self.username, self.password.expose_secret());
        sensitive(&format!("Basic {}", STANDARD.encode(text)))
    }

    /// Stands for the credential in keys, without being it.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let text = format!("{}\0{}", self.username, self.password.expose_secret());
        Sha256::digest(text.as_bytes()).into()
    }
}

pub(crate) fn bearer(token: &SecretString) -> HeaderValue {
    sensitive(&format!("Bearer {}", token.expose_secret()))
}

/// What a proxy with a user in its URL is sent.
pub(crate) fn proxy_authorization(proxy: &Proxy) -> Option<HeaderValue> {
    proxy.userinfo.as_ref().map(|userinfo| sensitive(&format!("Basic {}", STANDARD.encode(userinfo))))
}

/// A header that debug output and logs leave out. What cannot stand in a header is sent as nothing, and refused by the
/// other side.
fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

async fn read(path: &PathBuf) -> Result<String, CredentialError> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|source| CredentialError { path: path.clone(), source })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
