//! THE STORY of a Cache: one upstream. dereference -> validate -> status; what nodes are given of it is a NodeCache's
//! to build. Must not make anything.

pub(crate) mod age;
pub(crate) mod changes;
mod credential;
mod dereference;
pub(crate) mod due;
pub(crate) mod figures;
pub(crate) mod resolve;
mod status;
pub(crate) mod upstream;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use kube::api::Api;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use crate::config::Config;
use crate::context::Context;
use crate::crd::{Cache, NodeCache};
use crate::error::Error;
use changes::Changes;
pub(crate) use dereference::list;

/// Secrets are read by name and never watched; so they are read again.
const REFRESH: Duration = Duration::from_secs(60);

pub async fn reconcile(cache: Arc<Cache>, context: Arc<Context>) -> Result<Action, Error> {
    let known = dereference::dereference(&cache, &context).await?;
    let standing = validate::validate(&cache, &known);
    status::tell(&cache, &context, &known, &standing).await?;
    Ok(Action::requeue(REFRESH))
}

/// Another NodeCache may select other Caches, and a Cache that changes or ends may make room for one for its registry.
pub fn watch(client: &kube::Client, _config: &Config) -> Controller<Cache> {
    let controller = Controller::new(Api::all(client.clone()), watcher::Config::default());
    let (all, changes) = (controller.store(), Changes::default());
    let concerned = move |node_cache: NodeCache| {
        let all = if changes.concern(&node_cache, &node_cache.status) { all.state() } else { Vec::new() };
        all.iter().map(|it| ObjectRef::from_obj(&**it)).collect::<Vec<_>>()
    };
    let (all, changes) = (controller.store(), Changes::default());
    let rivals = move |cache: Cache| {
        let all = if changes.concern(&cache, &cache.status) { all.state() } else { Vec::new() };
        let registry = |cache: &Cache| upstream::registry(&cache.spec).ok();
        let is_rival =
            |it: &&Arc<Cache>| it.metadata.name != cache.metadata.name && registry(it) == registry(&cache);
        all.iter().filter(is_rival).map(|it| ObjectRef::from_obj(&**it)).collect::<Vec<_>>()
    };
    let (node_caches, caches) = (Api::<NodeCache>::all(client.clone()), Api::<Cache>::all(client.clone()));
    let config = watcher::Config::default;
    controller.watches(node_caches, config(), concerned).watches(caches, config(), rivals)
}
