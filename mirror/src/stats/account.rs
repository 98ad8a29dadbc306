//! One request's entry in the counters and in the log. Counted when the answer is known, logged when its body ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Kind, RegistryStats, Source};

/// What is known of a request when its answer is.
pub(crate) struct Entry {
    pub started: Instant,
    pub registry: Arc<RegistryStats>,
    pub kind: Kind,
    pub source: Source,
    pub method: &'static str,
    pub repository: String,
    pub reference: String,
    pub status: u16,
    pub stale: Option<Duration>,
    /// The chain of what went wrong, for a request that is refused.
    pub error: Option<String>,
}

/// Held by the body and by what the socket still has to send of it.
pub(crate) struct Account {
    entry: Entry,
    sent: AtomicU64,
    broken: AtomicBool,
}

impl Account {
    pub(crate) fn open(entry: Entry) -> Arc<Self> {
        entry.registry.requests[entry.kind as usize][entry.source as usize].inc();
        if entry.stale.is_some() {
            entry.registry.stale.inc();
        }
        Arc::new(Self { entry, sent: AtomicU64::new(0), broken: AtomicBool::new(false) })
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.entry.registry.served[self.entry.source as usize].inc_by(bytes);
    }

    /// The body ended short, and why.
    pub(crate) fn broke_off(&self, error: &(dyn std::error::Error + 'static)) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                registry = self.entry.registry.name,
                repository = self.entry.repository,
                reference = self.entry.reference,
                error = chain(error),
                "a body ended short"
            );
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let entry = &self.entry;
        let seconds = entry.started.elapsed().as_secs_f64();
        entry.registry.durations[entry.kind as usize][entry.source as usize].observe(seconds);
        tracing::info!(
            registry = entry.registry.name,
            kind = entry.kind.word(),
            source = entry.source.word(),
            method = entry.method,
            repository = entry.repository,
            reference = entry.reference,
            status = entry.status,
            bytes = self.sent.load(Ordering::Relaxed),
            seconds,
            stale = entry.stale.map(|age| age.as_secs()),
            complete = !self.broken.load(Ordering::Relaxed),
            error = entry.error,
            "pull"
        );
    }
}

/// An error and its sources, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
