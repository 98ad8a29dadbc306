//! The HTTP client of one upstream: TLS, timeouts, pools, and errors in our own words. Every request of an upstream goes
//! through here and so through its guard. Must not follow redirects or answer challenges: `upstream.rs` does.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, Response, Uri, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as PooledClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use larder_wire::settings::{LONGEST_HEAD_WAIT, UpstreamUrl};
use rustix::io::Errno;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::auth::proxy_authorization;
use super::guard::{Guard, GuardError, Policy};
use crate::error::UpstreamError;

/// Cheap to clone; clones share their pool.
#[derive(Clone)]
pub(crate) struct Client {
    http: PooledClient<HttpsConnector<Guard>, Full<Bytes>>,
    home: Arc<UpstreamUrl>,
    token_hosts: Arc<[String]>,
    /// For a proxy that is spoken to in plain HTTP; tunnels send their own.
    proxy_authorization: Option<http::HeaderValue>,
}

/// A `ca_file` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: no usable PEM certificates")]
pub(crate) struct CaError {
    path: String,
    source: Box<dyn Error + Send + Sync>,
}

/// One read of a body in plain text; TLS hands out at most 16 KiB a record anyway.
const READ: usize = 1 << 20;
const IDLE_CONNECTIONS: usize = 4;
const KEEP_IDLE: Duration = Duration::from_secs(20);

impl Client {
    pub(crate) fn new(policy: Policy, roots: Arc<RootCertStore>, token_hosts: Vec<String>) -> Self {
        let home = Arc::new(policy.home.clone());
        let proxy_authorization = policy.proxy.as_ref().and_then(proxy_authorization);
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Guard::new(policy));
        let http = PooledClient::builder(TokioExecutor::new())
            .http1_read_buf_exact_size(READ)
            .http1_max_headers(100)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(KEEP_IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { http, home, token_hosts: token_hosts.into(), proxy_authorization }
    }

    pub(crate) fn home(&self) -> &UpstreamUrl {
        &self.home
    }

    pub(crate) fn token_hosts(&self) -> &[String] {
        &self.token_hosts
    }

    /// A request with what every request carries. No header of a client's is ever passed on but through here.
    pub(crate) fn request(&self, method: Method, uri: Uri) -> Outgoing {
        let through = self.proxy_authorization.as_ref().filter(|_| uri.scheme_str() == Some("http")).cloned();
        let mut builder = Request::builder()
            .method(method)
            .uri(uri)
            .header(USER_AGENT, concat!("larder/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT_ENCODING, "identity");
        if let Some(value) = through {
            builder = builder.header(PROXY_AUTHORIZATION, value);
        }
        Outgoing { builder, body: Full::default() }
    }

    /// Sends it and waits for the reply's head.
    pub(crate) async fn send(&self, request: Outgoing) -> Result<Response<Incoming>, UpstreamError> {
        let request = request.builder.body(request.body);
        let request =
            request.map_err(|_| UpstreamError::Unusable("its address or token cannot stand in a request"))?;
        let sent = tokio::time::timeout(LONGEST_HEAD_WAIT, self.http.request(request)).await;
        sent.map_err(|_| UpstreamError::NoAnswer(LONGEST_HEAD_WAIT))?.map_err(in_our_words)
    }

    /// Posts the form of a refresh grant.
    pub(crate) async fn refresh(&self, uri: Uri, form: String) -> Result<Response<Incoming>, UpstreamError> {
        let mut request =
            self.request(Method::POST, uri).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.body = Full::from(form);
        self.send(request).await
    }

    /// A body that must be small.
    pub(crate) async fn whole(&self, body: Incoming, limit: usize) -> Result<Bytes, UpstreamError> {
        let reading = tokio::time::timeout(LONGEST_HEAD_WAIT, Limited::new(body, limit).collect());
        match reading.await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(UpstreamError::TooLarge),
            Ok(Err(error)) => Err(UpstreamError::Broken(error.into())),
            Err(_) => Err(UpstreamError::Idle(LONGEST_HEAD_WAIT)),
        }
    }
}

/// A request under way to being sent.
pub(crate) struct Outgoing {
    builder: request::Builder,
    body: Full<Bytes>,
}

impl Outgoing {
    pub(crate) fn header<V>(mut self, name: http::HeaderName, value: V) -> Self
    where
        V: TryInto<http::HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.builder = self.builder.header(name, value);
        self
    }
}

/// The system's roots. An image without any still works for `ca_file` and `http://`.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!("no system certificates: https upstreams need ca_file");
    }
    roots
}

/// Adds a PEM file's certificates.
pub(crate) fn add_ca_file(roots: &mut RootCertStore, path: &Path) -> Result<(), CaError> {
    let failed = |source| CaError { path: path.display().to_string(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(Box::new(error)))?;
    let mut added = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(Box::new(error)))?;
        roots.add(certificate).map_err(|error| failed(Box::new(error)))?;
        added += 1;
    }
    if added == 0 { Err(failed(io::Error::from(io::ErrorKind::InvalidData).into())) } else { Ok(()) }
}

fn in_our_words(error: hyper_util::client::legacy::Error) -> UpstreamError {
    let guarded = cause::<GuardError>(&error);
    if matches!(guarded, Some(GuardError::Never(_) | GuardError::Loopback(_) | GuardError::Private(_))) {
        return UpstreamError::Forbidden(Arc::new(error));
    }
    let code = cause::<io::Error>(&error).and_then(io::Error::raw_os_error).map(Errno::from_raw_os_error);
    match code {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            UpstreamError::Exhausted(Arc::new(error))
        }
        _ => UpstreamError::Connect(Arc::new(error)),
    }
}

/// The first error of a type in a chain of sources.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(one) = next {
        if let Some(found) = one.downcast_ref() {
            return Some(found);
        }
        next = one.source();
    }
    None
}
