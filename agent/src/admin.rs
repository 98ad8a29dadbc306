//! The admin listeners: `/livez`, `/readyz`, `/metrics`, `/stats`, and `/metrics` alone on an address of its own.
//! Must not share limits with the mirror: probes are answered while pulls fill every connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::{self, Metrics};
use crate::report::Facts;

const HEADER_TIME: Duration = Duration::from_secs(5);
/// No connection lives longer, so that none can be held for ever.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 32;

/// What the pages are made of.
pub(crate) struct Admin {
    pub(crate) facts: Arc<Facts>,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the agent begins to end.
    pub(crate) ending: CancellationToken,
}

/// Which pages a listener has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    All,
    Metrics,
}

type Page = Response<Full<Bytes>>;

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>, pages: Pages, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let local_only = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // A route into the loopback network from a neighbour's is no local caller.
            Ok((_, peer)) if local_only && !peer.ip().is_loopback() => {}
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    let ended = timeout(CONNECTION_TIME, connection(stream, admin, pages)).await;
                    if let Ok(Err(error)) = ended {
                        debug!(%error, "admin connection");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: asking again at once would only burn time.
                warn!(%error, "the admin listener cannot accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, admin: Arc<Admin>, pages: Pages) -> hyper::Result<()> {
    let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(answer(&admin, pages, request.method(), request.uri().path()).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(32)
        .max_buf_size(8 * 1024)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer(admin: &Arc<Admin>, pages: Pages, method: &Method, path: &str) -> Page {
    let known = match pages {
        Pages::All => matches!(path, "/livez" | "/readyz" | "/metrics" | "/stats"),
        Pages::Metrics => path == "/metrics",
    };
    if !known {
        return words(StatusCode::NOT_FOUND, "no such page: /livez, /readyz, /metrics and /stats are\n");
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refused = words(StatusCode::METHOD_NOT_ALLOWED, "pages are only read: GET or HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/livez" => words(StatusCode::OK, "alive\n"),
        "/readyz" => ready(admin),
        "/metrics" => off_the_runtime(admin, metrics_page).await,
        _ => off_the_runtime(admin, stats_page).await,
    }
}

fn ready(admin: &Admin) -> Page {
    if admin.ending.is_cancelled() {
        return words(
            StatusCode::SERVICE_UNAVAILABLE,
            "ending: pulls under way are finished, new ones go direct\n",
        );
    }
    match admin.facts.mirror.health() {
        Ok(()) => words(StatusCode::OK, "ready\n"),
        Err(reason) => words(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Pages that read files are made on a thread that may wait.
async fn off_the_runtime(admin: &Arc<Admin>, page: fn(&Admin) -> Page) -> Page {
    let admin = Arc::clone(admin);
    tokio::task::spawn_blocking(move || page(&admin)).await.unwrap_or_else(|_| {
        words(StatusCode::INTERNAL_SERVER_ERROR, "this page could not be made; the log says why\n")
    })
}

fn metrics_page(admin: &Admin) -> Page {
    match admin.metrics.page() {
        Ok(page) => typed(StatusCode::OK, metrics::CONTENT_TYPE, page),
        Err(error) => {
            words(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
        }
    }
}

fn stats_page(admin: &Admin) -> Page {
    match serde_json::to_string_pretty(&admin.facts.report()) {
        Ok(report) => typed(StatusCode::OK, "application/json", report + "\n"),
        Err(error) => {
            words(StatusCode::INTERNAL_SERVER_ERROR, format!("the report cannot be written: {error}\n"))
        }
    }
}

fn words(status: StatusCode, text: impl Into<Bytes>) -> Page {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    page
}

#[cfg(test)]
mod tests;
