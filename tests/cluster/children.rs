//! What a NodeCache is made into, against the golden file of the build step; and a controller that has nothing to do
//! writes nothing. A cluster of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use larder_tests::cluster::{AGENTS, Cluster, Controller, NAMESPACE, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, caches, made, make, node_caches, secret, told, touch};

/// Of the golden file: what the build step is given there.
const CACHES: [(&str, &str); 3] = [
    (
        "docker-io",
        "{upstreamRegistryURL: 'https://registry-1.docker.io', cacheTTL: 24h, maxCacheSize: 100Gi}",
    ),
    ("quay", "{upstreamRegistryURL: 'https://quay.io', secretReferenceName: quay, access: Shared}"),
    (
        "harbor",
        "{upstreamRegistryURL: 'https://harbor.example/hub', upstream: registry.example, tls: {caConfigMapRef: {name: \
         corp}}, overrideExisting: true, default: true, proxy: {httpsProxy: 'http://proxy.example:3128'}, tokenHosts: \
         [auth.example], allowCIDRs: [10.0.0.0/8]}",
    ),
];
const AUTHORITIES: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: corp}, data: {ca.crt: \
                           \"-----BEGIN CERTIFICATE-----\\nMA==\\n-----END CERTIFICATE-----\\n\"}}";

#[tokio::test]
async fn children_are_as_the_golden_file_says_and_are_not_written_twice() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let kubeconfig = cluster.install_rights().await;
    secret(&cluster, "quay", json!({"username": "robot", "password": "s3cret"})).await;
    let _ = cluster.apply(NAMESPACE, AUTHORITIES).await.well();
    for (name, spec) in CACHES {
        let spec: Value = serde_saphyr::from_str(spec).unwrap();
        make(&caches(&cluster), json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    make(&node_caches(&cluster), json!({"metadata": {"name": "default"}, "spec": {}})).await;
    let controller =
        Controller::start(&kubeconfig, &["--agent-image=registry.example/larder@sha256:0123"]).await;
    made(&cluster, "default").await;
    for (name, _) in CACHES {
        told(&caches(&cluster), name, ["Ready", "True", "Served"]).await;
    }
    are_as_kept(&cluster).await;

    let mut before = Marks::of(&cluster, &controller).await;
    loop {
        for _ in 0..3 {
            look_again(&cluster, &controller).await;
        }
        let after = Marks::of(&cluster, &controller).await;
        // When the new leader has waited two minutes for reports, statuses say so: that is news, once.
        if before.warming == after.warming {
            assert_eq!(after, before, "a second look writes nothing");
            break;
        }
        before = after;
    }
    let refused = controller.metric("larder_controller_api_requests_total", &[("code", "403")]).await;
    assert_eq!(refused, 0.0, "the chart grants what is needed");
}

/// Every child of the golden file is there and says at least that.
async fn are_as_kept(cluster: &Cluster) {
    let file = "../controller/tests/golden/node_cache/caches.yaml";
    let kept = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let uid = node_caches(cluster).get("default").await.unwrap().metadata.uid.unwrap();
    let kept: Vec<Value> =
        serde_saphyr::from_multiple(&kept.replace("uid: u-1", &format!("uid: {uid}"))).unwrap();
    assert_eq!(kept.len(), 4);
    for kept in kept {
        let (kind, name) = (kept["kind"].as_str().unwrap(), kept["metadata"]["name"].as_str().unwrap());
        assert_eq!(kept["metadata"]["namespace"], AGENTS);
        let get = ["get", kind, name, "--namespace", AGENTS, "--output=json"];
        let live: Value = serde_json::from_str(&cluster.kubectl(&get, "").await.well()).unwrap();
        holds(&live, &kept, &format!("{kind} {name}"));
    }
}

/// Everything that is kept is in the live object.
fn holds(live: &Value, kept: &Value, at: &str) {
    match (live, kept) {
        (Value::Object(live), Value::Object(kept)) => {
            for (key, kept) in kept {
                holds(live.get(key).unwrap_or(&Value::Null), kept, &format!("{at}.{key}"));
            }
        }
        (Value::Array(live), Value::Array(kept)) => {
            assert_eq!(live.len(), kept.len(), "{at}");
            live.iter()
                .zip(kept)
                .enumerate()
                .for_each(|(n, (live, kept))| holds(live, kept, &format!("{at}[{n}]")));
        }
        _ => assert_eq!(live, kept, "{at}"),
    }
}

/// What changes with every write.
#[derive(Debug, PartialEq)]
struct Marks {
    versions: BTreeMap<String, String>,
    statuses: BTreeMap<String, Value>,
    /// Requests that the controller itself counted, but for the Lease's.
    writes: f64,
    warming: bool,
}

impl Marks {
    async fn of(cluster: &Cluster, controller: &Controller) -> Self {
        let list = async |args: &[&str]| {
            let list = cluster.kubectl(&[&["get", "--output=json"], args].concat(), "").await.well();
            let list: Value = serde_json::from_str(&list).unwrap();
            let name = |item: &Value| format!("{} {}", item["kind"], item["metadata"]["name"]);
            let items = list["items"].as_array().unwrap().iter();
            items.map(|item| (name(item), item.clone())).collect::<BTreeMap<String, Value>>()
        };
        let children = list(&["serviceaccounts,secrets,configmaps,daemonsets", "--namespace", AGENTS]).await;
        let version = |item: Value| item["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let statuses: BTreeMap<String, Value> = list(&["nodecaches,caches"]).await;
        let statuses: BTreeMap<String, Value> =
            statuses.into_iter().map(|(name, item)| (name, item["status"].clone())).collect();
        let mut writes = 0.0;
        for verb in ["create", "patch", "delete"] {
            writes += controller.metric("larder_controller_api_requests_total", &[("verb", verb)]).await;
        }
        let warming = format!("{statuses:?}").contains("Warming");
        let versions = children.into_iter().map(|(name, item)| (name, version(item))).collect();
        Self { versions, statuses, writes, warming }
    }
}

/// Has every object looked at once more.
async fn look_again(cluster: &Cluster, controller: &Controller) {
    let looks = async |kind: &str| {
        controller.metric("larder_controller_reconciles_total", &[("kind", kind), ("result", "ok")]).await
    };
    let before = (looks("NodeCache").await, looks("Cache").await);
    touch(&node_caches(cluster), "default").await;
    for (name, _) in CACHES {
        touch(&caches(cluster), name).await;
    }
    let looked = async || {
        let now = (looks("NodeCache").await, looks("Cache").await);
        (now.0 >= before.0 + 1.0 && now.1 >= before.1 + 3.0).then_some(())
    };
    wait_for("all were looked at", SOON, looked).await;
}
