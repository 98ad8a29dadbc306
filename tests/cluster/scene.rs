//! What the suites of NodeCaches share: a pool of a test's own in the cluster that they share, and waiting for what an
//! object's status says. Must not expect anything itself but that it comes in time.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams, PostParams};
use larder_controller::crd::{Cache, NodeCache};
use larder_tests::cluster::{AGENTS, Cluster, Led, NAMESPACE, wait_for};
use larder_wire::settings::{Settings, parse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// More than the controller ever takes of itself: it looks again at everything within a minute.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// Nodes, a NodeCache and Caches of one test, kept apart from those of others by a label.
pub(crate) struct Pool {
    pub(crate) led: Led,
    /// Of the NodeCache too.
    pub(crate) name: String,
}

/// What one Cache or NodeCache can be asked for, whatever cluster it is in.
pub(crate) fn node_caches(cluster: &Cluster) -> Api<NodeCache> {
    Api::all(cluster.admin.clone())
}

pub(crate) fn caches(cluster: &Cluster) -> Api<Cache> {
    Api::all(cluster.admin.clone())
}

/// In the agents' namespace.
pub(crate) fn of_agents<K>(cluster: &Cluster) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(cluster.admin.clone(), AGENTS)
}

impl Pool {
    /// Without a NodeCache yet.
    pub(crate) async fn new(prefix: &str) -> Option<Self> {
        let led = Led::start().await?;
        let name = led.cluster.name(prefix);
        Some(Self { led, name })
    }

    /// Makes the NodeCache, and waits until it has been looked at.
    pub(crate) async fn node_cache(&self, spec: Value) {
        self.node_cache_called(&self.name, spec).await;
        made(&self.led.cluster, &self.name).await;
    }

    /// Makes a NodeCache for the pool's nodes and Caches.
    pub(crate) async fn node_cache_called(&self, name: &str, mut spec: Value) {
        spec["nodeSelector"] = json!({"pool": self.name});
        spec["cacheSelector"] = json!({"matchLabels": {"pool": self.name}});
        let object = json!({"metadata": {"name": name}, "spec": spec});
        make(&node_caches(&self.led.cluster), object).await;
    }

    /// Makes a Cache for a registry of its own, [`Pool::host`]; its name.
    pub(crate) async fn cache(&self, short: &str, mut spec: Value) -> String {
        if spec.get("upstreamRegistryURL").is_none() {
            spec["upstreamRegistryURL"] = format!("https://{}", self.host(short)).into();
        }
        let name = format!("{}-{short}", self.name);
        let object = json!({"metadata": {"name": name, "labels": {"pool": self.name}}, "spec": spec});
        make(&caches(&self.led.cluster), object).await;
        name
    }

    pub(crate) fn host(&self, short: &str) -> String {
        format!("{short}.{}.example", self.name)
    }

    /// A node of the pool.
    pub(crate) async fn node(&self, short: &str) -> String {
        let name = format!("{}-{short}", self.name);
        self.led.cluster.node(&name, &[("pool", &self.name)]).await;
        name
    }

    /// The name of its children.
    pub(crate) fn child(&self) -> String {
        format!("larder-{}", self.name)
    }

    /// What its nodes mount.
    pub(crate) async fn settings(&self) -> Option<Settings> {
        settings(&self.led.cluster, &self.name).await
    }

    /// Waits until its nodes mount settings as wanted.
    pub(crate) async fn until_settings(&self, what: &str, wanted: impl Fn(&Settings) -> bool) -> Settings {
        wait_for(what, SOON, async || self.settings().await.filter(|settings| wanted(settings))).await
    }

    /// The registries that its nodes are given.
    pub(crate) async fn registries(&self) -> Vec<String> {
        registries(&self.led.cluster, &self.name).await
    }

    /// Its DaemonSet's generation, which rises with every change that could touch a pod.
    pub(crate) async fn generation(&self) -> i64 {
        let daemon_set: DaemonSet = of_agents(&self.led.cluster).get(&self.child()).await.unwrap();
        daemon_set.metadata.generation.unwrap()
    }

    /// Merges a patch into its NodeCache.
    pub(crate) async fn change(&self, patch: Value) {
        merge(&node_caches(&self.led.cluster), &self.name, patch).await;
    }

    /// The end of a test: the rights that the chart gives were enough for all that was done.
    pub(crate) async fn end(&self) {
        let refused = self.led.metric("larder_controller_api_requests_total", &[("code", "403")]).await;
        assert!(refused == 0.0, "{refused} requests were refused: the chart does not grant what they need");
    }
}

/// What the nodes of a NodeCache mount.
async fn settings(cluster: &Cluster, node_cache: &str) -> Option<Settings> {
    let map: Option<ConfigMap> = of_agents(cluster).get_opt(&format!("larder-{node_cache}")).await.unwrap();
    let parsed = parse(map?.data?.get("larder.toml")?);
    // Somebody who writes nonsense there is corrected.
    parsed.mistakes.is_empty().then_some(parsed.settings)
}

/// The registries that the nodes of a NodeCache are given.
pub(crate) async fn registries(cluster: &Cluster, node_cache: &str) -> Vec<String> {
    let settings = settings(cluster, node_cache).await.unwrap_or_default();
    settings.upstreams.iter().map(|upstream| upstream.registry.to_string()).collect()
}

/// Waits until a NodeCache was looked at to its end.
pub(crate) async fn made(cluster: &Cluster, node_cache: &str) {
    let api = node_caches(cluster);
    let looked_at = async || condition(&api, node_cache, "ConfigDistributed").await;
    wait_for(format!("NodeCache {node_cache} has its children"), SOON, looked_at).await;
}

/// A token of somebody who may get a page of the controller's.
pub(crate) async fn reader(cluster: &Cluster, name: &str, page: &str) -> String {
    cluster.service_account("default", name).await;
    let role = ["create", "clusterrole", name, "--verb=get", &format!("--non-resource-url={page}")];
    let _ = cluster.kubectl(&role, "").await.well();
    let whom = format!("--serviceaccount=default:{name}");
    let binding = ["create", "clusterrolebinding", name, &format!("--clusterrole={name}"), &whom];
    let _ = cluster.kubectl(&binding, "").await.well();
    let whom = format!("--as=system:serviceaccount:default:{name}");
    // What RBAC goes by is a watch behind.
    let may = async || {
        let said = cluster.kubectl(&["auth", "can-i", "get", page, &whom], "").await;
        (said.code == Some(0)).then_some(())
    };
    wait_for("the binding is known", SOON, may).await;
    cluster.token("default", name, TokenRequestSpec::default()).await
}

/// Makes an object of a kind that is known by its API.
pub(crate) async fn make<K>(api: &Api<K>, object: Value)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

pub(crate) async fn merge<K>(api: &Api<K>, name: &str, patch: Value)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Makes a Secret in the controller's namespace, or changes it.
pub(crate) async fn secret(cluster: &Cluster, name: &str, data: Value) {
    let api: Api<Secret> = Api::namespaced(cluster.admin.clone(), NAMESPACE);
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(secret)).await.unwrap();
}

/// Touches an object, so that it is looked at.
pub(crate) async fn touch<K>(api: &Api<K>, name: &str)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    merge(api, name, json!({"metadata": {"annotations": {"touched": now}}})).await;
}

/// A condition as it is now.
pub(crate) async fn condition<K>(api: &Api<K>, name: &str, type_: &str) -> Option<Condition>
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object = serde_json::to_value(api.get_opt(name).await.unwrap()?).unwrap();
    let conditions: Vec<Condition> =
        serde_json::from_value(object["status"]["conditions"].clone()).unwrap_or_default();
    conditions.into_iter().find(|condition| condition.type_ == type_)
}

/// Waits until a condition has that status and reason; its message.
pub(crate) async fn told<K>(api: &Api<K>, name: &str, [type_, status, reason]: [&str; 3]) -> String
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let said = async || {
        let condition = condition(api, name, type_).await?;
        (condition.status == status && condition.reason == reason).then_some(condition.message)
    };
    wait_for(format!("{name}: {type_}={status} {reason}"), SOON, said).await
}

/// Waits until an object is gone.
pub(crate) async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let absent = async || api.get_opt(name).await.unwrap().is_none().then_some(());
    wait_for(format!("{name} is gone"), SOON, absent).await;
}
