//! The finalizer that keeps a NodeCache until its nodes have taken their entries out. Must not decide when that is.

use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::apply::FIELD_MANAGER;
use crate::context::Context;
use crate::crd::NodeCache;
use crate::error::Error;

/// Held from before the first child on.
const FINALIZER: &str = "registry-operator.dev/withdraw";

pub(super) fn is_held(node_cache: &NodeCache) -> bool {
    node_cache.finalizers().iter().any(|held| held == FINALIZER)
}

/// Holds the object; writes only when it is not held yet.
pub(super) async fn hold(node_cache: &NodeCache, context: &Context) -> Result<(), Error> {
    if is_held(node_cache) {
        return Ok(());
    }
    let all = node_cache.finalizers().iter().map(String::as_str).chain([FINALIZER]);
    write(node_cache, context, all.collect()).await
}

/// Lets the object go.
pub(super) async fn release(node_cache: &NodeCache, context: &Context) -> Result<(), Error> {
    let others = node_cache.finalizers().iter().map(String::as_str).filter(|held| *held != FINALIZER);
    write(node_cache, context, others.collect()).await
}

/// The resourceVersion makes the API server refuse when somebody else changed the list meanwhile; the next reconcile
/// reads it anew.
async fn write(node_cache: &NodeCache, context: &Context, finalizers: Vec<&str>) -> Result<(), Error> {
    let name = node_cache.name_any();
    let metadata = json!({"finalizers": finalizers, "resourceVersion": node_cache.resource_version()});
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api: Api<NodeCache> = Api::all(context.client.clone());
    match api.patch_metadata(&name, &parameters, &Patch::Merge(json!({"metadata": metadata}))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api(format!("write the finalizers of NodeCache {name}"))(error)),
    }
}
