//! A report whose every value is possible: what a node may say, clamped to what a node can be. Pure; must not
//! refuse what an older or newer agent says.

use std::collections::{BTreeSet, HashSet};

use jiff::{SignedDuration, Timestamp};
use larder_wire::name::Registry;
use larder_wire::report::{Cache, RegistryReport, Report, Requests};

/// Registries that one agent serves.
const REGISTRIES: usize = 200;
/// No cache holds more, no agent moves more: an exbibyte.
const MOST: u64 = 1 << 60;
/// Letters of a version, a reason or an instance.
const WORD: usize = 64;
/// A node's clock may be off by so much without a word.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What was clamped, in one word each; the metric's `reason`.
pub type Clamped = BTreeSet<&'static str>;

/// A report that can be believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub node: String,
    pub version: String,
    /// Random, new at each start of the agent.
    pub instance: String,
    pub started: Option<Timestamp>,
    pub generation: u64,
    pub cache: Cache,
    /// Bytes, for whatever reason, since the agent's start.
    pub evicted: u64,
    pub registries: Vec<RegistryReading>,
}

/// One registry of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryReading {
    pub registry: String,
    pub counters: Counters,
    pub standing: Standing,
    /// The installer's word, or empty.
    pub reason: String,
    pub up: bool,
    pub ratelimit: Option<u64>,
    /// When a containerd last asked.
    pub seen: Option<Timestamp>,
}

/// What a node counts for one registry, since its agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were answered with content, wherever it came from.
    pub requests: u64,
    /// Those of them that asked no upstream, or followed one that did.
    pub hits: u64,
    pub served_bytes: u64,
    pub fetched_bytes: u64,
}

/// What stands in a node's certs.d for a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    Installed,
    Waiting,
    Withdrawn,
    External,
    Refused,
    /// No installer has told, or none that is understood.
    Untold,
}

impl Standing {
    /// As the report spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Waiting => "waiting",
            Self::Withdrawn => "withdrawn",
            Self::External => "external",
            Self::Refused => "refused",
            Self::Untold => "",
        }
    }
}

impl Reading {
    /// Believes a report as far as it can be.
    #[must_use]
    pub fn of(report: Report, now: Timestamp) -> (Self, Clamped) {
        let mut clamp = Clamp { clamped: Clamped::new(), now };
        let (evicted, mut listed) = (report.evicted_bytes, HashSet::new());
        let evicted =
            [evicted.ttl, evicted.size, evicted.free, evicted.corrupt].map(|bytes| clamp.number(bytes));
        let mut registries = Vec::with_capacity(report.registries.len().min(REGISTRIES));
        for told in report.registries {
            if registries.len() == REGISTRIES {
                clamp.count("registries");
                break;
            }
            if told.registry.len() > 255 || told.registry.parse::<Registry>().is_err() {
                clamp.count("registry");
            } else if listed.insert(told.registry.clone()) {
                registries.push(clamp.registry(told));
            } else {
                clamp.count("duplicate");
            }
        }
        let reading = Self {
            node: report.node,
            version: clamp.word(report.version),
            instance: clamp.word(report.instance),
            started: clamp.time(&report.started),
            generation: report.generation,
            cache: clamp.cache(&report.cache),
            evicted: evicted.iter().sum(),
            registries,
        };
        (reading, clamp.clamped)
    }
}

struct Clamp {
    clamped: Clamped,
    now: Timestamp,
}

impl Clamp {
    fn count(&mut self, reason: &'static str) {
        self.clamped.insert(reason);
    }

    fn number(&mut self, number: u64) -> u64 {
        if number > MOST {
            self.count("number");
        }
        number.min(MOST)
    }

    fn cache(&mut self, cache: &Cache) -> Cache {
        let capacity_bytes = self.number(cache.capacity_bytes);
        let mut within = |bytes: u64| {
            let bytes = self.number(bytes);
            if bytes > capacity_bytes && capacity_bytes > 0 {
                self.count("capacity");
                return capacity_bytes;
            }
            bytes
        };
        let (bytes, free_bytes) = (within(cache.bytes), within(cache.free_bytes));
        let blobs = self.number(cache.blobs);
        Cache { bytes, blobs, free_bytes, capacity_bytes, index_degraded: cache.index_degraded }
    }

    fn registry(&mut self, told: RegistryReport) -> RegistryReading {
        let Requests { cache, upstream, follow, stale, bypass, none: _ } = told.requests;
        let [cache, upstream, follow, stale, bypass] =
            [cache, upstream, follow, stale, bypass].map(|requests| self.number(requests));
        let hits = cache + follow + stale;
        let counters = Counters {
            requests: hits + upstream + bypass,
            hits,
            served_bytes: self.number(told.served_bytes),
            fetched_bytes: self.number(told.upstream_bytes),
        };
        RegistryReading {
            registry: told.registry,
            counters,
            standing: self.standing(&told.state),
            reason: self.word(told.reason),
            up: told.upstream_up,
            ratelimit: told.ratelimit_remaining.map(|left| self.number(left)),
            seen: told.containerd_seen.as_deref().and_then(|seen| self.time(seen)),
        }
    }

    fn standing(&mut self, state: &str) -> Standing {
        match state {
            "installed" => Standing::Installed,
            "waiting" => Standing::Waiting,
            "withdrawn" => Standing::Withdrawn,
            "external" => Standing::External,
            "refused" => Standing::Refused,
            "" => Standing::Untold,
            _ => {
                self.count("state");
                Standing::Untold
            }
        }
    }

    /// A short word without spaces, as versions, reasons and instances are.
    fn word(&mut self, text: String) -> String {
        if text.len() <= WORD && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return text;
        }
        self.count("text");
        text.chars().filter(char::is_ascii_graphic).take(WORD).collect()
    }

    /// A time that is not in the future; one that does not read is none.
    fn time(&mut self, text: &str) -> Option<Timestamp> {
        let time = text.parse::<Timestamp>().ok().filter(|_| text.len() <= WORD);
        if time.is_none_or(|time| time.duration_since(self.now) > SKEW) {
            self.count("time");
        }
        time.map(|time| time.min(self.now))
    }
}

#[cfg(test)]
mod tests;
