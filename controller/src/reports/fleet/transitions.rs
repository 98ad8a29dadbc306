//! Which nodes changed since they were last asked about, for one object a node. Must not decide how many may
//! be written a second: the caller takes as many as it can write.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use super::Fleet;
use super::node::Node;

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
    /// This replica never handed this node out: what its object says is not known here.
    pub first: bool,
}

impl Fleet {
    /// At most `most` nodes whose state, generation or version is another than when they were last handed
    /// out; those that changed first come first. What could not be written is asked for again by
    /// [`Fleet::tell_again`].
    #[must_use]
    pub fn transitions(&self, node_cache: &str, most: usize, now: Timestamp) -> Vec<NodeState> {
        let mut state = self.lock();
        let Some(group) = state.groups.get_mut(node_cache) else { return Vec::new() };
        group.judge(now);
        let mut changed: Vec<_> =
            group.nodes.iter_mut().filter(|(_, node)| node.told != Some(fingerprint(node))).collect();
        changed.sort_by(|(one, first), (other, second)| (first.since, one).cmp(&(second.since, other)));
        changed.truncate(most);
        let tell = |(name, node): (&std::sync::Arc<str>, &mut Node)| {
            let first = node.told.replace(fingerprint(node)).is_none();
            NodeState {
                node: name.to_string(),
                state: node.health.state(),
                reason: node.health.reason(),
                since: node.since,
                version: node.version.to_string(),
                generation: node.generation,
                installed: node.is_installed(),
                in_use: node.is_in_use(),
                first,
            }
        };
        changed.into_iter().map(tell).collect()
    }

    /// The node's last transition was not written: it comes again.
    pub fn tell_again(&self, node_cache: &str, node: &str) {
        let mut state = self.lock();
        if let Some(node) = state.groups.get_mut(node_cache).and_then(|group| group.nodes.get_mut(node)) {
            node.told = None;
        }
    }
}

fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&node.health, &node.version, node.generation, node.is_installed(), node.is_in_use()).hash(&mut hasher);
    hasher.finish()
}
