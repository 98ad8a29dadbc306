//! What all replicas of a registry sign the state of uploads with: made once, and never made anew while it is there, or
//! every push under way would fail.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, PostParams};
use secrecy::SecretString;

use super::names::Names;
use super::trouble::{Part, Stop, Trouble};
use crate::apply::{FIELD_MANAGER, is_ours, labels, read};
use crate::context::Context;
use crate::crd::Registry;
use crate::error::Error;

const KEY: &str = "secret";

/// Reads it, and makes it where it is missing.
pub(super) async fn ensure(context: &Context, registry: &Registry) -> Result<SecretString, Stop> {
    let names = Names::of(registry);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &names.namespace);
    let name = names.http_secret();
    let found = match read(&secrets, &name).await? {
        Some(found) => found,
        None => create(&secrets, &new(registry, &names)?).await?,
    };
    if !is_ours(&found) {
        return Err(Error::NotOurs(format!("Secret {}/{name}", names.namespace)).into());
    }
    let bytes = found.data.as_ref().and_then(|data| data.get(KEY)).map(|value| value.0.as_slice());
    match bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).filter(|text| text.len() >= 32) {
        Some(text) => Ok(text.into()),
        None => {
            let words = format!("Secret {name} has lost its key {KEY}: delete it, and a new one is made");
            Err(Trouble::invalid(Part::Spec, "SecretUnreadable", words).into())
        }
    }
}

/// Creates and never replaces: whoever comes second takes the first one's.
async fn create(secrets: &Api<Secret>, new: &Secret) -> Result<Secret, Error> {
    let name = new.metadata.name.as_deref().unwrap_or_default();
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match secrets.create(&parameters, new).await {
        Ok(made) => Ok(made),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            secrets.get(name).await.map_err(Error::api(format!("read Secret {name}")))
        }
        Err(error) => Err(Error::api(format!("create Secret {name}"))(error)),
    }
}

fn new(registry: &Registry, names: &Names) -> Result<Secret, Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(names.http_secret()),
            namespace: Some(names.namespace.clone()),
            labels: Some(labels("registry", &names.registry)),
            owner_references: registry.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(text.into_bytes()))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    })
}
