//! Accepting connections, their limits, and ending well: no new ones, running bodies finished, never a reset. Must not
//! look at what is asked.

mod socket;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::pull::pull;
use crate::region::Regions;
use larder_wire::oci::{Code, ErrorBody};
use socket::Socket;

const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 << 10;
/// Clients that are told at one time that there is no room, at the most; beyond them connections are just closed.
const REFUSALS: usize = 32;
/// Index, listeners, lock and log.
const OWN_DESCRIPTORS: usize = 32;
/// After a failed accept (no descriptors, say): long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then until running bodies ended or `drain` is over.
pub(crate) async fn serve(
    cache: Arc<Cache>,
    listener: TcpListener,
    most: usize,
    stop: CancellationToken,
    drain: Duration,
) {
    if let Ok(address) = listener.local_addr() {
        cache.own.add(address);
    }
    let most = within_descriptors(most);
    let turned_away = Arc::new(Semaphore::new((most / 2).clamp(1, REFUSALS)));
    let tracker = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // With route_localnet a neighbour can reach 127.0.0.1; it gets no reply at all.
        if !peer.ip().to_canonical().is_loopback() {
            tracing::warn!(%peer, "a peer that is not on this node is dropped");
            continue;
        }
        let full = cache.connections() >= most as u64;
        if full && let Ok(turn) = Arc::clone(&turned_away).try_acquire_owned() {
            tracker.spawn(turn_away(stream, cache.node.clone(), most, turn));
        } else if !full {
            admit(&cache, stream, &tracker, &stop, &abort);
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(drain, tracker.wait()).await.is_err() {
        tracing::warn!(connections = cache.connections(), "running bodies are cut: the drain is over");
        abort.cancel();
        tracker.wait().await;
    }
}

fn admit(
    cache: &Arc<Cache>,
    stream: TcpStream,
    tracker: &TaskTracker,
    stop: &CancellationToken,
    abort: &CancellationToken,
) {
    let (cache, stop, abort) = (Arc::clone(cache), stop.clone(), abort.clone());
    let counted = cache.connected();
    tracker.spawn(async move {
        tokio::select! {
            () = connection(&cache, stream, stop) => {}
            () = abort.cancelled() => {}
        }
        drop(counted);
    });
}

/// One connection's life.
async fn connection(cache: &Arc<Cache>, stream: TcpStream, stop: CancellationToken) {
    // Without it a body's end may wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let regions = Arc::new(Regions::default());
    let rate = cache.client_rate.load(Ordering::Relaxed);
    let socket = Socket::new(stream, Arc::clone(&regions), rate, cache.tuning.rate_window);
    let service = service_fn(|request| {
        let (cache, regions) = (Arc::clone(cache), Arc::clone(&regions));
        async move { Ok::<_, std::convert::Infallible>(pull(&cache, request).await.map(|body| body.on(regions))) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(cache.tuning.header_time)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
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
        tracing::debug!(error = crate::stats::chain(&error), "a connection ended early");
    }
}

/// Every connection may need a second descriptor, for a file or an upstream; some are for ourselves.
fn within_descriptors(most: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let possible = (limit.saturating_sub(OWN_DESCRIPTORS) / 2).max(1);
    if possible < most {
        tracing::warn!(connections = possible, limit, "fewer connections than set: too few descriptors");
    }
    most.min(possible)
}

/// A clear refusal, bounded in time: the client asks the registry itself.
async fn turn_away(mut stream: TcpStream, node: String, most: usize, _turn: OwnedSemaphorePermit) {
    let words = format!("larder@{node}: all {most} connections are in use; containerd now goes direct.");
    let body = ErrorBody::new(Code::Unavailable, words).to_bytes();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let reply = [head.as_bytes(), &body].concat();
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        stream.write_all(&reply).await?;
        stream.shutdown().await?;
        // Read what was asked, so that closing does not reset what was said.
        let mut rest = [0; 1024];
        while tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}
