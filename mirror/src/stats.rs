//! Counters, and the one log line of each request. Handles are resolved once per registry, so that a hit costs a few
//! atomic additions. Label values are registries and fixed words, never a repository, tag or digest.

mod account;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry as Metrics;
use rustix::io::Errno;

use crate::evict::Reason;

pub(crate) use account::{Account, Entry, chain};

/// What was asked for; the metrics' `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest,
    Tag,
    Blob,
    List,
}

/// Where an answer came from; the metrics' `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Cache,
    /// The client that started the fill.
    Upstream,
    Follow,
    Stale,
    Bypass,
    /// Refused.
    None,
}

const KINDS: [Kind; 4] = [Kind::Manifest, Kind::Tag, Kind::Blob, Kind::List];
const SOURCES: [Source; 6] =
    [Source::Cache, Source::Upstream, Source::Follow, Source::Stale, Source::Bypass, Source::None];
const REASONS: [Reason; 4] = [Reason::Ttl, Reason::Size, Reason::Free, Reason::Corrupt];
const STORE_ERRORS: [&str; 4] = ["enospc", "eio", "erofs", "other"];

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;

/// All counters of a mirror.
pub(crate) struct Stats {
    requests: Counters,
    served: Counters,
    asked: Counters,
    fetched: Counters,
    stale: Counters,
    mismatches: Counters,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    registries: Mutex<HashMap<String, Arc<RegistryStats>>>,
    pub(crate) store: Arc<StoreStats>,
}

/// What is counted for one registry; `-` stands for requests that belong to none.
pub(crate) struct RegistryStats {
    pub name: String,
    requests: [[Counter; SOURCES.len()]; KINDS.len()],
    served: [Counter; SOURCES.len()],
    durations: [[Histogram; SOURCES.len()]; KINDS.len()],
    asked: Counters,
    pub fetched_bytes: Counter,
    pub stale: Counter,
    pub mismatches: Counter,
    /// Seconds since 1970 at which a containerd last asked; 0 before it did.
    pub containerd_seen: AtomicU64,
}

pub(crate) struct StoreStats {
    evicted_bytes: [Counter; REASONS.len()],
    evicted_blobs: [Counter; REASONS.len()],
    errors: [Counter; STORE_ERRORS.len()],
    families: [Counters; 3],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            requests: Counters::default(),
            served: Counters::default(),
            asked: Counters::default(),
            fetched: Counters::default(),
            stale: Counters::default(),
            mismatches: Counters::default(),
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 4.0, 10))),
            registries: Mutex::default(),
            store: Arc::default(),
        }
    }
}

impl Stats {
    /// A registry's counters, all of them there from zero.
    pub(crate) fn registry(&self, name: &str) -> Arc<RegistryStats> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = registries.get(name) {
            return Arc::clone(known);
        }
        let registry = || ("registry", name.to_owned());
        let of = |family: &Counters, labels: Labels| family.get_or_create_owned(&labels);
        let stats = Arc::new(RegistryStats {
            name: name.to_owned(),
            requests: KINDS.map(|kind| {
                SOURCES.map(|source| of(&self.requests, vec![registry(), kind.label(), source.label()]))
            }),
            served: SOURCES.map(|source| of(&self.served, vec![registry(), source.label()])),
            durations: KINDS.map(|kind| {
                SOURCES.map(|source| self.durations.get_or_create_owned(&vec![kind.label(), source.label()]))
            }),
            asked: self.asked.clone(),
            fetched_bytes: of(&self.fetched, vec![registry()]),
            stale: of(&self.stale, vec![registry()]),
            mismatches: of(&self.mismatches, vec![registry()]),
            containerd_seen: AtomicU64::new(0),
        });
        registries.insert(name.to_owned(), Arc::clone(&stats));
        stats
    }

    pub(crate) fn register(&self, metrics: &mut Metrics) {
        let store = &self.store.families;
        for (name, help, family) in [
            ("larder_requests", "Requests by where the answer came from", &self.requests),
            ("larder_served_bytes", "Body bytes sent to clients", &self.served),
            ("larder_upstream_requests", "Requests sent to upstreams", &self.asked),
            ("larder_upstream_bytes", "Body bytes received from upstreams", &self.fetched),
            ("larder_stale_served", "Tags served stale because upstream could not say", &self.stale),
            (
                "larder_digest_mismatches",
                "Bodies whose bytes were not those of their digest",
                &self.mismatches,
            ),
            ("larder_evicted_bytes", "Bytes removed from the cache", &store[0]),
            ("larder_evicted_blobs", "Blobs removed from the cache", &store[1]),
            ("larder_store_errors", "Failures of the disk", &store[2]),
        ] {
            metrics.register(name, help, family.clone());
        }
        metrics.register(
            "larder_request_duration_seconds",
            "From request to the end of the body",
            self.durations.clone(),
        );
    }
}

impl RegistryStats {
    /// A request that was sent upstream; `None`: it got no answer.
    pub(crate) fn asked(&self, kind: Kind, status: Option<StatusCode>) {
        let status = status.map_or_else(|| "error".to_owned(), |status| status.as_str().to_owned());
        let labels = vec![("registry", self.name.clone()), kind.label(), ("status", status)];
        self.asked.get_or_create(&labels).inc();
    }

    /// Requests by source, over all kinds.
    pub(crate) fn requests(&self) -> larder_wire::report::Requests {
        let sum = |source: Source| self.requests.iter().map(|of| of[source as usize].get()).sum();
        larder_wire::report::Requests {
            cache: sum(Source::Cache),
            upstream: sum(Source::Upstream),
            follow: sum(Source::Follow),
            stale: sum(Source::Stale),
            bypass: sum(Source::Bypass),
            none: sum(Source::None),
        }
    }

    pub(crate) fn served_bytes(&self) -> u64 {
        self.served.iter().map(Counter::get).sum()
    }

    pub(crate) fn containerd_seen(&self) -> Option<u64> {
        Some(self.containerd_seen.load(Ordering::Relaxed)).filter(|&seen| seen > 0)
    }
}

impl Default for StoreStats {
    fn default() -> Self {
        let families = [Counters::default(), Counters::default(), Counters::default()];
        let of = |family: &Counters, name, value: &str| {
            family.get_or_create_owned(&vec![(name, value.to_owned())])
        };
        Self {
            evicted_bytes: REASONS.map(|reason| of(&families[0], "reason", reason.word())),
            evicted_blobs: REASONS.map(|reason| of(&families[1], "reason", reason.word())),
            errors: STORE_ERRORS.map(|kind| of(&families[2], "kind", kind)),
            families,
        }
    }
}

impl StoreStats {
    pub(crate) fn evicted(&self, reason: Reason, bytes: u64) {
        self.evicted_bytes[reason as usize].inc_by(bytes);
        self.evicted_blobs[reason as usize].inc();
    }

    pub(crate) fn evicted_bytes(&self, reason: Reason) -> u64 {
        self.evicted_bytes[reason as usize].get()
    }

    /// Counts a failure of the disk and logs it. No pull fails of it.
    pub(crate) fn failed(&self, error: &io::Error) {
        let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => 0,
            Some(Errno::IO) => 1,
            Some(Errno::ROFS) => 2,
            _ => 3,
        };
        self.errors[kind].inc();
        tracing::warn!(%error, kind = STORE_ERRORS[kind], "the store failed; the pull goes on without it");
    }
}

impl Kind {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Tag => "tag",
            Self::Blob => "blob",
            Self::List => "list",
        }
    }

    fn label(self) -> (&'static str, String) {
        ("kind", self.word().to_owned())
    }
}

impl Source {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Upstream => "upstream",
            Self::Follow => "follow",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
            Self::None => "none",
        }
    }

    fn label(self) -> (&'static str, String) {
        ("source", self.word().to_owned())
    }
}

impl Reason {
    const fn word(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::Size => "size",
            Self::Free => "free",
            Self::Corrupt => "corrupt",
        }
    }
}
