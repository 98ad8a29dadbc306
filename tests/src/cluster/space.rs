//! One namespace of a cluster and what is in it, as JSON: made, changed, and waited for. Must not know what a test expects.

use std::fmt::Display;

use k8s_openapi::jiff::Timestamp;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::{Cluster, LOOK};
use crate::wait::within;

/// More than the controller ever takes of itself: what it does not watch it looks at again within a minute.
const SOON: std::time::Duration = std::time::Duration::from_secs(120);

/// Kind, group, version, plural; the last says whether it stands in a namespace.
const KINDS: [(&str, &str, &str, &str, bool); 21] = [
    ("Registry", "registry-operator.dev", "v1alpha1", "registries", true),
    ("RegistryGateway", "registry-operator.dev", "v1alpha1", "registrygateways", true),
    ("RegistryTemplate", "registry-operator.dev", "v1alpha1", "registrytemplates", false),
    ("NodeCache", "registry-operator.dev", "v1alpha1", "nodecaches", false),
    ("Cache", "registry-operator.dev", "v1alpha1", "caches", false),
    ("Deployment", "apps", "v1", "deployments", true),
    ("DaemonSet", "apps", "v1", "daemonsets", true),
    ("Job", "batch", "v1", "jobs", true),
    ("Pod", "", "v1", "pods", true),
    ("Namespace", "", "v1", "namespaces", false),
    ("Service", "", "v1", "services", true),
    ("ConfigMap", "", "v1", "configmaps", true),
    ("Secret", "", "v1", "secrets", true),
    ("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", true),
    ("Ingress", "networking.k8s.io", "v1", "ingresses", true),
    ("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets", true),
    ("Event", "events.k8s.io", "v1", "events", true),
    ("BucketClaim", "objectstorage.k8s.io", "v1alpha1", "bucketclaims", true),
    ("Bucket", "objectstorage.k8s.io", "v1alpha1", "buckets", false),
    ("BucketAccess", "objectstorage.k8s.io", "v1alpha1", "bucketaccesses", true),
    ("CustomResourceDefinition", "apiextensions.k8s.io", "v1", "customresourcedefinitions", false),
];

/// A namespace; the methods take kinds as they are written in YAML. Kinds without a namespace can be named too.
#[derive(Clone)]
pub struct Space {
    client: Client,
    pub name: String,
}

impl Cluster {
    /// A namespace of a name that no other test has.
    pub async fn space(&self, prefix: &str) -> Space {
        let name = self.namespace(prefix).await;
        Space { client: self.admin.clone(), name }
    }

    /// A namespace by its name, made if it is not there.
    pub async fn space_called(&self, name: &str) -> Space {
        self.namespace_called(name).await;
        Space { client: self.admin.clone(), name: name.to_owned() }
    }
}

impl Space {
    /// An object; nothing where it is not there.
    ///
    /// # Panics
    /// When the API server refuses, as everywhere here.
    pub async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let found = within(format!("{kind} {name}"), self.api(kind).get_opt(name)).await;
        found.expect("an object can be read").map(|object| value(&object))
    }

    /// Everything of a kind that has these labels, `key=value,...`; all for an empty text.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub async fn list(&self, kind: &str, labels: &str) -> Vec<Value> {
        let found = self.api(kind).list(&ListParams::default().labels(labels)).await;
        found.expect("objects can be listed").iter().map(value).collect()
    }

    /// Makes an object; `rest` is everything but type and name.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub async fn make(&self, kind: &str, name: &str, mut rest: Value) -> Value {
        let resource = resource(kind).0;
        rest["apiVersion"] = resource.api_version.into();
        rest["kind"] = kind.into();
        rest["metadata"]["name"] = name.into();
        let object: DynamicObject = serde_json::from_value(rest).expect("an object has metadata");
        value(&self.api(kind).create(&PostParams::default(), &object).await.expect("an object is accepted"))
    }

    /// Merges a patch into an object.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub async fn change(&self, kind: &str, name: &str, patch: Value) -> Value {
        let changed = self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        value(&changed.expect("a change is accepted"))
    }

    /// Merges a patch into an object's status.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub async fn change_status(&self, kind: &str, name: &str, status: Value) {
        let (api, patch) = (self.api(kind), Patch::Merge(json!({"status": status})));
        api.patch_status(name, &PatchParams::default(), &patch).await.expect("a status is accepted");
    }

    /// Changes nothing that anybody asked for, so that the object is looked at again.
    pub async fn touch(&self, kind: &str, name: &str) {
        let now = Timestamp::now().to_string();
        self.change(kind, name, json!({"metadata": {"annotations": {"touched": now}}})).await;
    }

    /// Asks for an object's end.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub async fn delete(&self, kind: &str, name: &str) {
        self.api(kind).delete(name, &DeleteParams::background()).await.expect("an object may be deleted");
    }

    /// Waits until an object is as wanted.
    ///
    /// # Panics
    /// When it is not in time; the object as it is then is told.
    pub async fn until<T>(
        &self,
        kind: &str,
        name: &str,
        what: impl Display,
        mut look: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        let (end, mut looks) = (Instant::now() + SOON, interval(LOOK));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let object = self.get(kind, name).await;
            if let Some(found) = object.as_ref().and_then(&mut look) {
                return found;
            }
            let mut last = object.unwrap_or_default();
            last["metadata"]["managedFields"].take();
            assert!(
                Instant::now() < end,
                "{kind} {}/{name}: {what}: not within {SOON:?}\n{last:#}",
                self.name
            );
        }
    }

    /// Waits until a condition is as wanted, `Type=Status/Reason`; its message.
    pub async fn told(&self, kind: &str, name: &str, wanted: &str) -> String {
        self.until(kind, name, wanted, |object| {
            let conditions = object["status"]["conditions"].as_array()?;
            let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            let told = conditions.iter().find(|condition| {
                let [type_, status, reason] = ["type", "status", "reason"].map(|key| text(condition, key));
                format!("{type_}={status}/{reason}") == wanted
            })?;
            // What was true of an earlier spec is no answer.
            (told["observedGeneration"] == object["metadata"]["generation"]).then(|| text(told, "message"))
        })
        .await
    }

    /// Waits until an object is gone.
    pub async fn gone(&self, kind: &str, name: &str) {
        let absent = async || self.get(kind, name).await.is_none().then_some(());
        super::wait_for(format!("{kind} {}/{name} is gone", self.name), SOON, absent).await;
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        match resource(kind) {
            (resource, true) => Api::namespaced_with(self.client.clone(), &self.name, &resource),
            (resource, false) => Api::all_with(self.client.clone(), &resource),
        }
    }
}

fn resource(kind: &str) -> (ApiResource, bool) {
    let known = KINDS.into_iter().find(|known| known.0 == kind);
    let (kind, group, version, plural, is_namespaced) = known.expect("the table has every kind of a test");
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    (resource, is_namespaced)
}

fn value(object: &DynamicObject) -> Value {
    let mut object = object.clone();
    object.managed_fields_mut().clear();
    serde_json::to_value(object).expect("an object is JSON")
}
