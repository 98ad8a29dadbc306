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
    let found = dereference::dereference(&context, &gateway).await?;
    let decided = validate::validate(&gateway, &found, &context.config);
    let deployment = match &decided {
        Ok(valid) => apply::apply(&context, build::build(valid)).await?,
        Err(_) => found.deployment,
    };
    status::report(&context, &gateway, deployment.as_ref(), decided.as_ref()).await?;
    Ok(Action::requeue(AGAIN))
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
