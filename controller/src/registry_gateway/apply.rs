//! The apply step of a RegistryGateway: children in their order, then away with what is not wanted any more.

use k8s_openapi::api::apps::v1::Deployment;

use super::build::Built;
use crate::apply::{apply_all, remove};
use crate::context::Context;
use crate::error::Error;

/// The Deployment as it is now.
pub(super) async fn apply(context: &Context, built: Built) -> Result<Option<Deployment>, Error> {
    let applied = apply_all(context, &built.children).await?;
    for child in &built.unwanted {
        remove(context, child).await?;
    }
    // The Deployment comes last.
    let Some(last) = applied.into_iter().next_back() else { return Ok(None) };
    let value = serde_json::to_value(&last.live).map_err(Error::malformed("the gateway's Deployment"))?;
    serde_json::from_value(value).map_err(Error::malformed("the gateway's Deployment"))
}
