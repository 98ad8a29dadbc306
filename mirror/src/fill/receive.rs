//! Upstream's bytes, in order, whatever happens to the connection: a body that breaks off or stands still is taken up
//! again with Range and If-Range, through the registry's own URL. Must not look at the bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::Job;
use crate::error::UpstreamError;
use crate::upstream::{Ask, Reply, Upstream};

/// Before each resume without progress; when there is none left, the fill is given up.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(1)];
/// Small frames (TLS records) are gathered up to here before they are passed on.
const BATCH: usize = 512 << 10;

pub(super) struct Receiver {
    upstream: Arc<Upstream>,
    ask: Ask,
    idle: Duration,
    body: Option<Incoming>,
    /// Given back when the receiver goes, and while it waits for another.
    permit: Option<OwnedSemaphorePermit>,
    size: Option<u64>,
    media_type: Option<String>,
    etag: Option<HeaderValue>,
    at: u64,
    /// Bytes of the current body that were had before: the registry ignored the range.
    skip: u64,
    resumes: usize,
}

impl Receiver {
    pub(super) async fn open(job: &Job, idle: Duration) -> Result<Self, UpstreamError> {
        let ask = Ask::get(&job.repository, job.target.clone());
        let reply = job.upstream.ask(&ask).await?;
        Ok(Self {
            upstream: Arc::clone(&job.upstream),
            ask,
            idle,
            size: reply.length(),
            media_type: reply.media_type(),
            etag: reply.etag(),
            permit: reply.permit,
            body: Some(reply.response.into_body()),
            at: 0,
            skip: 0,
            resumes: 0,
        })
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    pub(super) fn media_type(&self) -> Option<String> {
        self.media_type.clone()
    }

    /// The next bytes, gathered; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, UpstreamError> {
        loop {
            let Some(first) = self.frame().await? else { return Ok(None) };
            let mut gathered = first.len();
            let mut batch = vec![first];
            while gathered < BATCH {
                // Only what is already there: waiting for more would keep followers waiting.
                let Some(frame) = self.body.as_mut().and_then(|body| body.frame().now_or_never()) else {
                    break;
                };
                let Some(bytes) = self.sort(frame).await? else { break };
                gathered += bytes.len();
                batch.push(bytes);
            }
            batch.retain(|bytes| !bytes.is_empty());
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let Some(body) = self.body.as_mut() else { return Ok(None) };
            let Ok(frame) = tokio::time::timeout(self.idle, body.frame()).await else {
                self.resume(UpstreamError::Idle(self.idle)).await?;
                continue;
            };
            match self.sort(frame).await? {
                Some(bytes) if bytes.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    /// What a frame means: bytes, the end, or a break that is mended. Empty bytes: look again.
    async fn sort(
        &mut self,
        frame: Option<Result<http_body::Frame<Bytes>, hyper::Error>>,
    ) -> Result<Option<Bytes>, UpstreamError> {
        match frame {
            Some(Ok(frame)) => Ok(Some(frame.into_data().map(|bytes| self.count(bytes)).unwrap_or_default())),
            Some(Err(error)) => {
                self.resume(UpstreamError::Broken(Arc::new(error))).await?;
                Ok(Some(Bytes::new()))
            }
            None => {
                self.body = None;
                Ok(None)
            }
        }
    }

    fn count(&mut self, mut bytes: Bytes) -> Bytes {
        self.upstream.stats.fetched_bytes.inc_by(bytes.len() as u64);
        let had = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= had as u64;
        let fresh = bytes.split_off(had);
        if !fresh.is_empty() {
            self.at += fresh.len() as u64;
            self.resumes = 0;
        }
        fresh
    }

    /// Asks for the rest, after a pause. The permit goes back meanwhile: who waits for one while holding one may wait for
    /// ever.
    async fn resume(&mut self, broken: UpstreamError) -> Result<(), UpstreamError> {
        (self.body, self.permit) = (None, None);
        self.upstream.failed(self.ask.target.lane());
        let mut broken = broken;
        loop {
            let Some(pause) = PAUSES.get(self.resumes) else { return Err(broken) };
            self.resumes += 1;
            tokio::time::sleep(*pause).await;
            let registry = &self.upstream.settings.registry;
            tracing::info!(%registry, at = self.at, "upstream's body broke off; going on from there");
            let ask = Ask { resume: (self.at > 0).then(|| (self.at, self.etag.clone())), ..self.ask.clone() };
            match self.upstream.ask(&ask).await {
                Ok(reply) => {
                    self.skip = self.starts_before(&reply)?;
                    self.permit = reply.permit;
                    self.body = Some(reply.response.into_body());
                    return Ok(());
                }
                Err(error) if error.is_failure() => broken = error,
                Err(error) => return Err(error),
            }
        }
    }

    /// How many bytes of a resumed reply were had before. A reply that is not the rest of the same thing is refused.
    fn starts_before(&self, reply: &Reply) -> Result<u64, UpstreamError> {
        if reply.response.status() != StatusCode::PARTIAL_CONTENT {
            let same = self.size.is_none() || reply.length().is_none() || reply.length() == self.size;
            return if same {
                Ok(self.at)
            } else {
                Err(UpstreamError::Unusable("it changed its length between two tries"))
            };
        }
        let (start, total) =
            reply.content_range().ok_or(UpstreamError::Unusable("it sent a range without saying which"))?;
        let same = total.is_none() || self.size.is_none() || total == self.size;
        match self.at.checked_sub(start) {
            Some(had) if same => Ok(had),
            _ => Err(UpstreamError::Unusable("it sent another range than was asked for")),
        }
    }
}
