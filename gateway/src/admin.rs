//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/usage`, and `POST /events` for the registry's
//! notifications. Must not share limits with the pushes: probes are answered while they fill every place.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::events::{self, Events};
use crate::metrics::{self, Metrics};
use crate::tags::Tags;

const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long a notification may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;

/// What the pages are made of.
pub struct Admin {
    pub metrics: Arc<Metrics>,
    pub tags: Tags,
    pub events: Events,
    /// Read at each notification, so that it may change. Without one there are no notifications.
    pub events_token_file: Option<PathBuf>,
    /// Cancelled when the gateway begins to end.
    pub ending: CancellationToken,
}

type Page = Response<Full<Bytes>>;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (admin, stop) = (Arc::clone(&admin), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        ended = connection(stream, admin) => if let Err(error) = ended {
                            debug!(%error, "admin connection");
                        },
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

async fn connection(stream: TcpStream, admin: Arc<Admin>) -> hyper::Result<()> {
    let answer = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(answer(&admin, request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(64)
        .max_buf_size(32 * 1024)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer(admin: &Admin, request: Request<Incoming>) -> Page {
    let allowed: &[Method] = match request.uri().path() {
        "/livez" | "/readyz" | "/metrics" | "/usage" => &[Method::GET, Method::HEAD],
        "/events" => &[Method::POST],
        _ => {
            let pages = "no such page: /livez, /readyz, /metrics, /usage and /events are\n";
            return words(StatusCode::NOT_FOUND, pages);
        }
    };
    if !allowed.contains(request.method()) {
        let mut refused = words(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
        let methods = if allowed.len() == 1 { "POST" } else { "GET, HEAD" };
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        return refused;
    }
    match request.uri().path() {
        "/livez" => words(StatusCode::OK, "alive\n"),
        "/readyz" if admin.ending.is_cancelled() => {
            words(StatusCode::SERVICE_UNAVAILABLE, "ending: what is under way is finished\n")
        }
        "/readyz" => words(StatusCode::OK, "ready\n"),
        "/metrics" => metrics_page(admin),
        "/usage" => typed(StatusCode::OK, "application/json", admin.tags.usage().to_string() + "\n"),
        _ => notified(admin, request).await,
    }
}

fn metrics_page(admin: &Admin) -> Page {
    match admin.metrics.page() {
        Ok(page) => typed(StatusCode::OK, metrics::CONTENT_TYPE, page),
        Err(error) => {
            words(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
        }
    }
}

async fn notified(admin: &Admin, request: Request<Incoming>) -> Page {
    if !is_registry(request.headers().get(AUTHORIZATION), admin.events_token_file.as_ref()) {
        return words(StatusCode::UNAUTHORIZED, "notifications need the registry's bearer token\n");
    }
    let body = timeout(ARRIVAL, Limited::new(request.into_body(), events::MOST_BYTES).collect()).await;
    let Ok(Ok(body)) = body else {
        return words(StatusCode::BAD_REQUEST, "the notification is too long, or did not arrive\n");
    };
    if let Err(error) = admin.events.receive(&body.to_bytes()) {
        // The registry would send anything but a success again and again.
        debug!(%error, "a notification that cannot be read");
    }
    words(StatusCode::ACCEPTED, "")
}

fn is_registry(given: Option<&HeaderValue>, file: Option<&PathBuf>) -> bool {
    let Some(file) = file else { return false };
    let token = match std::fs::read_to_string(file) {
        Ok(token) => SecretString::from(token),
        Err(error) => {
            warn!(%error, file = %file.display(), "the token of notifications cannot be read");
            return false;
        }
    };
    let token = token.expose_secret().trim().as_bytes();
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    !token.is_empty() && given.is_some_and(|given| given.ct_eq(token).into())
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
