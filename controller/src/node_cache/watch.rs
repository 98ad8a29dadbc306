//! What makes a NodeCache's story begin anew: itself, its children, a Cache. Nodes and reports do not: they are looked
//! at each time.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};

use crate::apply::MANAGED_BY;
use crate::cache::changes::Changes;
use crate::config::Config;
use crate::crd::{Cache, NodeCache};

/// A change of any Cache concerns every NodeCache: which ones selected it before is not known here.
pub fn watch(client: &Client, config: &Config) -> Controller<NodeCache> {
    let ours = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let controller = Controller::new(Api::all(client.clone()), watcher::Config::default());
    let all = controller.store();
    let changes = Changes::default();
    let concerned = move |cache: Cache| {
        let all = if changes.concern(&cache, &cache.status) { all.state() } else { Vec::new() };
        all.iter().map(|it| ObjectRef::from_obj(&**it)).collect::<Vec<_>>()
    };
    controller
        .watches(Api::<DaemonSet>::namespaced(client.clone(), &config.agent_namespace), ours.clone(), |it| {
            owner(&it)
        })
        .watches(Api::<ConfigMap>::namespaced(client.clone(), &config.agent_namespace), ours, |it| owner(&it))
        .watches(Api::<Cache>::all(client.clone()), watcher::Config::default(), concerned)
}

/// The NodeCache of a child, named as its own watch names it. With the child's namespace, as `owns` would give it, one
/// NodeCache would be two, reconciled side by side.
fn owner<K: ResourceExt>(child: &K) -> Option<ObjectRef<NodeCache>> {
    let owners = child.owner_references().iter();
    let mut ours =
        owners.filter(|owner| owner.controller == Some(true) && owner.kind == NodeCache::kind(&()));
    ours.next().map(|owner| ObjectRef::new(&owner.name))
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    #[test]
    fn a_childs_namespace_makes_no_second_node_cache() {
        let mut node_cache = NodeCache::new("default", Default::default());
        node_cache.metadata.uid = Some("u".to_owned());
        let metadata = ObjectMeta {
            namespace: Some("larder-agents".to_owned()),
            owner_references: node_cache.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let child = ConfigMap { metadata, ..ConfigMap::default() };
        let found = owner(&child).unwrap();
        assert_eq!((found.name.as_str(), found.namespace.as_deref()), ("default", None));
        assert_eq!(owner(&ConfigMap::default()), None);
    }
}
