//! Which nodes changed since they were last asked about, for one object a node. Must not decide how many may
//! be written a second: the caller takes as many as it can write.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use super::Fleet;
use super::node::Node;
use super::summary::{RegistryView, registry};

/// A node that changed, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    pub node: String,
    /// `Ready`, `Pending`, `Unsupported` or `Degraded`
    pub state: &'static str,
    /// Why it is degraded, else empty.
    pub reason: String,
    pub since: Timestamp,
    pub version: String,
    pub generation: u64,
    pub installed: bool,
    pub in_use: bool,
    pub registries: Vec<RegistryView>,
    /// This replica never told of this node: what its object says is not known here.
    pub first: bool,
    /// Stands for what would be told.
    pub(crate) mark: u64,
}

impl Fleet {
    /// At most `most` nodes whose state, generation or version is another than was last told; those that
    /// changed first come first. They come again until [`Fleet::told`] is.
    #[must_use]
    pub fn transitions(&self, node_cache: &str, most: usize, now: Timestamp) -> Vec<NodeState> {
        let mut state = self.lock();
        let Some(group) = state.groups.get_mut(node_cache) else { return Vec::new() };
        group.judge(now);
        let mut changed: Vec<_> =
            group.nodes.iter().filter(|(_, node)| node.told != Some(fingerprint(node))).collect();
        changed.sort_by(|(one, first), (other, second)| (first.since, one).cmp(&(second.since, other)));
        changed.truncate(most);
        let state = |(name, node): (&std::sync::Arc<str>, &Node)| NodeState {
            node: name.to_string(),
            state: node.health.state(),
            reason: node.health.reason(),
            since: node.since,
            version: node.version.to_string(),
            generation: node.generation,
            installed: node.is_installed(),
            in_use: node.is_in_use(),
            registries: node.entries.iter().map(registry).collect(),
            first: node.told.is_none(),
            mark: fingerprint(node),
        };
        changed.into_iter().map(state).collect()
    }

    /// The node's object says so now.
    pub fn told(&self, node_cache: &str, told: &NodeState) {
        let mut state = self.lock();
        let group = state.groups.get_mut(node_cache);
        if let Some(node) = group.and_then(|group| group.nodes.get_mut(told.node.as_str())) {
            node.told = Some(told.mark);
        }
    }
}

fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&node.health, &node.version, node.generation, node.is_installed(), node.is_in_use()).hash(&mut hasher);
    hasher.finish()
}
