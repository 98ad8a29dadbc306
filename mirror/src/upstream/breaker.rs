//! When an upstream is left alone: after failures in a row, and for as long as it asked. Pure but for its lock; times come
//! in from outside. Must not send anything itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a request is for: one kind failing says nothing of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Token,
    Manifest,
    Blob,
}

/// Failures in a row after which a lane is closed.
const FAILURES: u32 = 5;
/// What a 429 without Retry-After counts as.
pub(crate) const QUIET: Duration = Duration::from_secs(60);
const LONGEST_QUIET: Duration = Duration::from_secs(3600);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Breakers(Mutex<State>);

#[derive(Default)]
struct State {
    failures: [u32; 3],
    open: [bool; 3],
    quiet_until: Option<Instant>,
    /// Whether a task already looks after the open lanes.
    probing: bool,
}

/// Why nothing is sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// The upstream asked for it, for so long still.
    Asked(Duration),
    /// It failed too often; a probe of our own finds out when it is back.
    Failing,
}

impl Breakers {
    pub(crate) fn pause(&self, lane: Lane, now: Instant) -> Option<Pause> {
        let state = self.state();
        if let Some(left) =
            state.quiet_until.and_then(|until| until.checked_duration_since(now)).filter(|d| !d.is_zero())
        {
            return Some(Pause::Asked(left));
        }
        state.open[lane as usize].then_some(Pause::Failing)
    }

    pub(crate) fn succeeded(&self, lane: Lane) {
        let mut state = self.state();
        state.failures[lane as usize] = 0;
    }

    /// Whether the caller must now start to probe.
    pub(crate) fn failed(&self, lane: Lane) -> bool {
        let mut state = self.state();
        state.failures[lane as usize] += 1;
        if state.failures[lane as usize] < FAILURES {
            return false;
        }
        state.open[lane as usize] = true;
        !std::mem::replace(&mut state.probing, true)
    }

    /// The upstream wants to be left alone; `None` when it does not say for how long.
    pub(crate) fn quiet(&self, wait: Option<Duration>, now: Instant) {
        let wait = wait.unwrap_or(QUIET).min(LONGEST_QUIET);
        let mut state = self.state();
        state.quiet_until = state.quiet_until.max(Some(now + wait));
    }

    /// A probe came through.
    pub(crate) fn recovered(&self) {
        let mut state = self.state();
        (state.failures, state.open, state.probing) = ([0; 3], [false; 3], false);
    }

    /// Whether requests would be sent.
    pub(crate) fn up(&self) -> bool {
        !self.state().open.contains(&true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait before probe number `attempt` (from 0): 1 s doubling to 60 s, all of it jitter. `random` in 0..1.
pub(crate) fn probe_pause(attempt: u32, random: f64) -> Duration {
    let longest = Duration::from_secs(1 << attempt.min(6)).min(LONGEST_PAUSE);
    longest.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_close_one_lane() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        for _ in 0..4 {
            assert!(!breakers.failed(Lane::Blob));
        }
        breakers.succeeded(Lane::Blob);
        for _ in 0..4 {
            assert!(!breakers.failed(Lane::Blob));
        }
        assert_eq!(breakers.pause(Lane::Blob, now), None);
        assert!(breakers.failed(Lane::Blob), "the first to notice starts the probe");
        assert!(!breakers.failed(Lane::Blob), "and nobody else");
        assert_eq!(breakers.pause(Lane::Blob, now), Some(Pause::Failing));
        assert_eq!(breakers.pause(Lane::Manifest, now), None);
        assert!(!breakers.up());
        breakers.recovered();
        assert!(breakers.up() && breakers.pause(Lane::Blob, now).is_none());
    }

    #[test]
    fn what_upstream_asked_for_is_kept() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        breakers.quiet(Some(Duration::from_secs(5)), now);
        breakers.quiet(None, now);
        let left = |at| breakers.pause(Lane::Manifest, now + Duration::from_secs(at));
        assert_eq!(left(0), Some(Pause::Asked(QUIET)));
        assert_eq!(left(59), Some(Pause::Asked(Duration::from_secs(1))));
        assert_eq!(left(60), None);
    }

    #[test]
    fn probes_back_off_to_a_minute_with_full_jitter() {
        assert_eq!(probe_pause(0, 1.0), Duration::from_secs(1));
        assert_eq!(probe_pause(3, 1.0), Duration::from_secs(8));
        assert_eq!(probe_pause(40, 1.0), Duration::from_secs(60));
        assert_eq!(probe_pause(40, 0.0), Duration::ZERO);
    }
}
