//! Sends the report to the controller, every interval with some jitter, at the pace that the controller asks for.
//! Must not matter to pulls: a lost controller is told once in the log and asked again later.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use larder_wire::report::{Reply, Report};
use larder_wire::settings::{ReportSettings, Settings};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::run;

const DEADLINE: Duration = Duration::from_secs(10);
/// The first report comes within this, so that a node is seen soon and a thousand that start at once are spread.
const FIRST: Duration = Duration::from_secs(5);
/// What a controller may ask for.
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(600);
/// A reply is some hundred bytes.
const LONGEST_REPLY: usize = 64 * 1024;

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Why a report did not arrive.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("cannot read certificates from {0}")]
    Certificates(std::path::PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    #[error("token file {0} holds no bearer token")]
    Token(std::path::PathBuf),
    #[error("the report cannot be written")]
    Body(#[source] std::io::Error),
    #[error("no request can be made")]
    Request(#[from] http::Error),
    #[error("no answer")]
    Connection(#[from] hyper_util::client::legacy::Error),
    #[error("no answer within 10 s")]
    Deadline,
    #[error("the answer cannot be read")]
    Reply(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("answered {status}")]
    Refused { status: StatusCode, retry_after: Option<Duration> },
}

/// Reports until `stop`. `report` makes the report of the moment, and may wait for the disk.
pub(crate) async fn run(
    mut settings: watch::Receiver<Settings>,
    report: impl Fn() -> Report + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let report = Arc::new(report);
    loop {
        let current = settings.borrow_and_update().report.clone();
        let reporting = async {
            match current.controller {
                Some(_) => report_to(&settings, &current, &report).await,
                None => std::future::pending().await,
            }
        };
        let mut changes = settings.clone();
        tokio::select! {
            () = stop.cancelled() => return,
            () = reporting => {}
            // Another controller or another pace: begin again.
            changed = async { changes.wait_for(|settings| settings.report != current).await.is_ok() } => {
                if !changed {
                    return stop.cancelled().await;
                }
            }
        }
    }
}

/// Reports to one controller, and never returns.
async fn report_to(
    settings: &watch::Receiver<Settings>,
    current: &ReportSettings,
    report: &Arc<impl Fn() -> Report + Send + Sync + 'static>,
) {
    let mut controller = Controller::default();
    let mut wait = current.interval.min(FIRST).mul_f64(fraction());
    loop {
        tokio::time::sleep(wait).await;
        let settings = settings.borrow().clone();
        let report = Arc::clone(report);
        let asked = match spawn_blocking(move || report()).await {
            Ok(report) => controller.tell(&settings, &report).await,
            Err(error) => {
                warn!(%error, "no report could be made this time");
                None
            }
        };
        wait = pace(asked, current.interval, fraction());
    }
}

/// The wait until the next report: what the controller asked for, within reason, else the interval; 80 % to 120 % of
/// it, so that nodes do not report in step. `fraction` is from 0 to 1.
fn pace(asked: Option<Duration>, interval: Duration, fraction: f64) -> Duration {
    asked.map_or(interval, |asked| asked.clamp(SOONEST, LATEST)).mul_f64(0.8 + 0.4 * fraction)
}

/// The controller as last seen.
#[derive(Default)]
struct Controller {
    /// Kept while what it was built from stays as it is.
    http: Option<(HttpFor, Http)>,
    /// `None` before the first report; then whether the last one arrived.
    hears: Option<bool>,
}

/// What a client is built from: whether TLS is needed, and with which certificates.
type HttpFor = (bool, Option<std::path::PathBuf>);

impl Controller {
    /// Sends a report; when the controller wants the next one, if it said so.
    async fn tell(&mut self, settings: &Settings, report: &Report) -> Option<Duration> {
        let sent = timeout(DEADLINE, self.send(settings, report)).await.unwrap_or(Err(SendError::Deadline));
        let before = self.hears.replace(sent.is_ok());
        match sent {
            Ok(reply) => {
                if before != Some(true) {
                    info!(desired_generation = reply.desired_generation, "the controller takes reports");
                }
                Some(reply.next_report_after)
            }
            Err(error) => {
                let reason = run::chain(&error);
                if before == Some(false) {
                    debug!(reason, "report not taken");
                } else {
                    warn!(reason, "the controller takes no report; pulls go on, trying again quietly");
                }
                match error {
                    SendError::Refused { retry_after, .. } => retry_after,
                    _ => None,
                }
            }
        }
    }

    async fn send(&mut self, settings: &Settings, report: &Report) -> Result<Reply, SendError> {
        let base = settings.report.controller.as_deref().unwrap_or_default();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{base}/v1/reports"))
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip")
            .header(USER_AGENT, concat!("larder-agent/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(zipped(report).map_err(SendError::Body)?))?;
        if let Some(token) = authorization(&settings.report.token_file).await? {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let http = self.http((base.starts_with("https://"), settings.ca_file.clone()))?;
        let response = http.request(request).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(SendError::Refused { status: head.status, retry_after: retry_after(&head.headers) });
        }
        let body = Limited::new(body, LONGEST_REPLY).collect().await.map_err(SendError::Reply)?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| SendError::Reply(error.into()))
    }

    fn http(&mut self, of: HttpFor) -> Result<&Http, SendError> {
        if self.http.as_ref().is_none_or(|(built_of, _)| *built_of != of) {
            let http = client(of.0, of.1.as_deref())?;
            self.http = Some((of, http));
        }
        let (_, http) = self.http.as_ref().expect("it was built just now");
        Ok(http)
    }
}

/// One connection a report: replicas behind a Service share the load, and nothing is held in between.
fn client(tls: bool, ca_file: Option<&Path>) -> Result<Http, SendError> {
    let mut roots = RootCertStore::empty();
    if tls {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let unreadable = |error| SendError::Certificates(path.to_owned(), error);
            let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
                .map_err(unreadable)?
                .collect::<Result<_, _>>()
                .map_err(unreadable)?;
            roots.add_parsable_certificates(certificates);
        }
    }
    let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

/// The bearer token, read anew each time since the kubelet renews it; none without a file.
async fn authorization(token_file: &Path) -> Result<Option<HeaderValue>, SendError> {
    let Ok(token) = tokio::fs::read_to_string(token_file).await.map(SecretString::from) else {
        return Ok(None);
    };
    let header = format!("Bearer {}", token.expose_secret().trim());
    let mut header = HeaderValue::from_str(&header).map_err(|_| SendError::Token(token_file.to_owned()))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn zipped(report: &Report) -> std::io::Result<Bytes> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&serde_json::to_vec(report)?)?;
    Ok(gzip.finish()?.into())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A random number from 0 to below 1; a half when the system has no randomness to give.
fn fraction() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
