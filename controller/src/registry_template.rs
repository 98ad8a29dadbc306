//! THE STORY of a RegistryTemplate: who uses it -> is what it gives sound -> status. It has no children: the Registries
//! that name it are made anew by their own story. Must not touch a Registry.

mod dereference;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::Api;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use crate::config::Config;
use crate::context::Context;
use crate::crd::{Registry, RegistryTemplate};
use crate::error::Error;

/// A Registry that goes to another template tells only the new one; this one looks by itself.
const AGAIN: Duration = Duration::from_secs(60);

/// Tells who uses the template, and whether it can be used.
///
/// # Errors
/// What passes by itself: the API server is away, or refuses for now.
pub async fn reconcile(template: Arc<RegistryTemplate>, context: Arc<Context>) -> Result<Action, Error> {
    if template.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let used_by = dereference::used_by(&context, &template).await?;
    let verdict = validate::validate(template.settings());
    status::report(&context, &template, used_by, verdict).await?;
    Ok(Action::requeue(AGAIN))
}

/// Templates, and the Registries that name one.
#[must_use]
pub fn watch(client: &Client, _config: &Config) -> Controller<RegistryTemplate> {
    let named = |registry: Registry| registry.template_name().map(ObjectRef::new);
    Controller::new(Api::all(client.clone()), watcher::Config::default()).watches(
        Api::<Registry>::all(client.clone()),
        watcher::Config::default(),
        named,
    )
}
