//! What the nodes told, kept in memory alone: one record a node, the last day's counts a registry. Everything
//! is said with the time it is said at. Must not wait, nor know HTTP or Kubernetes.

mod health;
mod names;
mod node;
mod summary;
mod transitions;
mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use larder_wire::units::Size;

use super::Reporter;
use super::reading::Reading;
use names::Names;
use node::Node;
use usage::Book;

pub use health::{Health, Reason};
pub use node::Counted;
pub use summary::{NodeView, RegistryView, Summary, UpstreamSummary, Usage, Withdrawal, WorstNode};
pub use transitions::NodeState;

/// So long after the start not every node has reported again: counts are not to be trusted.
pub const WARMING: Duration = Duration::from_secs(120);
/// When nobody has said otherwise.
const INTERVAL: Duration = Duration::from_secs(30);
const MIN_FREE: Size = Size::Percent(25);
/// So long without a word of its story and of its nodes, and a NodeCache is taken for gone.
const IDLE: Duration = Duration::from_secs(3600);
/// A node that is silent for so long is no longer counted.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// Nodes that [`Fleet::suspects`] names at once.
const SUSPECTS: usize = 5;

/// Every node that reported since this replica leads.
#[derive(Debug)]
pub struct Fleet {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: Timestamp,
    names: Names,
    groups: HashMap<String, Group>,
}

/// The nodes of one NodeCache.
#[derive(Debug, Default)]
struct Group {
    /// When its story or a node last spoke of it.
    touched: Timestamp,
    desired: Option<Desired>,
    min_free: Option<Size>,
    nodes: HashMap<Arc<str>, Node>,
    book: Book,
}

/// What the nodes of a NodeCache are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Of the settings that the agents mount.
    pub generation: u64,
    /// From one report to the next.
    pub interval: Duration,
}

/// What became of a report, and what its reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub desired_generation: u64,
    pub next_report_after: Duration,
    /// How its counters were taken.
    pub counted: Counted,
    /// The counters grew by more than any node can do; what is beyond was left out.
    pub absurd: bool,
    /// Nodes known by now, of all NodeCaches.
    pub known: usize,
}

impl Fleet {
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { state: Mutex::new(State { began: now, names: Names::default(), groups: HashMap::new() }) }
    }

    /// This replica leads from now on: agents that were started before have told another one.
    pub fn begin(&self) {
        self.lock().began = Timestamp::now();
    }

    /// Takes a report in. `who` is proven, `reading` is clamped.
    pub fn record(&self, who: &Reporter, reading: Reading, now: Timestamp) -> Recorded {
        let mut state = self.lock();
        let State { began, names, groups } = &mut *state;
        // Agents may go on for a while after their NodeCache is gone.
        groups.retain(|name, group| *name == who.node_cache || elapsed(group.touched, now) < IDLE);
        let group = match groups.get_mut(&who.node_cache) {
            Some(group) => group,
            None => groups.entry(who.node_cache.clone()).or_default(),
        };
        group.touched = now;
        let desired = group.desired.unwrap_or(Desired { generation: reading.generation, interval: INTERVAL });
        let taken = match group.nodes.get_mut(who.node.as_str()) {
            Some(node) => node.take(reading, names, now),
            None => {
                let (node, taken) = Node::first(reading, names, *began, now);
                group.nodes.insert(Arc::from(who.node.as_str()), node);
                taken
            }
        };
        group.book.add(now, &taken.growth, taken.evicted);
        if let Some(node) = group.nodes.get_mut(who.node.as_str()) {
            node.follow(desired.generation, now);
        }
        Recorded {
            desired_generation: desired.generation,
            next_report_after: desired.interval,
            counted: taken.counted,
            absurd: taken.absurd,
            known: groups.values().map(|group| group.nodes.len()).sum(),
        }
    }

    /// What replies say from now on, and what nodes are measured by.
    pub fn set_desired(&self, node_cache: &str, desired: Desired, now: Timestamp) {
        let mut state = self.lock();
        let group = state.group(node_cache);
        (group.desired, group.touched) = (Some(desired), now.max(group.touched));
    }

    /// `storage.minFree` of a NodeCache that was set: nothing is stored below four fifths of it. 25 % when it was not
    /// said.
    pub fn set_min_free(&self, node_cache: &str, min_free: Size) {
        if let Some(group) = self.lock().groups.get_mut(node_cache) {
            group.min_free = Some(min_free);
        }
    }

    /// Nodes installed for an hour that no containerd asked since, of which it is not known whether pods were
    /// started there: to be looked up, and told by [`Fleet::pods_started`] or [`Fleet::runtime`]. A few at a
    /// time.
    #[must_use]
    pub fn suspects(&self, node_cache: &str, now: Timestamp) -> Vec<String> {
        let mut state = self.lock();
        let Some(group) = state.groups.get_mut(node_cache) else { return Vec::new() };
        let interval = group.interval();
        let mut suspects: Vec<_> =
            group.nodes.iter().filter(|(_, node)| health::is_suspect(node, interval, now)).collect();
        suspects.sort_by_key(|(name, node)| (node.pods.map(|(_, asked)| asked), Arc::clone(name)));
        suspects.into_iter().take(SUSPECTS).map(|(name, _)| name.to_string()).collect()
    }

    /// Whether pods were started on a suspect within its last hour.
    pub fn pods_started(&self, node: &str, started: bool, now: Timestamp) {
        for group in self.lock().groups.values_mut() {
            if let Some(node) = group.nodes.get_mut(node) {
                node.pods = Some((started, now));
            }
        }
    }

    /// `status.nodeInfo.containerRuntimeVersion` of a node: what is no containerd cannot use the cache.
    pub fn runtime(&self, node: &str, version: &str) {
        for group in self.lock().groups.values_mut() {
            if let Some(node) = group.nodes.get_mut(node) {
                node.no_containerd = !version.starts_with("containerd://");
            }
        }
    }

    pub fn forget_node_cache(&self, node_cache: &str) {
        self.lock().groups.remove(node_cache);
    }

    /// The node is none of this NodeCache's any more; what it told for another one stays.
    pub fn forget_node(&self, node_cache: &str, node: &str) {
        if let Some(group) = self.lock().groups.get_mut(node_cache) {
            group.nodes.remove(node);
        }
    }

    /// Nodes known, of all NodeCaches.
    #[must_use]
    pub fn known(&self) -> usize {
        self.lock().groups.values().map(|group| group.nodes.len()).sum()
    }

    /// Nothing here waits or can fail half-way, so a lock that saw a panic is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Fleet {
    /// Begins now.
    fn default() -> Self {
        Self::new(Timestamp::now())
    }
}

impl State {
    fn group(&mut self, node_cache: &str) -> &mut Group {
        self.groups.entry(node_cache.to_owned()).or_default()
    }

    fn is_warming(&self, now: Timestamp) -> bool {
        elapsed(self.began, now) < WARMING
    }
}

impl Group {
    fn interval(&self) -> Duration {
        self.desired.map_or(INTERVAL, |desired| desired.interval)
    }

    /// Judges every node anew, and forgets those that are long gone.
    fn judge(&mut self, now: Timestamp) {
        let (interval, min_free) = (self.interval(), self.min_free.unwrap_or(MIN_FREE));
        self.nodes.retain(|_, node| elapsed(node.last, now) < FORGOTTEN);
        for node in self.nodes.values_mut() {
            node.judged(health::judge(node, interval, min_free, now), now);
        }
    }
}

/// From `earlier` to `later`; nothing when it is the other way round.
fn elapsed(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
