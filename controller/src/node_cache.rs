//! THE STORY of a NodeCache: the agents of a set of nodes. dereference -> validate -> build -> apply -> status, and a
//! withdrawal before it goes. Must not touch a pod for what a running agent reads by itself.

mod build;
mod conflict;
mod dereference;
mod finalizer;
mod gone;
mod in_use;
mod per_node;
mod places;
mod rollout;
mod settings;
mod status;
mod validate;
mod watch;
mod withdraw;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;

use crate::apply;
use crate::context::Context;
use crate::crd::NodeCache;
use crate::error::Error;
pub use watch::watch;

/// From one look at what the nodes told to the next.
const REFRESH: Duration = Duration::from_secs(30);

pub async fn reconcile(node_cache: Arc<NodeCache>, context: Arc<Context>) -> Result<Action, Error> {
    if node_cache.metadata.deletion_timestamp.is_some() {
        return withdraw::withdraw(&node_cache, &context).await;
    }
    finalizer::hold(&node_cache, &context).await?;
    let known = dereference::dereference(&node_cache, &context).await?;
    let decided = validate::validate(&node_cache, &known, &context.config);
    if let Ok(effective) = &decided {
        apply::apply_all(&context, &build::build(effective)).await?;
    }
    status::tell(&node_cache, &context, &known, decided.as_ref()).await?;
    in_use::look(&node_cache, &context).await;
    gone::forget(&node_cache, &context).await;
    Ok(Action::requeue(per_node::write(&node_cache, &context, known.node_caches.len()).await))
}

/// The name of a NodeCache's DaemonSet, ConfigMap and ServiceAccount; agents are known by the last.
fn child_name(node_cache: &str) -> String {
    format!("larder-{node_cache}")
}
