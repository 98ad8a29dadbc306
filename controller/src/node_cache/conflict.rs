//! Two NodeCaches on one node: both agents want the same ports and the same certs.d. The younger gives way. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;

use super::build;
use crate::cache::age::by_age;
use crate::crd::NodeCache;

/// What stands in the way of a NodeCache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Nodes that both select.
    pub(super) nodes: usize,
    /// One of them.
    pub(super) example: String,
    pub(super) elder: String,
}

/// The elder NodeCache that shares the most nodes with this one. One that is being deleted still has its agents there.
pub(super) fn conflict<'a>(
    node_cache: &NodeCache,
    others: &[NodeCache],
    nodes: impl Iterator<Item = &'a PartialObjectMeta<Node>> + Clone,
) -> Option<Conflict> {
    let elders =
        others.iter().filter(|other| other.uid() != node_cache.uid() && by_age(*other, node_cache).is_lt());
    let shared = |elder: &NodeCache| {
        let mut both = nodes.clone().filter(|node| selects(node_cache, node) && selects(elder, node));
        let example = both.next()?.name_any();
        Some(Conflict { nodes: 1 + both.count(), example, elder: elder.name_any() })
    };
    elders.filter_map(shared).max_by_key(|conflict| conflict.nodes)
}

/// Whether the DaemonSet of a NodeCache would want this node, taints aside.
pub(super) fn selects(node_cache: &NodeCache, node: &PartialObjectMeta<Node>) -> bool {
    let labels = node.labels();
    let is = |(key, value): (&str, &str)| labels.get(key).is_some_and(|label| label == value);
    let linux = labels.get("kubernetes.io/os").is_none_or(|os| os == "linux");
    let wanted: Option<&BTreeMap<String, String>> = node_cache.spec.node_selector.as_ref();
    linux
        && !build::VIRTUAL.into_iter().any(is)
        && wanted.into_iter().flatten().all(|(key, value)| is((key.as_str(), value.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, labels: &str) -> PartialObjectMeta<Node> {
        let text = format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {labels}}}}}");
        serde_saphyr::from_str(&text).unwrap()
    }

    fn node_cache(name: &str, day: u8, spec: &str) -> NodeCache {
        let text = format!(
            "{{apiVersion: registry-operator.dev/v1alpha1, kind: NodeCache, metadata: {{name: {name}, uid: {name}, \
             creationTimestamp: '2026-11-{day:02}T09:00:00Z'}}, spec: {spec}}}"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn the_younger_gives_way_and_is_told_on_how_many_nodes() {
        let nodes = [
            node("n1", "{pool: gpu}"),
            node("n2", "{pool: gpu, kubernetes.io/os: linux}"),
            node("n3", "{pool: cpu}"),
            node("v1", "{pool: gpu, type: virtual-kubelet}"),
            node("w1", "{pool: gpu, kubernetes.io/os: windows}"),
        ];
        let all = [
            node_cache("default", 20, "{}"),
            node_cache("gpu", 21, "{nodeSelector: {pool: gpu}}"),
            node_cache("cpu", 19, "{nodeSelector: {pool: cpu}}"),
        ];
        let of = |at: usize| conflict(&all[at], &all, nodes.iter());
        let gpu = Conflict { nodes: 2, example: "n1".to_owned(), elder: "default".to_owned() };
        assert_eq!(of(1), Some(gpu));
        assert_eq!(of(0).map(|conflict| conflict.elder), Some("cpu".to_owned()));
        assert_eq!(of(2), None);
    }

    #[test]
    fn disjoint_ones_live_side_by_side() {
        let nodes = [node("n1", "{pool: gpu}"), node("n2", "{pool: cpu}")];
        let all = [
            node_cache("a", 19, "{nodeSelector: {pool: cpu}}"),
            node_cache("b", 20, "{nodeSelector: {pool: gpu}}"),
        ];
        assert_eq!(conflict(&all[1], &all, nodes.iter()), None);
    }
}
