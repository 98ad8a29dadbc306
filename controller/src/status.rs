//! The only way to write a status: server-side apply to the status subresource, and only when it differs from what the
//! object has. Must not touch the spec.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::apply::FIELD_MANAGER;
use crate::context::Context;
use crate::error::Error;

/// Writes `new` when it is not `old`, which is what the story read at its beginning.
///
/// # Errors
/// When the API server refuses or is not there. An object deleted in between is no error.
pub async fn write<K, S>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: Serialize + PartialEq,
{
    if old == Some(new) {
        return Ok(());
    }
    let name = object.name_any();
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // The uid makes the API server refuse an object of the same name that was made in between.
        "metadata": {"name": name, "uid": object.uid()},
        "status": new,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&name, &parameters, &Patch::Apply(patch)).await {
        Ok(_) => {
            context.metrics.status_writes(&K::kind(&()));
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api(format!("write the status of {} {name}", K::kind(&())))(error)),
    }
}
