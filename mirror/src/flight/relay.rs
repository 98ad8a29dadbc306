//! Bytes that could not be filed, kept in memory until everybody who follows has them: what lets a pull go on when the
//! disk does not. Bounded; a follower that stands still for long is left behind and its body ends short.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::stream::SMALL_BODY;

/// What a large body may take; a small one, or one of unknown length, is held back whole and needs room for that.
const WINDOW: u64 = 2 << 20;
const SLACK: u64 = 2 << 20;
/// How long all others wait for a follower that does not move.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Relay {
    ring: Mutex<Ring>,
    limit: AtomicU64,
    moved: Notify,
}

#[derive(Default)]
struct Ring {
    /// Pieces with their offsets, without gaps.
    pieces: VecDeque<(u64, Bytes)>,
    bytes: u64,
    /// Whether a piece was thrown away: a newcomer would miss it.
    dropped: bool,
    /// How far each follower is.
    readers: HashMap<u64, u64>,
}

pub(super) enum Piece {
    Bytes(Bytes),
    /// It was thrown away.
    Gone,
    /// It has not come yet.
    NotYet,
}

impl Relay {
    pub(super) fn limit_for(&self, size: Option<u64>) {
        let large = size.is_some_and(|size| size > SMALL_BODY);
        self.limit.store(if large { WINDOW } else { SMALL_BODY + SLACK }, Ordering::Relaxed);
    }

    /// Adds bytes that begin at `at`, after waiting for room.
    pub(super) async fn push(&self, pieces: Vec<Bytes>, at: u64) {
        let mut at = at;
        for piece in pieces {
            let length = piece.len() as u64;
            self.make_room(length).await;
            let mut ring = self.ring();
            ring.bytes += length;
            ring.pieces.push_back((at, piece));
            at += length;
        }
    }

    pub(super) fn read(&self, at: u64, limit: u64) -> Piece {
        let ring = self.ring();
        let found = ring.pieces.iter().find(|(start, bytes)| at >= *start && at < start + bytes.len() as u64);
        match (found, ring.pieces.front()) {
            (Some((start, bytes)), _) => {
                let from = usize::try_from(at - start).unwrap_or(usize::MAX);
                let to = usize::try_from(limit.saturating_sub(*start)).unwrap_or(usize::MAX).min(bytes.len());
                Piece::Bytes(bytes.slice(from..to))
            }
            (None, Some((first, _))) if at < *first => Piece::Gone,
            (None, None) if ring.dropped => Piece::Gone,
            (None, _) => Piece::NotYet,
        }
    }

    /// Notes how far a follower is.
    pub(super) fn seen(&self, reader: u64, at: u64) {
        self.ring().readers.insert(reader, at);
        self.moved.notify_one();
    }

    pub(super) fn left(&self, reader: u64) {
        self.ring().readers.remove(&reader);
        self.moved.notify_one();
    }

    pub(super) fn whole(&self) -> bool {
        !self.ring().dropped
    }

    pub(super) fn clear(&self) {
        let mut ring = self.ring();
        ring.pieces.clear();
        (ring.bytes, ring.dropped) = (0, true);
    }

    async fn make_room(&self, length: u64) {
        let limit = self.limit.load(Ordering::Relaxed);
        loop {
            if self.ring().shed(length, limit) {
                return;
            }
            if tokio::time::timeout(PATIENCE, self.moved.notified()).await.is_err() {
                self.ring().leave_behind();
            }
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Throws away what everybody has. Whether there is room now.
    fn shed(&mut self, length: u64, limit: u64) -> bool {
        while self.bytes > 0 && self.bytes + length > limit {
            let slowest = self.readers.values().min().copied();
            let end = self.pieces.front().map(|(start, bytes)| start + bytes.len() as u64);
            match (slowest, end) {
                (Some(slowest), Some(end)) if slowest < end => return false,
                _ => self.drop_first(),
            }
        }
        true
    }

    /// Waits for those no longer who do not have the first piece: they find it gone.
    fn leave_behind(&mut self) {
        if let Some(end) = self.pieces.front().map(|(start, bytes)| start + bytes.len() as u64) {
            self.readers.retain(|_, at| *at >= end);
        }
        self.drop_first();
    }

    fn drop_first(&mut self) {
        if let Some((_, bytes)) = self.pieces.pop_front() {
            self.bytes -= bytes.len() as u64;
            self.dropped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn relay() -> Relay {
        let relay = Relay::default();
        relay.limit.store(10, Ordering::Relaxed);
        relay
    }

    fn text(relay: &Relay, at: u64, limit: u64) -> Option<Bytes> {
        match relay.read(at, limit) {
            Piece::Bytes(bytes) => Some(bytes),
            Piece::Gone | Piece::NotYet => None,
        }
    }

    #[tokio::test]
    async fn bytes_stay_until_the_slowest_has_them() {
        let relay = relay();
        relay.seen(1, 100);
        relay.seen(2, 100);
        relay.push(vec![Bytes::from_static(b"01234"), Bytes::from_static(b"56789")], 100).await;
        assert_eq!(text(&relay, 103, 200).unwrap(), "34");
        assert_eq!(text(&relay, 105, 107).unwrap(), "56");
        relay.seen(1, 110);
        assert!(
            relay.push(vec![Bytes::from_static(b"x")], 110).now_or_never().is_none(),
            "the other still needs it"
        );
        relay.seen(2, 105);
        relay.push(vec![Bytes::from_static(b"x")], 110).await;
        assert!(matches!(relay.read(100, 200), Piece::Gone) && !relay.whole());
        assert_eq!(text(&relay, 110, 200).unwrap(), "x");
        assert!(matches!(relay.read(111, 200), Piece::NotYet));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_still_is_left_behind() {
        let relay = relay();
        relay.seen(1, 0);
        relay.push(vec![Bytes::from_static(b"0123456789")], 0).await;
        relay.push(vec![Bytes::from_static(b"abc")], 10).await;
        assert!(matches!(relay.read(0, 100), Piece::Gone));
    }
}
