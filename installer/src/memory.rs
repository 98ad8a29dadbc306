//! What the installer remembers between rounds: the probes, and of each registry when it was written, and how often
//! somebody else took our entry out again. Carries a plan out with it. The clock is handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use larder_wire::name::Registry;
use larder_wire::settings::{InstallerMode, Settings};

use crate::apply;
use crate::plan::{self, Decision, Known, Plan};
use crate::preflight::Ground;
use crate::probe::{Health, Outcome, Verdict};
use crate::restore;
use crate::state::{RegistryState, Standing, State};
use crate::swap::Done;
use crate::tree::Seen;

/// From one installing write of a registry to the next.
const BETWEEN_WRITES: Duration = Duration::from_secs(30);
/// Undoings by somebody else, this often within this time, are a fight.
const FIGHT: (usize, Duration) = (2, Duration::from_secs(600));

/// Everything that lives from round to round.
#[derive(Debug)]
pub(crate) struct Memory {
    health: Health,
    /// What `health` is about.
    mirror: Option<SocketAddr>,
    book: Book,
}

/// What happened to each registry.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Our entry was there at the end of the last round.
    in_place: BTreeSet<Registry>,
    once_in: BTreeSet<Registry>,
    recent: BTreeSet<Registry>,
    fought: BTreeSet<Registry>,
    written: BTreeMap<Registry, Instant>,
    undone: BTreeMap<Registry, Vec<Instant>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { health: Health::new(), mirror: None, book: Book::default() }
    }

    /// Takes a probe in. What was known of another address counts for nothing.
    pub(crate) fn judge(&mut self, outcome: Outcome, now: Instant) -> Verdict {
        if let Outcome::Good(mirror) = outcome
            && self.mirror.replace(mirror).is_some_and(|before| before != mirror)
        {
            self.health = Health::new();
        }
        self.health.judge(outcome, now)
    }

    /// From the start of this round to the start of the next.
    pub(crate) fn pause(&self) -> Duration {
        self.health.pause()
    }

    /// Begins anew with another certs.d: what was written to the one before says nothing about it.
    pub(crate) fn forget_writes(&mut self) {
        self.book = Book::default();
    }

    pub(crate) fn take_book(&mut self) -> Book {
        std::mem::take(&mut self.book)
    }

    pub(crate) fn put_book(&mut self, book: Book) {
        self.book = book;
    }
}

impl Book {
    /// Compares what lies there with how it was left.
    pub(crate) fn notice(&mut self, settings: &Settings, seen: &Seen, now: Instant) {
        for upstream in &settings.upstreams {
            let registry = &upstream.registry;
            if self.in_place.contains(registry) && plan::is_out(registry, seen) {
                tracing::warn!(%registry, "our entry was changed or taken out by somebody else");
                self.undone(registry, now);
            }
        }
        let recent = |at: &Instant| now.saturating_duration_since(*at) < BETWEEN_WRITES;
        self.recent =
            self.written.iter().filter(|(_, at)| recent(at)).map(|(name, _)| name.clone()).collect();
    }

    /// The part of what is known that stands in this book.
    pub(crate) fn known<'a>(&'a self, ground: &'a Ground, verdict: &'a Verdict) -> Known<'a> {
        let Self { recent, once_in, fought, .. } = self;
        Known { ground, verdict, mirror: None, recent, once_in, fought }
    }

    /// Does what was planned, and says how things stand then.
    pub(crate) fn carry_out(&mut self, plan: Plan, seen: &Seen, verdict: &Verdict, now: Instant) -> State {
        for stray in &plan.strays {
            let dir = stray.dir();
            match restore::remove(seen, stray) {
                Ok(Done::Written) => {
                    tracing::info!(dir, "took out the entry of a registry that is not wanted");
                }
                Ok(Done::Lost) => {}
                Err(error) => tracing::error!(dir, %error, "cannot take out the entry of a registry"),
            }
        }
        let registries =
            plan.decisions.into_iter().map(|decision| self.carry_out_one(decision, seen, verdict, now));
        State { registries: registries.collect() }
    }

    fn carry_out_one(
        &mut self,
        decision: Decision,
        seen: &Seen,
        verdict: &Verdict,
        now: Instant,
    ) -> RegistryState {
        let registry = &decision.registry;
        let done = match (&decision.removal, &decision.install, verdict) {
            (Some(removal), _, _) => restore::remove(seen, removal),
            (None, Some(install), Verdict::In(reachable)) => {
                let done = apply::install(seen, install, reachable);
                if !done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                    self.written.insert(registry.clone(), now);
                }
                done
            }
            _ => Ok(Done::Written),
        };
        let before = plan::is_in(registry, seen);
        let failed = match done {
            Ok(Done::Written) => None,
            Ok(Done::Lost) => {
                self.undone(registry, now);
                Some("somebody else wrote at the same time; looking again".to_owned())
            }
            Err(error) => Some(format!("cannot write to {}: {error}", seen.path.display())),
        };
        let due = decision.removal.is_some();
        let (standing, message) = match failed {
            None => (decision.standing, decision.message),
            Some(why) if due => (left(before), format!("{}; our entry is to go: {why}", decision.message)),
            Some(why) => (left(before), why),
        };
        if standing == Standing::Installed {
            self.in_place.insert(registry.clone());
            self.once_in.insert(registry.clone());
        } else {
            self.in_place.remove(registry);
        }
        let reason = decision.reason.filter(|_| due || standing == decision.standing);
        line(registry, standing, reason.map(|reason| reason.to_string()).unwrap_or_default(), message)
    }

    fn undone(&mut self, registry: &Registry, now: Instant) {
        self.in_place.remove(registry);
        let undone = self.undone.entry(registry.clone()).or_default();
        undone.retain(|at| now.saturating_duration_since(*at) < FIGHT.1);
        undone.push(now);
        if undone.len() >= FIGHT.0 {
            self.fought.insert(registry.clone());
        }
    }
}

/// When certs.d itself cannot be read.
pub(crate) fn unreadable(settings: &Settings, error: &io::Error) -> State {
    let message = format!("cannot read {}: {error}", settings.installer.certs_dir.display());
    let line = |registry| line(registry, Standing::Waiting, String::new(), message.clone());
    State { registries: settings.upstreams.iter().map(|upstream| line(&upstream.registry)).collect() }
}

/// After everything was taken out.
pub(crate) fn withdrawn(settings: &Settings, message: &str) -> State {
    let line = |registry| line(registry, Standing::Withdrawn, String::new(), message.to_owned());
    State { registries: settings.upstreams.iter().map(|upstream| line(&upstream.registry)).collect() }
}

/// Whether the installer may write to certs.d at all.
pub(crate) fn may_write(settings: &Settings) -> bool {
    settings.installer.mode != InstallerMode::Observe
}

/// Whether the installer takes its entries out when it stops.
pub(crate) fn leaves_nothing(settings: &Settings) -> bool {
    !settings.installer.keep_on_shutdown && may_write(settings)
}

/// What stands there when a write did not come about.
const fn left(before: bool) -> Standing {
    if before { Standing::Installed } else { Standing::Waiting }
}

fn line(registry: &Registry, standing: Standing, reason: String, message: String) -> RegistryState {
    RegistryState {
        registry: registry.to_string(),
        state: standing.to_string(),
        reason,
        message,
        since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
    }
}

#[cfg(test)]
mod tests;
