//! The HTTP client of the registry behind: connections, their pool and their TLS, made of files that may
//! change. Must not know what is asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::body::Body;
use crate::body::passing::IDLE;

/// One read of a reply's body, and what is queued towards the registry before it takes more.
const BUFFER: usize = 64 << 10;
const CONNECT: Duration = Duration::from_secs(3);
const IDLE_CONNECTIONS: usize = 128;
const KEEP_IDLE: Duration = Duration::from_secs(20);

/// Cheap to clone; clones share their connections.
pub(super) type Pool = Client<HttpsConnector<HttpConnector>, Body>;

/// Where certificates and keys for connections to the registry lie.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Trusted instead of the system's authorities.
    pub ca: Option<PathBuf>,
    /// The certificate, with its chain, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A certificate or key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    #[error("{}: no usable PEM certificate", .0.display())]
    Certificate(PathBuf, #[source] pem::Error),
    #[error("{}: no usable PEM key", .0.display())]
    Key(PathBuf, #[source] pem::Error),
    #[error("{}: cannot be used", .0.display())]
    Pair(PathBuf, #[source] rustls::Error),
}

pub(super) fn pool(files: &TlsFiles) -> Result<Pool, TlsFilesError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    // A registry that stops reading is noticed by the kernel, which knows what is not acknowledged.
    http.set_tcp_user_timeout(Some(IDLE));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(files)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .http1_max_buf_size(BUFFER)
        .http1_max_headers(128)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(KEEP_IDLE)
        .pool_timer(TokioTimer::new())
        .set_host(true)
        .build(connector))
}

fn tls(files: &TlsFiles) -> Result<ClientConfig, TlsFilesError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots(files.ca.as_deref())?);
    match &files.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, self::key(key)?)
            .map_err(|error| TlsFilesError::Pair(certificate.clone(), error)),
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, TlsFilesError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| TlsFilesError::Pair(file.to_owned(), error))?;
    }
    Ok(roots)
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let failed = |error| TlsFilesError::Certificate(file.to_owned(), error);
    let read = CertificateDer::pem_file_iter(file).map_err(failed)?;
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(failed)?;
    if certificates.is_empty() {
        return Err(failed(pem::Error::Io(io::Error::from(io::ErrorKind::InvalidData))));
    }
    Ok(certificates)
}

/// The key of a PEM file.
pub(crate) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsFilesError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| TlsFilesError::Key(file.to_owned(), error))
}
