//! One node as it last reported, and what the next report adds to it. Must not judge whether that is well.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use larder_wire::report::Cache;

use super::health::Health;
use super::names::Names;
use super::{Reading, elapsed, usage};
use crate::reports::reading::{Counters, RegistryReading, Standing};

/// Registries that a node dropped from its settings, whose counters go on when they come back.
const UNLISTED: usize = 32;

/// A node; some hundred bytes and a hundred a registry.
#[derive(Debug)]
pub(super) struct Node {
    /// Stand for the agent's random word: counters begin again with it.
    instance: u64,
    previous: Option<u64>,
    pub(super) version: Arc<str>,
    pub(super) generation: u64,
    /// Since when the generation is not the desired one.
    pub(super) behind: Option<Timestamp>,
    pub(super) last: Timestamp,
    pub(super) cache: Cache,
    /// Cumulative, as reported.
    pub(super) evicted: u64,
    pub(super) entries: Box<[Entry]>,
    unlisted: Vec<(Arc<str>, Counters)>,
    /// Whether pods were started there, and when that was looked up.
    pub(super) pods: Option<(bool, Timestamp)>,
    /// The node is known to run something else.
    pub(super) no_containerd: bool,
    pub(super) health: Health,
    /// Since when `health` is so.
    pub(super) since: Timestamp,
    /// What was last told of it.
    pub(super) told: Option<u64>,
}

/// What a node says of one registry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) registry: Arc<str>,
    /// Cumulative, as reported.
    pub(super) counters: Counters,
    pub(super) standing: Standing,
    pub(super) reason: Arc<str>,
    /// Since when standing and reason are seen to be so.
    pub(super) since: Timestamp,
    /// The entry was written later than this; `None` when it was there at the first report.
    written_after: Option<Timestamp>,
    /// When a containerd last asked, on the node's clock.
    pub(super) seen: Option<Timestamp>,
    pub(super) up: bool,
    pub(super) ratelimit: Option<u64>,
}

/// How the counters of a report were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A node that reported before we began: what it counted until now is the base.
    Base,
    /// A new start of the agent: all it has counted is new.
    Whole,
    /// What was added since the report before.
    Growth,
    /// Overtaken by the agent's next start: nothing.
    Overtaken,
}

/// What a report adds to the sums.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) counted: Counted,
    pub(super) growth: Vec<(Arc<str>, Counters)>,
    pub(super) evicted: u64,
    pub(super) absurd: bool,
}

impl Node {
    /// A node's first report. An agent that was started after `began` has told nobody yet what it counted.
    pub(super) fn first(
        reading: Reading,
        names: &mut Names,
        began: Timestamp,
        now: Timestamp,
    ) -> (Self, Taken) {
        let started = reading.started.filter(|started| *started > began);
        let mut node = Self {
            instance: fingerprint(&reading.instance),
            previous: None,
            version: names.of(&reading.version),
            generation: reading.generation,
            behind: None,
            last: now,
            cache: Cache::default(),
            evicted: 0,
            entries: Box::default(),
            unlisted: Vec::new(),
            pods: None,
            no_containerd: false,
            health: Health::Pending,
            since: now,
            told: None,
        };
        let time = started.map_or(Duration::ZERO, |started| elapsed(started, now));
        let counted = if started.is_some() { Counted::Whole } else { Counted::Base };
        let taken = node.apply(reading, names, counted, time, Age { known: None, now });
        (node, taken)
    }

    /// The next report.
    pub(super) fn take(&mut self, reading: Reading, names: &mut Names, now: Timestamp) -> Taken {
        let instance = fingerprint(&reading.instance);
        let (before, time) = (self.last, elapsed(self.last, now));
        self.last = self.last.max(now);
        if self.previous == Some(instance) {
            return Taken { counted: Counted::Overtaken, growth: Vec::new(), evicted: 0, absurd: false };
        }
        let counted = if self.instance == instance { Counted::Growth } else { Counted::Whole };
        if counted == Counted::Whole {
            self.previous = Some(std::mem::replace(&mut self.instance, instance));
            self.evicted = 0;
            self.unlisted.clear();
            for entry in &mut self.entries {
                entry.counters = Counters::default();
            }
        }
        self.apply(reading, names, counted, time, Age { known: Some(before), now })
    }

    fn apply(
        &mut self,
        reading: Reading,
        names: &mut Names,
        counted: Counted,
        time: Duration,
        age: Age,
    ) -> Taken {
        let mut taken = Taken { counted, growth: Vec::new(), evicted: 0, absurd: false };
        let mut old = std::mem::take(&mut self.entries).into_vec();
        let mut entries = Vec::with_capacity(reading.registries.len());
        for told in reading.registries {
            let before =
                old.iter().position(|old| *old.registry == *told.registry).map(|at| old.swap_remove(at));
            let unlisted = self.unlisted.iter().position(|(registry, _)| **registry == *told.registry);
            let unlisted = unlisted.map(|at| self.unlisted.swap_remove(at).1);
            let base = before.as_ref().map(|before| before.counters).or(unlisted).unwrap_or_default();
            let entry = Entry::next(told, before, base, names, age);
            if counted != Counted::Base {
                let growth = entry.counters.since(base);
                let believed = growth.within(time);
                taken.absurd |= believed != growth;
                taken.growth.push((Arc::clone(&entry.registry), believed));
            }
            entries.push(entry);
        }
        self.unlisted.extend(old.into_iter().map(|old| (old.registry, old.counters)));
        self.unlisted.truncate(UNLISTED);
        if counted != Counted::Base {
            let evicted = reading.evicted.saturating_sub(self.evicted);
            taken.evicted = usage::evicted_within(evicted, time);
            taken.absurd |= taken.evicted != evicted;
        }
        self.evicted = self.evicted.max(reading.evicted);
        (self.entries, self.cache) = (entries.into(), reading.cache);
        (self.version, self.generation) = (names.of(&reading.version), reading.generation);
        if self.is_in_use() || !self.entries.iter().any(Entry::is_in) {
            self.pods = None;
        }
        taken
    }

    /// Measures the node by the desired generation.
    pub(super) fn follow(&mut self, desired: u64, now: Timestamp) {
        self.behind = (self.generation != desired).then(|| self.behind.unwrap_or(now));
    }

    pub(super) fn judged(&mut self, health: Health, now: Timestamp) {
        if self.health != health {
            self.since = if health == Health::SILENT { self.last } else { now };
            self.health = health;
        }
    }

    /// Every registry has its entry.
    pub(super) fn is_installed(&self) -> bool {
        !self.entries.is_empty() && self.entries.iter().all(Entry::is_in)
    }

    /// A containerd asked since an entry was written.
    pub(super) fn is_in_use(&self) -> bool {
        self.entries.iter().any(Entry::is_in_use)
    }

    pub(super) fn is_silent(&self) -> bool {
        self.health == Health::SILENT
    }
}

/// When a report came, and when the one before.
#[derive(Clone, Copy)]
struct Age {
    known: Option<Timestamp>,
    now: Timestamp,
}

impl Entry {
    fn next(
        told: RegistryReading,
        before: Option<Self>,
        base: Counters,
        names: &mut Names,
        age: Age,
    ) -> Self {
        let same = before
            .as_ref()
            .filter(|before| before.standing == told.standing && *before.reason == *told.reason)
            .map(|before| before.since);
        let written_after = match &before {
            Some(before) if before.is_in() => before.written_after,
            _ => age.known,
        };
        Self {
            registry: names.of(&told.registry),
            counters: told.counters.or_later(base),
            standing: told.standing,
            reason: names.of(&told.reason),
            since: same.unwrap_or(age.now),
            written_after,
            seen: told.seen.max(before.and_then(|before| before.seen)),
            up: told.up,
            ratelimit: told.ratelimit,
        }
    }

    /// containerd finds its way to the agent by it, whoever wrote it.
    pub(super) fn is_in(&self) -> bool {
        matches!(self.standing, Standing::Installed | Standing::External)
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.is_in() && self.seen.is_some_and(|seen| self.written_after.is_none_or(|written| seen >= written))
    }
}

fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
