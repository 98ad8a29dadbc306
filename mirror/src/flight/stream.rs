//! A blob on its way in: what is known of it, how far it is, and who follows. The fill publishes, followers read. Must not
//! fetch or write anything.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::relay::Relay;
use super::{Follower, Role, lock};
use crate::error::UpstreamError;
use crate::region::Region;

/// What upstream's head said.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// Bytes; `None` where upstream did not say.
    pub size: Option<u64>,
    pub media_type: Option<String>,
    pub at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Running,
    /// All bytes are there, and they are the right ones.
    Verified,
    Failed,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub head: Option<Result<Head, UpstreamError>>,
    /// Bytes received and hashed.
    pub written: u64,
    /// How many of them, from the start, can be read from the file.
    pub filed: u64,
    pub end: End,
    pub error: Option<UpstreamError>,
}

/// Bodies up to here are held back whole until they are verified.
pub(crate) const SMALL_BODY: u64 = 8 << 20;
/// The end of a larger body, held back until it is verified.
pub(crate) const HELD_BACK: u64 = 64 << 10;
/// After so long even a small body streams, but for its end.
pub(super) const HELD_AT_MOST: Duration = Duration::from_secs(20);
/// What a fill that nobody follows may still fetch after somebody was turned away.
pub(crate) const UNWATCHED: u64 = 64 << 20;

pub(crate) struct Stream {
    pub(super) state: watch::Sender<State>,
    pub(super) region: OnceLock<Arc<Region>>,
    pub(super) relay: Relay,
    followers: AtomicUsize,
    turned_away: AtomicBool,
}

impl Stream {
    fn new() -> Arc<Self> {
        let state = State { head: None, written: 0, filed: 0, end: End::Running, error: None };
        Arc::new(Self {
            state: watch::Sender::new(state),
            region: OnceLock::new(),
            relay: Relay::default(),
            followers: AtomicUsize::new(0),
            turned_away: AtomicBool::new(false),
        })
    }

    /// Waits for the head, or for why there is none.
    pub(crate) async fn head(&self) -> Result<Head, UpstreamError> {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| state.head.is_some()).await;
        // What already failed is refused in words rather than by a body that never comes.
        known
            .ok()
            .and_then(|state| state.error.clone().map(Err).or_else(|| state.head.clone()))
            .unwrap_or(Err(UpstreamError::Abandoned))
    }

    /// Waits until the bytes are verified, or for why they are not.
    pub(super) async fn ended(&self) -> Result<(), UpstreamError> {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| state.end != End::Running).await;
        ended.ok().map_or(Err(UpstreamError::Abandoned), |state| state.error.clone().map_or(Ok(()), Err))
    }

    /// Bytes, where upstream's head came and told.
    pub(crate) fn size(&self) -> Option<u64> {
        self.state.borrow().head.as_ref()?.as_ref().ok()?.size
    }

    /// Publishes the head; `file` is where the bytes will be readable, if they will.
    pub(crate) fn start(&self, head: Head, file: Option<Arc<Region>>) {
        if let Some(region) = file {
            // A stream starts once.
            let _ = self.region.set(region);
        }
        self.relay.limit_for(head.size);
        self.state.send_modify(|state| state.head = Some(Ok(head)));
    }

    pub(crate) fn advance(&self, written: u64, filed: u64) {
        self.state.send_modify(|state| (state.written, state.filed) = (written, filed));
    }

    pub(crate) fn finish(&self) {
        self.state.send_modify(|state| state.end = End::Verified);
    }

    /// Ends the bodies of all followers short, or tells those who still wait for a head.
    pub(crate) fn fail(&self, error: UpstreamError) {
        self.state.send_modify(|state| {
            state.end = End::Failed;
            state.error = Some(error.clone());
            if state.head.is_none() {
                state.head = Some(Err(error));
            }
        });
        self.relay.clear();
    }

    /// Fails a stream that nobody ended.
    pub(crate) fn give_up(&self) {
        if self.state.borrow().end == End::Running {
            self.fail(UpstreamError::Abandoned);
        }
    }

    pub(crate) async fn relay(&self, bytes: Vec<bytes::Bytes>, at: u64) -> Result<(), UpstreamError> {
        self.relay.push(bytes, at).await;
        if self.unwatched() { Err(UpstreamError::Abandoned) } else { Ok(()) }
    }

    /// Whether its file could be read so far.
    pub(crate) fn readable(&self) -> bool {
        self.region.get().is_none_or(|region| !region.broken())
    }

    pub(crate) fn unwatched(&self) -> bool {
        self.followers.load(Ordering::Acquire) == 0
    }

    /// Whether the fill should end: somebody was sent elsewhere, nobody else is there, and it is large.
    pub(crate) fn not_worth(&self, size: Option<u64>, written: u64) -> bool {
        let large = size.is_some_and(|size| size > UNWATCHED) || written > UNWATCHED;
        large && self.unwatched() && self.turned_away.load(Ordering::Acquire)
    }

    /// A client was refused because this took too long.
    pub(crate) fn turn_away(&self) {
        self.turned_away.store(true, Ordering::Release);
    }

    /// Whether somebody new can still read it from its first byte on.
    fn whole(&self) -> bool {
        self.state.borrow().end != End::Failed && self.relay.whole()
    }

    pub(super) fn arrive(&self) {
        self.followers.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn leave(&self) {
        self.followers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How much of a stream may be shown. Pure: the hold-back rule.
pub(super) fn visible(state: &State, size: Option<u64>, held_for: Duration) -> u64 {
    match state.end {
        End::Verified => state.written,
        End::Failed => 0,
        End::Running => {
            let small = size.unwrap_or(state.written) <= SMALL_BODY;
            match size {
                _ if small && held_for < HELD_AT_MOST => 0,
                Some(size) => state.written.min(size.saturating_sub(HELD_BACK)),
                None => state.written.saturating_sub(HELD_BACK),
            }
        }
    }
}

/// The streams under way, by key.
pub(crate) struct Streams<K>(Mutex<HashMap<K, Arc<Stream>>>);

impl<K> Default for Streams<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Streams<K> {
    /// A follower of the stream for a key; `start` is called with a new stream where there is none.
    pub(crate) fn join(&self, key: &K, start: impl FnOnce(Arc<Stream>)) -> (Role, Follower) {
        let mut streams = lock(&self.0);
        if let Some(stream) = streams.get(key).filter(|stream| stream.whole()) {
            return (Role::Follower, Follower::of(Arc::clone(stream)));
        }
        let stream = Stream::new();
        streams.insert(key.clone(), Arc::clone(&stream));
        drop(streams);
        let follower = Follower::of(Arc::clone(&stream));
        start(stream);
        (Role::Leader, follower)
    }

    /// The stream under way for a key.
    pub(crate) fn find(&self, key: &K) -> Option<Arc<Stream>> {
        lock(&self.0).get(key).cloned()
    }

    /// Ends a flight: who comes later finds the blob in the store, or starts anew.
    pub(crate) fn end(&self, key: &K, stream: &Arc<Stream>) {
        let mut streams = lock(&self.0);
        if streams.get(key).is_some_and(|current| Arc::ptr_eq(current, stream)) {
            streams.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(written: u64, end: End) -> State {
        State { head: None, written, filed: written, end, error: None }
    }

    proptest! {
        #[test]
        fn an_unverified_body_is_never_shown_whole(
            size in proptest::option::of(0..40_u64 << 20), share in 0.0..=1.0_f64, held in 0..60_u64,
        ) {
            let total = size.unwrap_or(20 << 20);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a size")]
            let written = (total as f64 * share) as u64;
            let shown = visible(&state(written, End::Running), size, Duration::from_secs(held));
            prop_assert!(shown <= written);
            prop_assert!(shown == 0 || shown < total, "the end is held back");
            prop_assert!(shown == 0 || total > SMALL_BODY || held >= 20, "a small one is held back whole");
            prop_assert_eq!(visible(&state(written, End::Verified), size, Duration::ZERO), written);
            prop_assert_eq!(visible(&state(written, End::Failed), size, Duration::ZERO), 0);
        }
    }

    #[test]
    fn without_a_length_small_means_what_has_come_so_far() {
        let shown = |written| visible(&state(written, End::Running), None, Duration::ZERO);
        assert_eq!(shown(SMALL_BODY), 0);
        assert_eq!(shown(SMALL_BODY + 1), SMALL_BODY + 1 - HELD_BACK);
    }
}
