//! How a node is doing: a pure rule from what it told, and when. An upstream that is down is not the node's
//! fault.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use larder_wire::units::Size;

use super::elapsed;
use super::node::{Entry, Node};
use crate::reports::reading::Standing;

/// Three intervals without a report, and never less than this, is silence.
const SILENT: Duration = Duration::from_secs(90);
/// What passes by itself has so long to do so.
const PATIENCE: Duration = Duration::from_secs(300);
/// An entry that no containerd used for so long is looked into.
const UNUSED: Duration = Duration::from_secs(3600);
/// That no pods were started is believed for so long.
const NO_PODS: Duration = Duration::from_secs(600);
/// A store that holds nothing after so much was fetched keeps nothing.
const FETCHED: u64 = 64 << 20;
/// The installer's word for a containerd that reads no certs.d.
const NO_CERTS_DIR: &str = "ConfigPathUnset";

/// How a node is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    Ready,
    /// Not ready yet, and not for long enough to be called degraded.
    Pending,
    /// It runs no containerd, or one that reads no certs.d: pulls go as ever, and nobody has to do anything.
    Unsupported,
    Degraded(Reason),
}

/// Why a node is degraded. Ordered by how much it matters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Silent,
    /// A registry has no entry in certs.d; `why` is the installer's word.
    NotInstalled {
        registry: Arc<str>,
        why: Arc<str>,
    },
    StoreNotCaching,
    /// The file system is so full that nothing is stored.
    DiskFull,
    /// The desired generation of the settings is not applied.
    ConfigStale,
    IndexDegraded,
    /// Pods were started, and no containerd asked.
    NotInUse,
}

impl Health {
    pub(super) const SILENT: Self = Self::Degraded(Reason::Silent);

    /// One word.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Pending => "Pending",
            Self::Unsupported => "Unsupported",
            Self::Degraded(_) => "Degraded",
        }
    }

    /// Why it is degraded, else empty.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Degraded(reason) => reason.to_string(),
            Self::Ready | Self::Pending | Self::Unsupported => String::new(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("Silent"),
            Self::NotInstalled { registry, why } => write!(f, "NotInstalled: {why} ({registry})"),
            Self::StoreNotCaching => f.write_str("StoreNotCaching"),
            Self::DiskFull => f.write_str("DiskFull"),
            Self::ConfigStale => f.write_str("ConfigStale"),
            Self::IndexDegraded => f.write_str("IndexDegraded"),
            Self::NotInUse => f.write_str("NotInUse"),
        }
    }
}

/// Judges a node. `interval` is from one report to the next.
pub(super) fn judge(node: &Node, interval: Duration, min_free: Size, now: Timestamp) -> Health {
    if is_silent(node, interval, now) {
        return Health::SILENT;
    }
    if node.no_containerd || node.entries.iter().any(|entry| *entry.reason == *NO_CERTS_DIR) {
        return Health::Unsupported;
    }
    let stale = node.behind.is_some_and(|behind| elapsed(behind, now) >= PATIENCE);
    if let Some(reason) = not_installed(node, now) {
        Health::Degraded(reason)
    } else if keeps_nothing(node) {
        Health::Degraded(Reason::StoreNotCaching)
    } else if is_full(node, min_free) {
        Health::Degraded(Reason::DiskFull)
    } else if stale {
        Health::Degraded(Reason::ConfigStale)
    } else if node.cache.index_degraded {
        Health::Degraded(Reason::IndexDegraded)
    } else if is_idle(node, now) && node.pods.is_some_and(|(started, _)| started) {
        Health::Degraded(Reason::NotInUse)
    } else if node.entries.iter().any(|entry| missing(entry).is_some()) {
        Health::Pending
    } else {
        Health::Ready
    }
}

/// Whether it is worth looking up if pods were started on the node.
pub(super) fn is_suspect(node: &Node, interval: Duration, now: Timestamp) -> bool {
    let unknown = node.pods.is_none_or(|(started, asked)| !started && elapsed(asked, now) >= NO_PODS);
    unknown && !node.no_containerd && is_idle(node, now) && !is_silent(node, interval, now)
}

fn is_silent(node: &Node, interval: Duration, now: Timestamp) -> bool {
    elapsed(node.last, now) > interval.saturating_mul(3).max(SILENT)
}

/// Installed for an hour, and no containerd asked.
fn is_idle(node: &Node, now: Timestamp) -> bool {
    let long = |entry: &Entry| entry.is_in() && elapsed(entry.since, now) >= UNUSED;
    !node.is_in_use() && node.entries.iter().any(long)
}

/// The first registry that has no entry, and should have one by now.
fn not_installed(node: &Node, now: Timestamp) -> Option<Reason> {
    let due = |entry: &&Entry| entry.standing == Standing::Refused || elapsed(entry.since, now) >= PATIENCE;
    let late = node.entries.iter().filter(due).find_map(|entry| Some((entry, missing(entry)?)));
    late.map(|(entry, why)| Reason::NotInstalled { registry: Arc::clone(&entry.registry), why })
}

/// Why there is no entry, where there should be one. Taken out without a reason is taken out as asked.
fn missing(entry: &Entry) -> Option<Arc<str>> {
    let word = |word: &str| if entry.reason.is_empty() { Arc::from(word) } else { Arc::clone(&entry.reason) };
    match entry.standing {
        Standing::Installed | Standing::External => None,
        Standing::Withdrawn => (!entry.reason.is_empty()).then(|| Arc::clone(&entry.reason)),
        Standing::Refused => Some(word("Refused")),
        Standing::Waiting => Some(word("Waiting")),
        Standing::Untold => Some(word("NoInstaller")),
    }
}

/// The agent admits nothing below four fifths of `min_free`.
fn is_full(node: &Node, min_free: Size) -> bool {
    let (free, capacity) = (node.cache.free_bytes, node.cache.capacity_bytes);
    capacity > 0 && free < min_free.of(capacity) / 5 * 4
}

/// The file system does not answer, or much was fetched and nothing is there.
fn keeps_nothing(node: &Node) -> bool {
    let fetched =
        node.entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.counters.fetched_bytes));
    node.cache.capacity_bytes == 0 || (node.cache.blobs == 0 && node.evicted == 0 && fetched >= FETCHED)
}

#[cfg(test)]
mod tests;
