//! How many reviews the API server is asked for a second, and when those who come too early may come again: a
//! pure rule on a clock that is handed in.

use std::time::Duration;

use tokio::time::Instant;

/// A request may wait so long for its turn; beyond it the sender is told when to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Tokens that nobody knows leave the rest of the queue to those that were good before.
const LONGEST_WAIT_NEW: Duration = Duration::from_millis(500);
/// When those who are sent away may come again. An agent adds a fifth either way.
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(30);

/// Reviews a second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub at_rest: f64,
    /// For the first two minutes after this replica began to lead, when every token is new to it.
    pub warming: f64,
}

impl Default for Rates {
    /// 5,000 nodes known within two minutes of a restart, and never more than 20 a second after.
    fn default() -> Self {
        Self { at_rest: 20.0, warming: 60.0 }
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A token that was good before.
    Known,
    New,
}

/// Hands out turns, one after the other.
#[derive(Debug)]
pub(super) struct Pace {
    rates: Rates,
    warm: Option<Instant>,
    next: Option<Instant>,
    /// The time that was last given to somebody who was sent away.
    promised: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rates: Rates) -> Self {
        Self { rates, warm: None, next: None, promised: None }
    }

    /// Every token is new until then.
    pub(super) fn warm_until(&mut self, end: Instant) {
        self.warm = Some(end);
    }

    pub(super) fn is_warming(&self, now: Instant) -> bool {
        self.warm.is_some_and(|end| now < end)
    }

    /// When to ask, or after how long to come again.
    pub(super) fn turn(&mut self, asker: Asker, now: Instant) -> Result<Instant, Duration> {
        let (rate, longest) = match (self.is_warming(now), asker) {
            (true, _) => (self.rates.warming, LONGEST_WAIT),
            (false, Asker::Known) => (self.rates.at_rest, LONGEST_WAIT),
            (false, Asker::New) => (self.rates.at_rest, LONGEST_WAIT_NEW),
        };
        let gap = Duration::from_secs_f64(1.0 / rate);
        let turn = self.next.map_or(now, |next| next.max(now));
        if turn - now <= longest {
            self.next = Some(turn + gap);
            return Ok(turn);
        }
        // Each is given a turn of its own; when those reach too far, they begin again: whoever is sent away
        // twice has left a place.
        let promised = self.promised.map_or(now, |promised| promised + gap).max(now + SOONEST);
        let promised = if promised > now + LATEST { now + SOONEST } else { promised };
        self.promised = Some(promised);
        Err(promised - now)
    }
}

#[cfg(test)]
mod tests;
