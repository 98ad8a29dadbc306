//! THE STORY of a RegistryGateway: read what it stands in front of -> valid? -> build -> apply -> status. The gateway
//! itself decides about pushes; here it is deployed and given its policy. Must not touch the Registry.

mod apply;
mod build;
mod dereference;
mod policy;
mod settings;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;

use crate::apply::MANAGED_BY;
use crate::config::Config;
use crate::context::Context;
use crate::crd::RegistryGateway;
use crate::error::Error;
use dereference::Found;
use validate::{Refusal, Valid};

/// Secrets, and what others make of a Certificate, are not watched: the story looks again.
const AGAIN: Duration = Duration::from_secs(60);

/// Makes the cluster be as the RegistryGateway says.
///
/// # Errors
/// What passes by itself: the API server is away, or refuses for now.
pub async fn reconcile(gateway: Arc<RegistryGateway>, context: Arc<Context>) -> Result<Action, Error> {
    if gateway.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (deployment, decided) = match dereference::dereference(&context, &gateway).await {
        Ok(found) => advance(&context, &gateway, found).await?,
        Err(error) => (None, Err(Refusal::of_reading(error)?)),
    };
    status::report(&context, &gateway, deployment.as_ref(), decided.as_ref()).await?;
    Ok(Action::requeue(AGAIN))
}

/// The Deployment as it is at the end, and what was decided.
async fn advance(
    context: &Context,
    gateway: &RegistryGateway,
    found: Found,
) -> Result<(Option<Deployment>, Result<Valid, Refusal>), Error> {
    let valid = match validate::validate(gateway, &found, &context.config) {
        Ok(valid) => valid,
        Err(refusal) => return Ok((found.deployment, Err(refusal))),
    };
    match apply::apply(context, build::build(&valid)).await {
        Ok(deployment) => Ok((deployment, Ok(valid))),
        Err(error) => Ok((found.deployment, Err(Refusal::of_writing(error)?))),
    }
}

/// Gateways and what they own; whether the Registry is there is looked at again.
#[must_use]
pub fn watch(client: &Client, _config: &Config) -> Controller<RegistryGateway> {
    let ours = watcher::Config::default()
        .labels(&format!("{}={},app.kubernetes.io/component=gateway", MANAGED_BY.0, MANAGED_BY.1));
    Controller::new(Api::all(client.clone()), watcher::Config::default())
        .owns(Api::<Deployment>::all(client.clone()), ours.clone())
        .owns(Api::<ConfigMap>::all(client.clone()), ours)
}
