//! Counters that begin again with each start of an agent, and their sums over the last day, an hour a step.
//! Must never go back, whatever the order in which reports come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::reports::reading::Counters;

const HOUR: i64 = 3600;
const HOURS: i64 = 24;
/// Registries whose sums are kept for one NodeCache.
const REGISTRIES: usize = 1000;
/// No node does more in a second; a report that says so is not believed beyond it.
const MOST_BYTES: u64 = 64 << 30;
const MOST_REQUESTS: u64 = 1_000_000;
/// Reports may come in quick succession after a pause of the network.
const SHORTEST: Duration = Duration::from_secs(60);

impl Counters {
    fn with(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: each(self.requests, other.requests),
            hits: each(self.hits, other.hits),
            served_bytes: each(self.served_bytes, other.served_bytes),
            fetched_bytes: each(self.fetched_bytes, other.fetched_bytes),
        }
    }

    /// What was counted since `base`; a counter that went back counts nothing.
    pub(super) fn since(self, base: Self) -> Self {
        self.with(base, u64::saturating_sub)
    }

    /// The base for the next report. A report that was overtaken by a later one does not set it back.
    pub(super) fn or_later(self, base: Self) -> Self {
        self.with(base, u64::max)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// No more than a node can do in that time.
    pub(super) fn within(self, time: Duration) -> Self {
        let (requests, bytes) = most(time);
        let most = Self { requests, hits: requests, served_bytes: bytes, fetched_bytes: bytes };
        self.with(most, u64::min)
    }

    /// Hits of all requests, from 0 to 1; `None` before the first request.
    #[expect(clippy::cast_precision_loss, reason = "a ratio is shown with two decimals")]
    pub(super) fn hit_ratio(self) -> Option<f64> {
        (self.requests > 0).then(|| (self.hits as f64 / self.requests as f64).min(1.0))
    }
}

/// Requests and bytes that a node may count in that time.
fn most(time: Duration) -> (u64, u64) {
    let seconds = time.max(SHORTEST).as_secs();
    (MOST_REQUESTS.saturating_mul(seconds), MOST_BYTES.saturating_mul(seconds))
}

/// Evicted bytes that a node may count in that time.
pub(super) fn evicted_within(bytes: u64, time: Duration) -> u64 {
    bytes.min(most(time).1)
}

/// Sums of the last 24 hours.
#[derive(Debug, Default)]
pub(super) struct Book {
    registries: HashMap<Arc<str>, Ring<Counters>>,
    evicted: Ring<u64>,
}

impl Book {
    pub(super) fn add(&mut self, now: Timestamp, growth: &[(Arc<str>, Counters)], evicted: u64) {
        for (registry, growth) in growth.iter().filter(|(_, growth)| *growth != Counters::default()) {
            if !self.registries.contains_key(registry) && self.registries.len() >= REGISTRIES {
                self.registries.retain(|_, ring| !ring.is_over(now));
                if self.registries.len() >= REGISTRIES {
                    continue;
                }
            }
            self.registries.entry(Arc::clone(registry)).or_default().add(now, |sum| *sum = sum.plus(*growth));
        }
        if evicted > 0 {
            self.evicted.add(now, |sum| *sum = sum.saturating_add(evicted));
        }
    }

    pub(super) fn registry(&self, registry: &str, now: Timestamp) -> Counters {
        self.registries.get(registry).map_or_else(Counters::default, |ring| ring.counters(now))
    }

    pub(super) fn all(&self, now: Timestamp) -> Counters {
        self.registries.values().fold(Counters::default(), |sum, ring| sum.plus(ring.counters(now)))
    }

    pub(super) fn evicted_bytes(&self, now: Timestamp) -> u64 {
        self.evicted.last_day(now).fold(0, |sum: u64, step| sum.saturating_add(*step))
    }
}

/// When the sums of `now` begin.
pub(super) fn begins(now: Timestamp) -> Timestamp {
    Timestamp::from_second((hour(now) - HOURS + 1) * HOUR).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn hour(at: Timestamp) -> i64 {
    at.as_second().div_euclid(HOUR)
}

/// One step for each hour in which something was counted, the oldest first.
#[derive(Debug, Default)]
struct Ring<T> {
    steps: VecDeque<(i64, T)>,
}

impl<T: Default> Ring<T> {
    fn add(&mut self, now: Timestamp, count: impl FnOnce(&mut T)) {
        let hour = hour(now);
        self.steps.retain(|(at, _)| *at > hour - HOURS);
        // A clock that was set back counts on in the hour it had reached.
        if self.steps.back().is_none_or(|(at, _)| *at < hour) {
            self.steps.push_back((hour, T::default()));
        }
        if let Some((_, step)) = self.steps.back_mut() {
            count(step);
        }
    }

    fn last_day(&self, now: Timestamp) -> impl Iterator<Item = &T> {
        let hour = hour(now);
        self.steps.iter().filter(move |(at, _)| *at > hour - HOURS).map(|(_, step)| step)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.last_day(now).next().is_none()
    }
}

impl Ring<Counters> {
    fn counters(&self, now: Timestamp) -> Counters {
        self.last_day(now).fold(Counters::default(), |sum, step| sum.plus(*step))
    }
}

#[cfg(test)]
mod tests;
