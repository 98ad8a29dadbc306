//! What people and statuses are told of the fleet: counts, the worst nodes, sums of the day. Must not hold
//! the lock while anything is written out: everything here is handed over whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::health::{Health, Reason};
use super::node::{Entry, Node};
use super::{Fleet, Group, usage};
use crate::reports::reading::{Counters, Standing};

/// Nodes and registries that are named; the rest is counted.
const NAMED: usize = 20;

/// The nodes of one NodeCache.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Nodes that report.
    pub reporting: usize,
    /// Nodes that did, and do not any more; they are degraded too.
    pub silent: usize,
    pub ready: usize,
    pub degraded: usize,
    /// Nodes on which every registry has its entry.
    pub installed: usize,
    /// Nodes whose containerd asked since an entry was written.
    pub in_use: usize,
    /// Nodes without containerd, or whose containerd reads no certs.d.
    pub unsupported: usize,
    /// Nodes that applied the desired generation.
    pub updated: usize,
    /// The 20 worst, the worst first.
    pub worst: Vec<WorstNode>,
    /// Degraded nodes beyond those.
    pub more: usize,
    pub usage: Usage,
    /// Bytes on all nodes' disks that are Larder's, and the size of their file systems.
    pub cache_bytes: u64,
    pub capacity_bytes: u64,
    /// Registries that half of the nodes see down, as nodes name them.
    pub upstream_down: Vec<String>,
    /// Not every node had the time to report again: counts are not to be trusted.
    pub warming: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorstNode {
    pub node: String,
    pub reason: String,
    pub since: Timestamp,
}

/// Sums of the last 24 hours, as far as this replica saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub since: Timestamp,
    pub requests: u64,
    /// Requests that asked no upstream, from 0 to 1; nothing before the first request.
    pub hit_ratio: Option<f64>,
    pub bytes_served: u64,
    pub bytes_fetched: u64,
    pub evicted_bytes: u64,
}

/// One registry, over all NodeCaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamSummary {
    /// Nodes that report and serve it.
    pub nodes: usize,
    /// Those with an entry for it.
    pub installed: usize,
    /// Those that see the upstream down.
    pub down: usize,
    /// The least that a node has left.
    pub ratelimit_remaining: Option<u64>,
    /// `evicted_bytes` is not known by registry.
    pub usage: Usage,
    pub warming: bool,
}

/// How far the nodes of a NodeCache are with taking their entries out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawal {
    pub known: usize,
    /// Nodes that applied the generation and have no entry of ours.
    pub done: usize,
    /// Nodes that do not report, and are not done.
    pub silent: usize,
    /// Some of those that report and are not done, by name.
    pub remaining: Vec<String>,
}

/// A node, for `GET /v1/nodes`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    #[serde(serialize_with = "text")]
    pub node: Arc<str>,
    #[serde(serialize_with = "text")]
    pub node_cache: Arc<str>,
    pub state: &'static str,
    pub reason: String,
    pub since: Timestamp,
    pub last_report: Timestamp,
    #[serde(serialize_with = "text")]
    pub version: Arc<str>,
    pub generation: u64,
    pub installed: bool,
    pub in_use: bool,
    pub cache_bytes: u64,
    pub cache_blobs: u64,
    pub free_bytes: u64,
    pub capacity_bytes: u64,
    pub index_degraded: bool,
    pub registries: Vec<RegistryView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryView {
    #[serde(serialize_with = "text")]
    pub registry: Arc<str>,
    pub state: &'static str,
    #[serde(serialize_with = "text")]
    pub reason: Arc<str>,
    pub in_use: bool,
    pub upstream_up: bool,
    pub ratelimit_remaining: Option<u64>,
    pub containerd_seen: Option<Timestamp>,
}

impl Fleet {
    /// The nodes of a NodeCache, counted anew.
    #[must_use]
    pub fn summary(&self, node_cache: &str, now: Timestamp) -> Summary {
        let mut state = self.lock();
        let (began, warming) = (state.began, state.is_warming(now));
        let Some(group) = state.groups.get_mut(node_cache) else {
            return Summary {
                usage: of_day(Counters::default(), 0, began, now),
                warming,
                ..Summary::default()
            };
        };
        group.judge(now);
        let mut summary = group.count();
        summary.usage = of_day(group.book.all(now), group.book.evicted_bytes(now), began, now);
        Summary { warming, ..summary }
    }

    /// A registry as all nodes see it.
    #[must_use]
    pub fn upstream(&self, registry: &str, now: Timestamp) -> UpstreamSummary {
        let mut state = self.lock();
        let (began, warming) = (state.began, state.is_warming(now));
        let (mut summary, mut sum) =
            (UpstreamSummary { warming, ..UpstreamSummary::default() }, Counters::default());
        for group in state.groups.values_mut() {
            group.judge(now);
            sum = sum.plus(group.book.registry(registry, now));
            let entry = |node: &'_ Node| node.entries.iter().position(|entry| *entry.registry == *registry);
            for node in group.nodes.values().filter(|node| !node.is_silent()) {
                let Some(entry) = entry(node).map(|at| &node.entries[at]) else { continue };
                summary.nodes += 1;
                summary.installed += usize::from(entry.is_in());
                summary.down += usize::from(!entry.up);
                summary.ratelimit_remaining =
                    summary.ratelimit_remaining.into_iter().chain(entry.ratelimit).min();
            }
        }
        UpstreamSummary { usage: of_day(sum, 0, began, now), ..summary }
    }

    /// How many nodes still have an entry of ours or have not applied that generation.
    #[must_use]
    pub fn withdrawn(&self, node_cache: &str, generation: u64, now: Timestamp) -> Withdrawal {
        let mut state = self.lock();
        let Some(group) = state.groups.get_mut(node_cache) else { return Withdrawal::default() };
        group.judge(now);
        let mut withdrawal = Withdrawal { known: group.nodes.len(), ..Withdrawal::default() };
        for (name, node) in &group.nodes {
            let installed = node.entries.iter().any(|entry| entry.standing == Standing::Installed);
            if !installed && node.generation >= generation {
                withdrawal.done += 1;
            } else if node.is_silent() {
                withdrawal.silent += 1;
            } else {
                withdrawal.remaining.push(name.to_string());
            }
        }
        withdrawal.remaining.sort();
        withdrawal.remaining.truncate(NAMED);
        withdrawal
    }

    /// The nodes that reported and do not any more, by name.
    #[must_use]
    pub fn silent(&self, node_cache: &str, now: Timestamp) -> Vec<String> {
        let mut state = self.lock();
        let Some(group) = state.groups.get_mut(node_cache) else { return Vec::new() };
        group.judge(now);
        let silent = group.nodes.iter().filter(|(_, node)| node.is_silent());
        let mut names: Vec<String> = silent.map(|(name, _)| name.to_string()).collect();
        names.sort();
        names
    }

    /// The NodeCaches that nodes report for or that were set.
    #[must_use]
    pub fn node_caches(&self) -> Vec<String> {
        let mut names: Vec<String> = self.lock().groups.keys().cloned().collect();
        names.sort();
        names
    }

    /// Every registry that a node serves, by name.
    #[must_use]
    pub fn registries(&self) -> Vec<String> {
        let state = self.lock();
        let nodes = state.groups.values().flat_map(|group| group.nodes.values());
        let names: BTreeSet<&Arc<str>> =
            nodes.flat_map(|node| &node.entries).map(|entry| &entry.registry).collect();
        names.into_iter().map(ToString::to_string).collect()
    }

    /// Every node, by name; of one NodeCache, or of all.
    #[must_use]
    pub fn nodes(&self, node_cache: Option<&str>, now: Timestamp) -> Vec<NodeView> {
        let mut views = Vec::new();
        let mut state = self.lock();
        for (name, group) in &mut state.groups {
            if node_cache.is_some_and(|wanted| wanted != name) {
                continue;
            }
            group.judge(now);
            let node_cache = Arc::from(name.as_str());
            views.extend(group.nodes.iter().map(|(name, node)| view(name, &node_cache, node)));
        }
        drop(state);
        views.sort_by(|one, other| (&one.node, &one.node_cache).cmp(&(&other.node, &other.node_cache)));
        views
    }
}

impl Group {
    /// Counts nodes as they were judged.
    fn count(&self) -> Summary {
        let mut summary = Summary::default();
        let mut worst: Vec<(&Reason, Timestamp, &Arc<str>)> = Vec::new();
        let mut registries: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (name, node) in &self.nodes {
            summary.cache_bytes = summary.cache_bytes.saturating_add(node.cache.bytes);
            summary.capacity_bytes = summary.capacity_bytes.saturating_add(node.cache.capacity_bytes);
            match &node.health {
                Health::Ready => summary.ready += 1,
                Health::Pending => {}
                Health::Unsupported => summary.unsupported += 1,
                Health::Degraded(reason) => {
                    summary.degraded += 1;
                    worst.push((reason, node.since, name));
                }
            }
            if node.is_silent() {
                summary.silent += 1;
                continue;
            }
            summary.reporting += 1;
            summary.installed += usize::from(node.is_installed());
            summary.in_use += usize::from(node.is_in_use());
            summary.updated +=
                usize::from(self.desired.is_none_or(|desired| desired.generation == node.generation));
            for entry in &node.entries {
                let (nodes, down) = registries.entry(&entry.registry).or_default();
                *nodes += 1;
                *down += usize::from(!entry.up);
            }
        }
        worst.sort();
        summary.more = worst.len().saturating_sub(NAMED);
        summary.worst = worst.into_iter().take(NAMED).map(WorstNode::from).collect();
        let down = registries.into_iter().filter(|(_, (nodes, down))| *down > 0 && down * 2 >= *nodes);
        summary.upstream_down = down.take(NAMED).map(|(registry, _)| registry.to_owned()).collect();
        summary
    }
}

impl From<(&Reason, Timestamp, &Arc<str>)> for WorstNode {
    fn from((reason, since, node): (&Reason, Timestamp, &Arc<str>)) -> Self {
        Self { node: node.to_string(), reason: reason.to_string(), since }
    }
}

fn of_day(sum: Counters, evicted_bytes: u64, began: Timestamp, now: Timestamp) -> Usage {
    Usage {
        since: began.max(usage::begins(now)),
        requests: sum.requests,
        hit_ratio: sum.hit_ratio(),
        bytes_served: sum.served_bytes,
        bytes_fetched: sum.fetched_bytes,
        evicted_bytes,
    }
}

pub(super) fn registry(entry: &Entry) -> RegistryView {
    RegistryView {
        registry: Arc::clone(&entry.registry),
        state: entry.standing.as_str(),
        reason: Arc::clone(&entry.reason),
        in_use: entry.is_in_use(),
        upstream_up: entry.up,
        ratelimit_remaining: entry.ratelimit,
        containerd_seen: entry.seen,
    }
}

fn view(name: &Arc<str>, node_cache: &Arc<str>, node: &Node) -> NodeView {
    NodeView {
        node: Arc::clone(name),
        node_cache: Arc::clone(node_cache),
        state: node.health.state(),
        reason: node.health.reason(),
        since: node.since,
        last_report: node.last,
        version: Arc::clone(&node.version),
        generation: node.generation,
        installed: node.is_installed(),
        in_use: node.is_in_use(),
        cache_bytes: node.cache.bytes,
        cache_blobs: node.cache.blobs,
        free_bytes: node.cache.free_bytes,
        capacity_bytes: node.cache.capacity_bytes,
        index_degraded: node.cache.index_degraded,
        registries: node.entries.iter().map(registry).collect(),
    }
}

fn text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}
