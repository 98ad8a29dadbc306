//! What probes in a row mean: when our entries may go in, when they must go out, when to probe again. Pure: the clock
//! is handed in. Must not probe.

use std::time::{Duration, Instant};

use super::{Outcome, Reachable};
use crate::state::{Reason, Told};

/// Good probes before the first write.
const FIRST: u8 = 3;
const BETWEEN_FIRST: Duration = Duration::from_millis(300);
/// While no agent has been seen yet.
const WHILE_NONE: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(3);
/// Bad probes that take our entries out.
const TOO_MANY: u8 = 2;
/// Health before our entries come back after a failure.
const RECOVERY: Duration = Duration::from_secs(30);

/// The probes of one address so far.
#[derive(Debug)]
pub(crate) struct Health {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Never been well.
    New {
        good: u8,
        bad: u8,
    },
    Well {
        bad: u8,
    },
    Failed {
        well_since: Option<Instant>,
        why: Told,
    },
}

/// What to do about our entries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They belong in.
    In(Reachable),
    /// Not known: leave them as they are. What the last probe told, if it was bad.
    Unsure(Option<Told>),
    /// They belong out.
    Out(Told),
}

impl Health {
    pub(crate) const fn new() -> Self {
        Self { phase: Phase::New { good: 0, bad: 0 } }
    }

    /// Takes a probe's outcome in.
    pub(crate) fn judge(&mut self, outcome: Outcome, now: Instant) -> Verdict {
        match outcome {
            Outcome::Good(mirror) => self.good(Reachable { mirror, since: now }, now),
            Outcome::Bad(why) => self.bad(why),
        }
    }

    /// From the start of one probe to the start of the next.
    pub(crate) const fn pause(&self) -> Duration {
        match self.phase {
            Phase::New { good: 0, .. } => WHILE_NONE,
            Phase::New { .. } => BETWEEN_FIRST,
            Phase::Well { .. } | Phase::Failed { .. } => PERIOD,
        }
    }

    fn good(&mut self, reachable: Reachable, now: Instant) -> Verdict {
        match &mut self.phase {
            Phase::New { good, bad } => {
                (*good, *bad) = (*good + 1, 0);
                if *good < FIRST {
                    return Verdict::Unsure(None);
                }
            }
            Phase::Well { .. } => {}
            Phase::Failed { well_since, why } => {
                if now.saturating_duration_since(*well_since.get_or_insert(now)) < RECOVERY {
                    let words = "the agent answers again; our entry comes back after 30s of health";
                    return Verdict::Out(why.reason.because(words));
                }
            }
        }
        self.phase = Phase::Well { bad: 0 };
        Verdict::In(reachable)
    }

    fn bad(&mut self, why: Told) -> Verdict {
        let at_once = why.reason == Reason::Bypass;
        match &mut self.phase {
            Phase::New { good, bad } => {
                (*good, *bad) = (0, bad.saturating_add(1));
                if *bad < TOO_MANY && !at_once {
                    return Verdict::Unsure(Some(why));
                }
                if !at_once {
                    return Verdict::Out(why);
                }
            }
            Phase::Well { bad } => {
                *bad += 1;
                if *bad < TOO_MANY && !at_once {
                    return Verdict::Unsure(Some(why));
                }
            }
            Phase::Failed { .. } => {}
        }
        self.phase = Phase::Failed { well_since: None, why: why.clone() };
        Verdict::Out(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const MIRROR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 19500);

    fn bad() -> Outcome {
        Outcome::Bad(Reason::ProbeFailed.because("refused"))
    }

    fn told(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::In(_) => "in",
            Verdict::Unsure(_) => "unsure",
            Verdict::Out(_) => "out",
        }
    }

    /// A line of probes, each `(seconds since the start in tenths, good)`, and what each one meant.
    fn line(health: &mut Health, start: Instant, probes: &[(u64, bool)]) -> Vec<&'static str> {
        probes
            .iter()
            .map(|(tenths, good)| {
                let outcome = if *good { Outcome::Good(MIRROR) } else { bad() };
                told(&health.judge(outcome, start + Duration::from_millis(tenths * 100)))
            })
            .collect()
    }

    #[test]
    fn three_good_probes_in_a_row_come_before_the_first_write() {
        let (mut health, start) = (Health::new(), Instant::now());
        assert_eq!(line(&mut health, start, &[(0, true), (3, true)]), ["unsure", "unsure"]);
        assert_eq!(health.pause(), BETWEEN_FIRST);
        assert_eq!(line(&mut health, start, &[(6, false)]), ["unsure"]);
        assert_eq!(health.pause(), WHILE_NONE);
        assert_eq!(
            line(&mut health, start, &[(16, true), (19, true), (22, true)]),
            ["unsure", "unsure", "in"]
        );
        assert_eq!(health.pause(), PERIOD);
    }

    #[test]
    fn a_late_agent_needs_no_recovery() {
        let (mut health, start) = (Health::new(), Instant::now());
        let verdicts = line(
            &mut health,
            start,
            &[(0, false), (10, false), (20, false), (30, true), (33, true), (36, true)],
        );
        assert_eq!(verdicts, ["unsure", "out", "out", "unsure", "unsure", "in"]);
    }

    fn well(start: Instant) -> Health {
        let mut health = Health::new();
        line(&mut health, start, &[(0, true), (3, true), (6, true)]);
        health
    }

    #[test]
    fn one_bad_probe_is_forgiven_and_writes_nothing_two_take_out() {
        let start = Instant::now();
        let mut health = well(start);
        let probes = [(36, false), (66, true), (96, false), (126, false)];
        assert_eq!(line(&mut health, start, &probes), ["unsure", "in", "unsure", "out"]);
    }

    #[test]
    fn after_a_failure_it_takes_30_seconds_of_health() {
        let start = Instant::now();
        let mut health = well(start);
        line(&mut health, start, &[(36, false), (66, false)]);
        assert_eq!(line(&mut health, start, &[(100, true), (399, true), (400, true)]), ["out", "out", "in"]);
    }

    #[test]
    fn a_bad_probe_starts_the_recovery_again() {
        let start = Instant::now();
        let mut health = well(start);
        line(&mut health, start, &[(36, false), (66, false), (100, true), (380, false)]);
        assert_eq!(line(&mut health, start, &[(400, true), (699, true), (700, true)]), ["out", "out", "in"]);
    }

    #[test]
    fn bypass_takes_out_at_once_even_before_the_first_write() {
        let start = Instant::now();
        for mut health in [well(start), Health::new()] {
            let bypass = || Outcome::Bad(Reason::Bypass.because("set"));
            assert_eq!(health.judge(bypass(), start), Verdict::Out(Reason::Bypass.because("set")));
            assert_eq!(
                line(&mut health, start, &[(10, true), (300, true), (310, true)]),
                ["out", "out", "in"]
            );
        }
    }
}
