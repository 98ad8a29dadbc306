//! The NodeCache and Caches that a first install begins with, from the chart's values. Made once: what an administrator
//! then changes or deletes stays so, until the values themselves change. Must not force anything on an existing object.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::apply::{FIELD_MANAGER, MANAGED_BY};
use crate::context::Context;
use crate::crd::{Cache, NodeCache};
use crate::error::{Error, chain};

/// The ConfigMap that remembers what was made: `KIND.NAME` to a hash of what the values said.
pub const RECORD: &str = "larder-defaults";

/// The field manager of values: an administrator's own edit of the same field is a conflict, and wins.
const VALUES: &str = "larder-defaults";

/// Why the file of defaults cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefaultsError {
    #[error("--defaults {path} cannot be read")]
    Read { path: String, source: std::io::Error },
    #[error("--defaults {path} is no YAML")]
    Parse { path: String, source: Box<serde_saphyr::Error> },
    #[error("--defaults {path}: document {number} must be a NodeCache or a Cache with a name")]
    Kind { path: String, number: usize },
}

/// One object of the file.
#[derive(Clone, Debug)]
pub struct Default {
    resource: ApiResource,
    object: DynamicObject,
    key: String,
    hash: String,
}

/// Reads the file: NodeCaches and Caches, `---` between them.
///
/// # Errors
/// See [`DefaultsError`].
pub fn read(path: &Path) -> Result<Vec<Default>, DefaultsError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| DefaultsError::Read { path: name.clone(), source })?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|source| DefaultsError::Parse { path: name.clone(), source: Box::new(source) })?;
    documents
        .into_iter()
        .enumerate()
        .filter(|(_, document)| !document.is_null())
        .map(|(at, document)| {
            parse(document).ok_or_else(|| DefaultsError::Kind { path: name.clone(), number: at + 1 })
        })
        .collect()
}

fn parse(document: Value) -> Option<Default> {
    let hash = Sha256::digest(document.to_string().as_bytes());
    let hash = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let object: DynamicObject = serde_json::from_value(document).ok()?;
    let types = object.types.as_ref()?;
    let resource = [ApiResource::erase::<NodeCache>(&()), ApiResource::erase::<Cache>(&())]
        .into_iter()
        .find(|resource| resource.kind == types.kind && resource.api_version == types.api_version)?;
    let key = format!("{}.{}", resource.kind, object.metadata.name.as_deref()?);
    Some(Default { resource, object, key, hash })
}

/// Makes what was never made, and brings up to date what the values changed since. Everything else is left alone.
///
/// # Errors
/// When the API server is not there, or does not serve the kind yet. An object that it refuses is told, and tried again
/// at the next start.
pub async fn make(context: &Context, defaults: &[Default]) -> Result<(), Error> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.config.namespace);
    let record = api.get_opt(RECORD).await.map_err(Error::api(format!("read ConfigMap {RECORD}")))?;
    let made = record.as_ref().and_then(|record| record.data.clone()).unwrap_or_default();
    let (mut now, mut failed) = (made.clone(), None);
    for default in defaults.iter().filter(|default| made.get(&default.key) != Some(&default.hash)) {
        match make_one(context, default, made.contains_key(&default.key)).await {
            Ok(()) => {
                info!(object = default.key, "made from the defaults");
                now.insert(default.key.clone(), default.hash.clone());
            }
            Err(error) if error.is_refusal() => {
                warn!(object = default.key, error = chain(&error), "a default is refused; mend the values");
            }
            Err(error) => failed = Some(error),
        }
    }
    if now != made {
        remember(&api, record, now).await?;
    }
    failed.map_or(Ok(()), Err)
}

async fn make_one(context: &Context, default: &Default, again: bool) -> Result<(), Error> {
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &default.resource);
    let (name, what) = (default.object.name_any(), format!("make {}", default.key));
    let live = api.get_opt(&name).await.map_err(Error::api(what.clone()))?;
    if live.as_ref().is_some_and(|live| live.metadata.deletion_timestamp.is_some()) {
        return Err(Error::Going(default.key.clone()));
    }
    if live.is_none() && again || live.is_some() && !again {
        // Deleted by an administrator, or made by one before us.
        return Ok(());
    }
    let parameters = PatchParams::apply(VALUES);
    match api.patch(&name, &parameters, &Patch::Apply(&default.object)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            warn!(object = default.key, "an administrator changed it: the new values are not applied to it");
            Ok(())
        }
        Err(error) => Err(Error::api(what)(error)),
    }
}

async fn remember(
    api: &Api<ConfigMap>,
    record: Option<ConfigMap>,
    data: BTreeMap<String, String>,
) -> Result<(), Error> {
    let what = || Error::api(format!("write ConfigMap {RECORD}"));
    if let Some(mut record) = record {
        record.data = Some(data);
        return api.replace(RECORD, &PostParams::default(), &record).await.map(drop).map_err(what());
    }
    let record = ConfigMap {
        metadata: ObjectMeta {
            name: Some(RECORD.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())])),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    };
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    api.create(&parameters, &record).await.map(drop).map_err(what())
}
