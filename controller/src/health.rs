//! The small pages: /livez, /readyz on one listener, /metrics on another. Must not do anything that could hang: a probe
//! asks whether this process answers, not whether the API server does.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::metrics::Metrics;

/// Probes and scrapers at once; more wait.
const CONNECTIONS: usize = 32;
const HEAD: Duration = Duration::from_secs(5);

/// What is served where.
pub enum Pages {
    /// `/livez`, and `/readyz` that is 503 while the flag is not set.
    Health(Arc<AtomicBool>),
    Metrics(Arc<Metrics>),
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, pages: Pages, stop: CancellationToken) {
    let (pages, permits) = (Arc::new(pages), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, perhaps: the next one may have better luck, but not at once.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (pages, stop) = (Arc::clone(&pages), stop.clone());
        tokio::spawn(async move {
            let service =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &pages))));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    debug!(%error, "a connection to the small pages ended");
                },
                () = stop.cancelled() => {}
            }
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path(), pages) {
        (&Method::GET | &Method::HEAD, "/livez", Pages::Health(_)) => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz", Pages::Health(ready)) => {
            match ready.load(Ordering::Relaxed) {
                true => (StatusCode::OK, "ok\n".to_owned()),
                false => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "not ready: the API server was not reached yet\n".to_owned(),
                ),
            }
        }
        (&Method::GET | &Method::HEAD, "/metrics", Pages::Metrics(metrics)) => match metrics.page() {
            Ok(page) => (StatusCode::OK, page),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        },
        _ => (StatusCode::NOT_FOUND, "no such page\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = match pages {
        Pages::Health(_) => "text/plain; charset=utf-8",
        Pages::Metrics(_) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
