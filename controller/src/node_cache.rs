//! THE STORY of a NodeCache: the agents of a set of nodes. dereference -> validate -> build -> apply -> status, and a
//! withdrawal before it goes. Must not touch a pod for what a running agent reads by itself.

mod apply;
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
mod upstreams;
mod validate;
mod watch;
mod withdraw;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;

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
    let decided = apply::carry_out(&node_cache, &context, &known, decided).await?;
    status::tell(&node_cache, &context, &known, decided.as_ref()).await?;
    in_use::look(&node_cache, &context).await;
    gone::forget(&node_cache, &context).await;
    Ok(Action::requeue(per_node::write(&node_cache, &context, known.node_caches.len()).await))
}

/// The name of a NodeCache's DaemonSet, ConfigMap and ServiceAccount; agents are known by the last.
fn child_name(node_cache: &str) -> String {
    format!("larder-{node_cache}")
}

/// The name of the Secret beside them.
fn credentials_name(node_cache: &str) -> String {
    format!("{}-credentials", child_name(node_cache))
}
