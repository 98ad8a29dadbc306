//! What makes a NodeCache's story begin anew: itself, its children, a Cache. Nodes and reports do not: they are looked
//! at each time.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

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
        .owns(Api::<DaemonSet>::namespaced(client.clone(), &config.agent_namespace), ours.clone())
        .owns(Api::<ConfigMap>::namespaced(client.clone(), &config.agent_namespace), ours)
        .watches(Api::<Cache>::all(client.clone()), watcher::Config::default(), concerned)
}
