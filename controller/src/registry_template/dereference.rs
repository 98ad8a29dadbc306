//! The dereference step of a RegistryTemplate: the Registries that name it. Must not judge them.

use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::context::Context;
use crate::crd::{Registry, RegistryTemplate};
use crate::error::Error;

/// How many Registries of any namespace name the template.
pub(super) async fn used_by(context: &Context, template: &RegistryTemplate) -> Result<usize, Error> {
    let registries: Api<Registry> = Api::all(context.client.clone());
    let all = registries.list(&ListParams::default()).await.map_err(Error::api("list Registries"))?;
    let name = template.name_any();
    Ok(all.iter().filter(|registry| registry.template_name() == Some(&name)).count())
}
