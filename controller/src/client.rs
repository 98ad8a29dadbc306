//! The way to the API server: a token bucket as `--kube-api-qps` and `--kube-api-burst` ask for, a deadline for
//! everything but watches, and a count of every answer. Must not know any object.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::{Instant, sleep_until, timeout};
use tower::{BoxError, Layer, Service};

use crate::metrics::Metrics;

/// How long an answer may take that is not a watch.
const ANSWER: Duration = Duration::from_secs(30);

/// How long the Lease's renewal may take: well within the time that it has.
const LEASE_ANSWER: Duration = Duration::from_secs(4);

/// The stories' client.
///
/// # Errors
/// When the kubeconfig's certificates or proxy cannot be used.
pub fn limited(config: Config, qps: f64, burst: u32, metrics: Arc<Metrics>) -> kube::Result<Client> {
    let layer =
        Limit { bucket: Some(Arc::new(Mutex::new(Bucket::new(qps, burst)))), answer: ANSWER, metrics };
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// A client of its own for the Lease: never queued behind the stories, never retried past the Lease's end.
///
/// # Errors
/// As [`limited`].
pub fn for_lease(mut config: Config, metrics: Arc<Metrics>) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(LEASE_ANSWER);
    // The layer's deadline ends with the head; a body that stalls must not hold up a renewal either.
    config.read_timeout = Some(LEASE_ANSWER);
    let layer = Limit { bucket: None, answer: LEASE_ANSWER, metrics };
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

#[derive(Clone)]
struct Limit {
    bucket: Option<Arc<Mutex<Bucket>>>,
    answer: Duration,
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Limit {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, limit: self.clone() }
    }
}

struct Limited<S> {
    inner: S,
    limit: Limit,
}

/// No answer within the time that one may take.
#[derive(Debug, thiserror::Error)]
#[error("the API server gave no answer in {}s", .0.as_secs())]
struct NoAnswer(Duration);

impl<S, B> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(task).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let turn = self
            .limit
            .bucket
            .as_ref()
            .map(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner).reserve(Instant::now()));
        let verb = verb(&request);
        let (answer, metrics) = (self.limit.answer, Arc::clone(&self.limit.metrics));
        let asked = self.inner.call(request);
        Box::pin(async move {
            if let Some(turn) = turn {
                sleep_until(turn).await;
            }
            let answered = match verb {
                Verb::Watch => asked.await.map_err(Into::into),
                _ => match timeout(answer, asked).await {
                    Ok(answered) => answered.map_err(Into::into),
                    Err(_) => Err(NoAnswer(answer).into()),
                },
            };
            metrics.api_request(
                verb.as_str(),
                answered.as_ref().map_or(0, |response| response.status().as_u16()),
            );
            answered
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Read,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

fn verb<B>(request: &Request<B>) -> Verb {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    match request.method().as_str() {
        "POST" => Verb::Create,
        "PUT" => Verb::Update,
        "PATCH" => Verb::Patch,
        "DELETE" => Verb::Delete,
        _ if pairs.any(|pair| matches!(pair, "watch=true" | "watch=1")) => Verb::Watch,
        _ => Verb::Read,
    }
}

/// client-go's rule: `burst` at once, then `qps` a second, in the order of asking.
#[derive(Debug)]
struct Bucket {
    every: Duration,
    burst: u32,
    /// When the bucket will have been full again.
    full_at: Option<Instant>,
}

impl Bucket {
    fn new(qps: f64, burst: u32) -> Self {
        Self { every: Duration::from_secs_f64(1.0 / qps), burst, full_at: None }
    }

    /// Takes a token, and says when it may be used.
    fn reserve(&mut self, now: Instant) -> Instant {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + self.every;
        self.full_at = Some(full_at);
        full_at.checked_sub(self.every * self.burst).map_or(now, |turn| turn.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let (mut bucket, now) = (Bucket::new(10.0, 3), Instant::now());
        let waits: Vec<u128> = (0..6).map(|_| (bucket.reserve(now) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(10);
        let waits: Vec<u128> = (0..4).map(|_| (bucket.reserve(later) - later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100], "rest fills the bucket, and no further");
    }

    #[test]
    fn a_watch_is_known_by_its_query() {
        let of =
            |method: &str, uri: &str| verb(&Request::builder().method(method).uri(uri).body(()).unwrap());
        assert_eq!(of("GET", "/api/v1/nodes?watch=true&resourceVersion=7"), Verb::Watch);
        assert_eq!(of("GET", "/api/v1/nodes?limit=500"), Verb::Read);
        assert_eq!(of("PATCH", "/api/v1/nodes/n?force=true"), Verb::Patch);
    }
}
