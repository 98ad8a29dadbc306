//! Accepting connections and their limits, and which story a request belongs to. Must not look into a request
//! beyond its method and path.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::answer::Answer;
use super::pages::Page;
use super::refuse::Refusal;
use super::{Leader, Reports};

/// Connections at once; more wait in the kernel.
const CONNECTIONS: usize = 512;
/// No connection takes requests for longer, so that none is held for ever.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// What is under way when a connection is to end has so long.
const DRAIN: Duration = Duration::from_secs(10);
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 32 << 10;

/// Serves until `stop`, then ends what is under way.
pub async fn serve(listener: TcpListener, reports: Arc<Reports>, stop: CancellationToken) {
    let (places, connections) = (Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
    connections.spawn(lead(Arc::clone(&reports), stop.clone()));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (reports, stop) = (Arc::clone(&reports), stop.clone());
                connections.spawn(async move {
                    connection(stream, reports, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: asking again at once would only burn time.
                warn!(%error, "a connection for reports could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// When this replica begins to lead, every token is new to it.
async fn lead(reports: Arc<Reports>, stop: CancellationToken) {
    let mut leader = reports.leader.clone();
    let led = stop.run_until_cancelled(leader.wait_for(|leader| *leader == Some(Leader::Me))).await;
    if matches!(led, Some(Ok(_))) {
        reports.reviewer.warm_up();
    }
}

async fn connection(stream: TcpStream, reports: Arc<Reports>, stop: CancellationToken) {
    // Without it an answer's end may wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let head_time = reports.limits.head;
    let service = service_fn(move |request| {
        let reports = Arc::clone(&reports);
        async move { Ok::<_, Infallible>(answer(&reports, request).await) }
    });
    let mut serving = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_time)
            .max_headers(HEADERS)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => Ok(ended),
        () = async { tokio::select! { () = stop.cancelled() => {}, () = sleep(CONNECTION_TIME) => {} } } => {
            serving.as_mut().graceful_shutdown();
            timeout(DRAIN, serving).await
        }
    };
    if let Ok(Err(error)) = ended {
        debug!(reason = crate::error::chain(&error), "a connection for reports ended early");
    }
}

/// The answer to a request, whatever it is.
async fn answer(reports: &Reports, request: Request<Incoming>) -> Response<Answer> {
    let path = request.uri().path();
    let page = [Page::Nodes, Page::Summary].into_iter().find(|page| page.path() == path);
    let (is_report, method) = (path == "/v1/reports", request.method());
    let answered = match page {
        None if !is_report => Err(Refusal::NoPage),
        None if method != Method::POST => Err(Refusal::Method("POST")),
        Some(_) if method != Method::GET => Err(Refusal::Method("GET")),
        page => led(reports, page, request).await,
    };
    if let (true, Err(refusal)) = (is_report, &answered) {
        debug!(reason = %refusal, "a report was not taken");
        reports.metrics.refused(refusal.reason());
    }
    let answer = answered.unwrap_or_else(|refusal| refusal.answer());
    let status = answer.status().as_u16();
    match page {
        None if is_report => reports.metrics.report(status),
        _ => reports.metrics.page(status),
    }
    answer
}

/// The leader answers itself; who does not lead asks it.
async fn led(
    reports: &Reports,
    page: Option<Page>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Refusal> {
    let leader = *reports.leader.borrow();
    match (leader, page) {
        (None, _) => Err(Refusal::NoLeader { again: super::forward::AGAIN }),
        (Some(Leader::Other(leader)), _) => reports.forward.pass_on(request, leader).await,
        (Some(Leader::Me), None) => reports.report(request).await,
        (Some(Leader::Me), Some(page)) => reports.page(page, request.headers(), request.uri()).await,
    }
}
