//! The cluster around a controller: what its administrator made, nodes as kubelets make them, each with an agent's pod
//! and its token. Must not report.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{self, Pod, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use larder_controller::apply;
use larder_controller::crd::NodeCacheReport;
use larder_tests::cluster::{AGENTS, Cluster};
use larder_wire::settings::{Settings, parse};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::agents::VERSION;

/// Upstreams that there are at first.
pub(super) const FIRST: usize = 4;
const CACHES: [(&str, &str); FIRST] = [
    ("docker-io", "https://registry-1.docker.io"),
    ("registry-k8s-io", "https://registry.k8s.io"),
    ("ghcr-io", "https://ghcr.io"),
    ("quay-io", "https://quay.io"),
];
const ADDED: (&str, &str) = ("gcr-io", "https://gcr.io");
const NODE_CACHE: &str = "default";
const CHILD: &str = "larder-default";
/// Nodes that are made at once.
const AT_ONCE: usize = 32;
/// A kubelet writes the status of a node on which nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// A node's agent as the kubelet starts it.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) token: String,
}

/// Custom resources, the chart's rights, a NodeCache and its Caches; the controller's kubeconfig.
pub(super) async fn prepare(cluster: &Cluster) -> PathBuf {
    cluster.install_crds().await;
    let kubeconfig = cluster.install_rights().await;
    for (name, url) in CACHES {
        make_cache(cluster, name, url).await;
    }
    cluster.space_called(AGENTS).await.make("NodeCache", NODE_CACHE, json!({ "spec": {} })).await;
    kubeconfig
}

/// One more upstream, for every node.
pub(super) async fn add_cache(cluster: &Cluster) {
    make_cache(cluster, ADDED.0, ADDED.1).await;
}

async fn make_cache(cluster: &Cluster, name: &str, url: &str) {
    let spec = json!({ "spec": { "upstreamRegistryURL": url } });
    cluster.space_called(AGENTS).await.make("Cache", name, spec).await;
}

/// What agents mount, once it has so many upstreams.
pub(super) async fn settings(cluster: &Cluster, upstreams: usize) -> Settings {
    let agents = cluster.space_called(AGENTS).await;
    let with = |map: &Value| {
        let settings = parse(map["data"]["larder.toml"].as_str()?).settings;
        (settings.upstreams.len() == upstreams).then_some(settings)
    };
    agents.until("ConfigMap", CHILD, format!("it has {upstreams} upstreams"), with).await
}

/// Makes nodes that have been there for long: the controller has told of each that it is ready. Their kubelets go on to
/// write their status until the handle is aborted.
pub(super) async fn nodes(
    cluster: &Cluster,
    count: usize,
    settings: &Settings,
) -> Result<(Vec<Node>, JoinHandle<()>)> {
    cluster.service_account(AGENTS, CHILD).await;
    let client = &cluster.admin;
    let made = (0..count).map(|at| node(client, format!("node-{at:05}"), settings));
    let nodes: Vec<Node> = stream::iter(made).buffer_unordered(AT_ONCE).try_collect().await?;
    let pods = json!({
        "desiredNumberScheduled": count, "currentNumberScheduled": count, "updatedNumberScheduled": count,
        "numberReady": count, "numberAvailable": count, "numberMisscheduled": 0, "observedGeneration": 1,
    });
    cluster.space_called(AGENTS).await.change_status("DaemonSet", CHILD, pods).await;
    let names = nodes.iter().map(|node| node.name.clone()).collect();
    Ok((nodes, tokio::spawn(beat(client.clone(), names))))
}

async fn node(client: &Client, name: String, settings: &Settings) -> Result<Node> {
    let object: v1::Node = of(json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "node.kubernetes.io/instance-type": "m5.2xlarge", "topology.kubernetes.io/region": "eu-1",
                "topology.kubernetes.io/zone": "eu-1a", "pool": "default",
            },
            "annotations": { "volumes.kubernetes.io/controller-managed-attach-detach": "true" },
        },
        "status": { "nodeInfo": node_info(), "conditions": [ready()] },
    }))?;
    let (all, post) = (Api::all(client.clone()), PostParams::default());
    all.create(&post, &object).await.with_context(|| format!("node {name}"))?;
    let pod: Pod = of(json!({
        "metadata": { "name": format!("{CHILD}-{name}") },
        "spec": {
            "nodeName": name, "serviceAccountName": CHILD,
            "containers": [{ "name": "agent", "image": "none.test/none:1" }],
        },
    }))?;
    let pods = Api::namespaced(client.clone(), AGENTS);
    let pod: Pod = pods.create(&post, &pod).await.with_context(|| format!("the pod of {name}"))?;
    let token = token(client, &pod).await.with_context(|| format!("the token of {name}"))?;
    let registries: Vec<Value> = settings
        .upstreams
        .iter()
        .map(|upstream| json!({ "registry": upstream.registry.to_string(), "state": "installed" }))
        .collect();
    let report: NodeCacheReport = of(json!({
        "apiVersion": "registry-operator.dev/v1alpha1", "kind": "NodeCacheReport",
        "metadata": { "name": name, "labels": apply::labels("agent", NODE_CACHE) },
        "spec": {
            "node": name, "nodeCache": NODE_CACHE, "state": "Ready", "generation": settings.generation,
            "version": VERSION, "registries": registries,
        },
    }))?;
    let (reports, as_controller) = (Api::all(client.clone()), PatchParams::apply(apply::FIELD_MANAGER));
    let report = Patch::Apply(&report);
    let _: NodeCacheReport = reports
        .patch(&name, &as_controller, &report)
        .await
        .with_context(|| format!("the report of {name}"))?;
    Ok(Node { name, token })
}

/// The token that the kubelet puts into the pod's volume.
async fn token(client: &Client, pod: &Pod) -> Result<String> {
    let spec: TokenRequestSpec = of(json!({
        "audiences": ["larder-controller"], "expirationSeconds": 3600,
        "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid() },
    }))?;
    let (accounts, request) = (
        Api::<ServiceAccount>::namespaced(client.clone(), AGENTS),
        TokenRequest { spec, ..TokenRequest::default() },
    );
    let made = accounts.create_token_request(CHILD, &PostParams::default(), &request).await?;
    Ok(made.status.context("an answer without a token")?.token)
}

/// Every node's status, one after the other, for ever.
async fn beat(client: Client, nodes: Vec<String>) {
    let api: Api<v1::Node> = Api::all(client);
    let mut beats = interval(HEARTBEAT.div_f64(nodes.len() as f64));
    for node in nodes.iter().cycle() {
        beats.tick().await;
        let status = Patch::Merge(json!({ "status": { "conditions": [ready()] } }));
        // The next one comes in five minutes.
        let _ = api.patch_status(node, &PatchParams::default(), &status).await;
    }
}

fn ready() -> Value {
    let now = Timestamp::now().to_string();
    json!({ "type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now })
}

fn node_info() -> Value {
    json!({
        "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://2.1.4",
        "kernelVersion": "6.12.0", "kubeProxyVersion": "", "kubeletVersion": "v1.34.4", "machineID": "",
        "operatingSystem": "linux", "osImage": "Debian GNU/Linux 13", "systemUUID": "",
    })
}

fn of<K: DeserializeOwned>(object: Value) -> Result<K> {
    serde_json::from_value(object).context("a fixed object is not right")
}
