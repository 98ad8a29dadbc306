//! One body while it streams from one connection to another: counted, stopped where it outgrows what is
//! allowed, failed when nothing comes for too long. Must not buffer: a frame goes on as it came.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use super::BoxError;

/// The longest pause in a body, either way. There is no limit on the whole.
pub const IDLE: Duration = Duration::from_secs(30);

/// A body of which nothing came for [`IDLE`].
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {} s", IDLE.as_secs())]
pub struct Stalled;

/// What is known about a body that passes, for whoever sent it on.
#[derive(Debug, Default)]
pub struct Flow {
    bytes: AtomicU64,
    outgrown: AtomicBool,
    /// The sender's fault: it stopped sending, or its connection broke.
    broken: AtomicBool,
    /// The body's end, good or bad, or that nobody reads it any more.
    ended: AtomicBool,
    end: Notify,
}

/// The body itself.
pub struct Passing {
    body: Incoming,
    flow: Option<Told>,
    /// How many more bytes may pass. Beyond it the body ends, as if the sender had stopped.
    left: u64,
    /// Since when somebody waits for the next frame, and the alarm, which is set only once there is a wait.
    waiting: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    /// Let go with the body: permits and counts of the request that it belongs to.
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

/// A flow whose body is still there.
struct Told(Arc<Flow>);

impl Flow {
    /// Bytes that passed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whether the body was stopped because more came than was allowed.
    pub fn outgrown(&self) -> bool {
        self.outgrown.load(Ordering::Acquire)
    }

    /// Whether the body ended early because its sender stopped sending.
    pub fn broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Waits until nothing more will pass.
    pub async fn ended(&self) {
        let end = self.end.notified();
        let mut end = std::pin::pin!(end);
        end.as_mut().enable();
        if !self.ended.load(Ordering::Acquire) {
            end.await;
        }
    }

    fn finish(&self) {
        self.ended.store(true, Ordering::Release);
        self.end.notify_waiters();
    }
}

impl Passing {
    #[must_use]
    pub fn new(body: Incoming) -> Self {
        Self { body, flow: None, left: u64::MAX, waiting: None, alarm: None, _kept: None }
    }

    /// Tells `flow` what passes, and lets no more than `most` bytes pass.
    #[must_use]
    pub fn told(self, flow: Arc<Flow>, most: u64) -> Self {
        Self { flow: Some(Told(flow)), left: most, ..self }
    }

    /// Keeps something alive for as long as this body is.
    #[must_use]
    pub fn keeping(self, kept: impl Any + Send + Sync) -> Self {
        Self { _kept: Some(Box::new(kept)), ..self }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        if length > self.left {
            self.left = 0;
            if let Some(flow) = &self.flow {
                flow.outgrown.store(true, Ordering::Release);
                flow.finish();
            }
            return None;
        }
        self.left -= length;
        if let Some(flow) = &self.flow {
            flow.bytes.fetch_add(length, Ordering::AcqRel);
        }
        Some(frame)
    }

    fn broken(&self, error: BoxError) -> BoxError {
        if let Some(flow) = &self.flow {
            flow.broken.store(true, Ordering::Release);
        }
        error
    }

    fn stopped(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.outgrown())
    }

    /// Ready once somebody has waited for too long. The alarm is moved only when it rings, never for a frame.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(since + IDLE)));
        while alarm.as_mut().poll(cx).is_ready() {
            if since.elapsed() >= IDLE {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(since + IDLE);
        }
        Poll::Pending
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.stopped() {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.poll_stalled(cx));
            return Poll::Ready(Some(Err(self.broken(Stalled.into()))));
        };
        self.waiting = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => self.take(frame).map(Ok),
            Some(Err(error)) => Some(Err(self.broken(error.into()))),
            None => {
                if let Some(flow) = &self.flow {
                    flow.finish();
                }
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stopped() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::ops::Deref for Told {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        &self.0
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.finish();
    }
}
