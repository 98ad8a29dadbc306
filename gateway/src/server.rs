//! Accepting connections, plain or TLS, and ending well: no new ones, what is under way finished. Must not
//! look at what is asked.

mod socket;
pub mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::forward::chain;
use crate::serve::{self, Gateway, Origin};
use socket::Socket;
pub use tls::Tls;

/// One read of a request's body. Twice as much saves a tenth of the CPU and costs half as much memory again.
/// upload.
const BUFFER: usize = 64 << 10;
const HEADERS: usize = 128;
/// The longest head of a request.
const HEADER_BYTES: usize = 32 << 10;
/// How long a head may take, and how long a connection may wait for its next request.
const HEADER_TIME: Duration = Duration::from_secs(30);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at one time; each may need a second descriptor for the registry.
const CONNECTIONS: usize = 4096;
/// After a failed accept (no descriptors, say): long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then until what is under way has ended or `drain` is over.
pub async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
    drain: Duration,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (tracker, abort) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let (gateway, tls, stop, abort) = (Arc::clone(&gateway), tls.clone(), stop.clone(), abort.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = connection(gateway, stream, peer, tls, stop) => {}
                () = abort.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    tracker.close();
    if timeout(drain, tracker.wait()).await.is_err() {
        warn!(connections = tracker.len(), "what is still under way is cut: the drain is over");
        abort.cancel();
        tracker.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

async fn connection(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
) {
    let socket = Socket::new(stream);
    let origin = |scheme| Origin { remote: peer.ip(), scheme };
    let Some(tls) = tls else { return http(gateway, origin("http"), TokioIo::new(socket), stop).await };
    match timeout(HANDSHAKE, tls.accept(socket)).await {
        Ok(Ok(stream)) => http(gateway, origin("https"), TokioIo::new(stream), stop).await,
        Ok(Err(error)) => debug!(%peer, %error, "no TLS"),
        Err(_) => debug!(%peer, "no TLS in time"),
    }
}

/// Every request of one connection.
async fn http(
    gateway: Arc<Gateway>,
    origin: Origin,
    socket: impl Read + Write + Unpin + 'static,
    stop: CancellationToken,
) {
    let service = service_fn(|request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(serve::answer(&gateway, origin, request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(HEADERS)
        .max_header_size(HEADER_BYTES)
        .max_buf_size(BUFFER)
        .serve_connection(socket, service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(error = chain(&error), "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
