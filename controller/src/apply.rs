//! The only way to write a child: look first, then server-side apply, and only when something differs. A second apply
//! of the same writes nothing; what somebody else changed is changed back. Must not know what the children are for.

mod agree;
#[cfg(test)]
pub(crate) mod golden;

use std::collections::BTreeMap;
use std::fmt;

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PropagationPolicy};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::error::Error;

/// One field manager for every replica: a new leader takes over what the last one applied.
pub const FIELD_MANAGER: &str = "larder-controller";

/// The label that every child carries.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "larder-controller");

/// What was last applied, so that a field no longer wanted is noticed.
const APPLIED: &str = "registry-operator.dev/applied";

/// An object that a build step wants to be there.
#[derive(Clone, Debug)]
pub struct Child {
    pub resource: ApiResource,
    pub object: DynamicObject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Updated,
    Unchanged,
}

/// What is in the cluster after an apply.
#[derive(Clone, Debug)]
pub struct Applied {
    pub live: DynamicObject,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    Asked,
    WasAbsent,
    /// It is there, but is not ours: left alone.
    NotOurs,
}

impl Child {
    /// # Panics
    /// Never for Kubernetes' own types: they all read as JSON objects.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        let resource = ApiResource::erase::<K>(&());
        let value = serde_json::to_value(object).expect("Kubernetes' types are JSON objects");
        let object = serde_json::from_value(value).expect("Kubernetes' types have metadata");
        Self::foreign(resource, object)
    }

    /// A child of a group that this crate has no types for.
    #[must_use]
    pub fn foreign(resource: ApiResource, mut object: DynamicObject) -> Self {
        object.types = Some(kube::core::TypeMeta {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
        });
        // What the API server keeps is not asked for.
        if let Some(data) = object.data.as_object_mut() {
            data.remove("status");
        }
        Self { resource, object }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.object.metadata.namespace.as_deref()
    }

    #[must_use]
    pub fn kind(&self) -> &str {
        &self.resource.kind
    }

    fn api(&self, context: &Context) -> Api<DynamicObject> {
        match self.namespace() {
            Some(namespace) => Api::namespaced_with(context.client.clone(), namespace, &self.resource),
            None => Api::all_with(context.client.clone(), &self.resource),
        }
    }

    /// The object with the mark of what was applied: a hash of all of it.
    fn marked(&self) -> DynamicObject {
        let mut object = self.object.clone();
        let text = serde_json::to_string(&object).unwrap_or_default();
        let hash = Sha256::digest(text.as_bytes());
        let short: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        object.annotations_mut().insert(APPLIED.to_owned(), short);
        object
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind(), self.name()),
            None => write!(f, "{} {}", self.kind(), self.name()),
        }
    }
}

/// Labels of a child: `component` is what it is (agent, registry, gateway), `instance` the custom resource's name.
#[must_use]
pub fn labels(component: &str, instance: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("app.kubernetes.io/name", "larder"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/instance", instance),
        MANAGED_BY,
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Makes the child be as wanted. Writes nothing when it is so already.
///
/// # Errors
/// When the API server refuses or is not there, or when somebody else made the object; nothing is half written.
pub async fn apply(context: &Context, child: &Child) -> Result<Applied, Error> {
    write(context, child, &PatchParams::apply(FIELD_MANAGER).force()).await
}

/// Asks whether [`apply`] would be let through, and changes nothing.
///
/// # Errors
/// As [`apply`]. Who cannot tell without the deed (a webhook with side effects) has not refused.
pub async fn rehearse(context: &Context, child: &Child) -> Result<(), Error> {
    match write(context, child, &PatchParams::apply(FIELD_MANAGER).force().dry_run()).await {
        Err(Error::Api { source: kube::Error::Api(status), .. })
            if status.message.contains("does not support dry run") =>
        {
            Ok(())
        }
        ended => ended.map(|_| ()),
    }
}

async fn write(context: &Context, child: &Child, how: &PatchParams) -> Result<Applied, Error> {
    let api = child.api(context);
    let wanted = child.marked();
    let live = api.get_opt(child.name()).await.map_err(Error::api(format!("read {child}")))?;
    if live.as_ref().is_some_and(|live| !is_ours(live)) {
        return Err(Error::NotOurs(child.to_string()));
    }
    if let Some(live) = live.as_ref().filter(|live| live.metadata.deletion_timestamp.is_none())
        && agree::is_as_wanted(live, &wanted)
    {
        return Ok(Applied { live: live.clone(), change: Change::Unchanged });
    }
    let change = if live.is_some() { Change::Updated } else { Change::Created };
    let live = api
        .patch(child.name(), how, &Patch::Apply(&wanted))
        .await
        .map_err(Error::api(format!("apply {child}")))?;
    Ok(Applied { live, change })
}

/// Applies the child only where nothing of its name is: what is there may be of an earlier spec, and stays.
///
/// # Errors
/// As [`apply`].
pub async fn apply_missing(context: &Context, child: &Child) -> Result<(), Error> {
    if read(&child.api(context), child.name()).await?.is_none() {
        apply(context, child).await?;
    }
    Ok(())
}

/// Whether an object carries our label.
#[must_use]
pub fn is_ours<K: Resource>(live: &K) -> bool {
    live.labels().get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1)
}

/// Applies children in their order; the first that fails ends it, and the next reconcile goes on there.
///
/// # Errors
/// As [`apply`].
pub async fn apply_all(context: &Context, children: &[Child]) -> Result<Vec<Applied>, Error> {
    let mut applied = Vec::with_capacity(children.len());
    for child in children {
        applied.push(apply(context, child).await?);
    }
    Ok(applied)
}

/// Deletes the child if it is there and carries our label. Asking again is harmless.
///
/// # Errors
/// When the API server refuses or is not there.
pub async fn remove(context: &Context, child: &Child) -> Result<Removed, Error> {
    let api = child.api(context);
    let Some(live) = read(&api, child.name()).await? else { return Ok(Removed::WasAbsent) };
    if !is_ours(&live) {
        return Ok(Removed::NotOurs);
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Ok(Removed::Asked);
    }
    // The very object that was looked at: one made anew in between is not ours to delete.
    let parameters = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        preconditions: Some(kube::api::Preconditions { uid: live.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(child.name(), &parameters).await {
        Ok(_) => Ok(Removed::Asked),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Removed::WasAbsent),
        Err(error) => Err(Error::api(format!("delete {child}"))(error)),
    }
}

/// Takes `uid` out of the owners of a live object of ours: it stays when that owner goes.
///
/// # Errors
/// When the API server refuses or is not there, or the object changed in between.
pub async fn disown(context: &Context, child: &Child, uid: &str) -> Result<(), Error> {
    let api = child.api(context);
    let Some(live) = read(&api, child.name()).await? else { return Ok(()) };
    let Some(patch) = without_owner(&live, uid) else { return Ok(()) };
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(child.name(), &parameters, &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api(format!("disown {child}"))(error)),
    }
}

/// The patch that leaves the other owners. Of this very object in this very state, so that no owner is lost.
fn without_owner(live: &DynamicObject, uid: &str) -> Option<Value> {
    let owners = live.owner_references();
    let others: Vec<_> = owners.iter().filter(|owner| owner.uid != uid).collect();
    let is_owned = others.len() < owners.len();
    (is_owned && is_ours(live)).then(|| {
        json!({"metadata": {
            "uid": live.uid(), "resourceVersion": live.resource_version(), "ownerReferences": others,
        }})
    })
}

/// Reads one object; one that is not there, or whose kind the API server does not have, is `None`.
///
/// # Errors
/// When the API server refuses or is not there.
pub async fn read<K>(api: &Api<K>, name: &str) -> Result<Option<K>, Error>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug,
{
    match api.get_opt(name).await {
        Ok(object) => Ok(object),
        // A kind that is not installed has no page, and so no reason either.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Error::api(format!("read {name} of {}", api.resource_url()))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_mark_on_our_own_object_is_taken_off() {
        let live = |label: &str, owners: &[&str]| -> DynamicObject {
            let owners: Vec<_> = owners
                .iter()
                .map(|uid| json!({"apiVersion": "v1", "kind": "Registry", "name": "main", "uid": uid}))
                .collect();
            serde_json::from_value(json!({"metadata": {
                "name": "main-registry", "uid": "u", "resourceVersion": "7",
                "labels": {MANAGED_BY.0: label}, "ownerReferences": owners,
            }}))
            .unwrap()
        };
        let patch = without_owner(&live(MANAGED_BY.1, &["me", "other"]), "me").unwrap();
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "other");
        assert_eq!(patch["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&patch["metadata"]["uid"], &patch["metadata"]["resourceVersion"]),
            (&json!("u"), &json!("7"))
        );
        assert_eq!(without_owner(&live(MANAGED_BY.1, &["other"]), "me"), None);
        assert_eq!(without_owner(&live("somebody", &["me"]), "me"), None);
    }
}
