//! What is done by hand or by the chart's Jobs: print the custom resource definitions, apply them, take everything off
//! the nodes again. Must not run beside the stories' own loops: it ends.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, interval, timeout};

use crate::apply::FIELD_MANAGER;
use crate::crd::{self, NodeCache};
use crate::{defaults, error};

/// How long the API server may take to serve a new definition.
const ESTABLISHED: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the definitions could not be applied, or the nodes not be freed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{0}")]
    Api(#[source] error::Error),
    #[error(
        "the group {group} has another owner here: {names}. Nothing was changed. Remove that product first, or install \
         Larder in another cluster"
    )]
    ForeignOwner { group: &'static str, names: String },
    #[error("{name} is not served after {}s", ESTABLISHED.as_secs())]
    NotEstablished { name: String },
    #[error(
        "not gone after {}: NodeCache {names}. Their nodes' entries in certs.d may still be there; is larder-controller \
         running? `kubectl describe nodecache` says what it waits for", larder_wire::units::format_duration(*.waited)
    )]
    NotGone { names: String, waited: Duration },
}

impl From<error::Error> for InstallError {
    fn from(error: error::Error) -> Self {
        Self::Api(error)
    }
}

/// Applies every definition, unless the group belongs to somebody else; then nothing is touched.
///
/// # Errors
/// See [`InstallError`]. Applying again goes on where it ended.
pub async fn apply_definitions(client: Client) -> Result<Vec<String>, InstallError> {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let there = api.list(&ListParams::default()).await.map_err(error::Error::api("list the definitions"))?;
    let foreign: BTreeSet<String> = there
        .items
        .iter()
        .filter(|definition| definition.spec.group == crd::GROUP && !crd::is_ours(definition))
        .map(ResourceExt::name_any)
        .collect();
    if !foreign.is_empty() {
        let names = foreign.into_iter().collect::<Vec<_>>().join(", ");
        return Err(InstallError::ForeignOwner { group: crd::GROUP, names });
    }
    let mut applied = Vec::new();
    for definition in crd::all() {
        let name = definition.name_any();
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&definition))
            .await
            .map_err(error::Error::api(format!("apply the definition {name}")))?;
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        if !matches!(timeout(ESTABLISHED, served).await, Ok(Ok(_))) {
            return Err(InstallError::NotEstablished { name });
        }
        applied.push(name);
    }
    Ok(applied)
}

/// Deletes every NodeCache and waits until the nodes have taken their entries out; the running controller does that.
/// What was made from the chart's defaults is forgotten, so that the next install makes it again.
///
/// # Errors
/// See [`InstallError`]. Asking again is harmless.
pub async fn uninstall(client: Client, namespace: &str, patience: Duration) -> Result<usize, InstallError> {
    let api: Api<NodeCache> = Api::all(client.clone());
    let names = node_caches(&api).await?;
    for name in &names {
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error::Error::api(format!("delete NodeCache {name}"))(error).into()),
        }
    }
    let (began, mut ticks) = (Instant::now(), interval(LOOK_EVERY));
    loop {
        ticks.tick().await;
        let left = node_caches(&api).await?;
        if left.is_empty() {
            forget_defaults(client, namespace).await?;
            return Ok(names.len());
        }
        if began.elapsed() >= patience {
            forget_defaults(client, namespace).await?;
            return Err(InstallError::NotGone { names: left.join(", "), waited: patience });
        }
    }
}

/// Last of all: a leader that begins meanwhile must not make the defaults anew.
async fn forget_defaults(client: Client, namespace: &str) -> Result<(), error::Error> {
    let record: Api<ConfigMap> = Api::namespaced(client, namespace);
    match record.delete(defaults::RECORD, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error::Error::api("forget the defaults")(error)),
    }
}

/// Names of all NodeCaches; none where the definition is not even there.
async fn node_caches(api: &Api<NodeCache>) -> Result<Vec<String>, error::Error> {
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items.iter().map(ResourceExt::name_any).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error::Error::api("list the NodeCaches")(error)),
    }
}
