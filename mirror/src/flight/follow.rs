//! One client's view of a stream: from where to where, how far it is, and what it may see. Must not be slower than it
//! must: the file is shared, a follower only waits for more of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::ReusableBoxFuture;

use super::relay;
use super::stream::{End, HELD_AT_MOST, Head, State, Stream, visible};
use crate::answer::body::{BodyError, Piece, piece};
use crate::error::UpstreamError;

pub(crate) struct Follower {
    stream: Arc<Stream>,
    id: u64,
    at: u64,
    /// One past the last byte wanted; `None`: to the end, wherever that is.
    end: Option<u64>,
    size: Option<u64>,
    head_at: Instant,
    changed: ReusableBoxFuture<'static, Option<watch::Receiver<State>>>,
    held: Option<Pin<Box<Sleep>>>,
    /// Whether the connection had a turn between the head and the failure.
    announced: bool,
}

impl Follower {
    pub(super) fn of(stream: Arc<Stream>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        stream.arrive();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        stream.relay.seen(id, 0);
        let changed = ReusableBoxFuture::new(change(stream.state.subscribe()));
        Self {
            stream,
            id,
            at: 0,
            end: None,
            size: None,
            head_at: Instant::now(),
            changed,
            held: None,
            announced: false,
        }
    }

    /// Waits for upstream's head.
    pub(crate) async fn head(&mut self) -> Result<Head, UpstreamError> {
        let head = self.stream.head().await?;
        if head.size == Some(0) {
            // There is nothing to hold back: a reply without bytes is whole with its head.
            self.stream.ended().await?;
        }
        (self.size, self.head_at) = (head.size, head.at);
        self.end = self.end.or(head.size);
        Ok(head)
    }

    /// Narrows to a range, in bytes from the start; only where the size is known.
    pub(crate) fn range(mut self, from: u64, to: u64) -> Self {
        (self.at, self.end) = (from, Some(to));
        self.stream.relay.seen(self.id, from);
        self
    }

    /// Bytes still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.end.map(|end| end - self.at)
    }

    /// The client was refused because this took too long.
    pub(crate) fn turn_away(&self) {
        self.stream.turn_away();
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        loop {
            if self.end.is_some_and(|end| self.at >= end) {
                return Poll::Ready(None);
            }
            let (limit, filed, end) = {
                let state = self.stream.state.borrow();
                (visible(&state, self.size, self.head_at.elapsed()), state.filed, state.end)
            };
            let limit = self.end.map_or(limit, |end| limit.min(end));
            if self.at < limit {
                return Poll::Ready(Some(self.take(limit, filed)));
            }
            match end {
                // One turn for the connection to send the head: a reply without one looks like a dead agent.
                End::Failed if !std::mem::replace(&mut self.announced, true) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                End::Failed => return Poll::Ready(Some(Err(BodyError::Fill))),
                End::Verified if self.end.is_none() => return Poll::Ready(None),
                // Upstream's length was larger than what came: nothing more will.
                End::Verified => return Poll::Ready(Some(Err(BodyError::Fill))),
                End::Running => ready!(self.poll_more(cx)),
            }
        }
    }

    fn take(&mut self, limit: u64, filed: u64) -> Result<Piece, BodyError> {
        let taken = match self.stream.region.get().filter(|_| self.at < filed) {
            Some(region) => piece(region, self.at, limit.min(filed)).map_err(BodyError::Read)?,
            None => match self.stream.relay.read(self.at, limit) {
                relay::Piece::Bytes(bytes) => Piece::Bytes(bytes),
                relay::Piece::Gone | relay::Piece::NotYet => return Err(BodyError::Fill),
            },
        };
        self.at += taken.len();
        self.stream.relay.seen(self.id, self.at);
        Ok(taken)
    }

    /// Waits for a change, or for the end of a small body's hold-back.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(receiver) = self.changed.poll(cx) {
            let receiver = receiver.unwrap_or_else(|| self.stream.state.subscribe());
            self.changed.set(change(receiver));
            return Poll::Ready(());
        }
        let until = self.head_at + HELD_AT_MOST;
        if Instant::now() >= until {
            return Poll::Pending;
        }
        self.held.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until))).as_mut().poll(cx)
    }
}

async fn change(mut receiver: watch::Receiver<State>) -> Option<watch::Receiver<State>> {
    receiver.changed().await.ok().map(|()| receiver)
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stream.relay.left(self.id);
        self.stream.leave();
    }
}
