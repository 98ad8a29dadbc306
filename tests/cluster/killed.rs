//! The controller killed after each of its writes, while it makes things and while it takes them away: the next one ends
//! where it would have ended, and nothing is left over. A cluster of its own.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::stream::{self, BoxStream, StreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams};
use kube::runtime::watcher::{self, Event, watcher};
use larder_tests::cluster::{Cluster, Controller, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, caches, condition, gone, make, node_caches, of_agents, secret};

/// More writes than one round makes.
const MOST: usize = 30;
const NAME: &str = "all";
const LEFT: [&str; 4] = ["serviceaccount", "secret", "configmap", "daemonset"];

#[tokio::test]
async fn the_next_one_ends_where_the_killed_one_would_have() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let kubeconfig = cluster.install_rights().await;
    secret(&cluster, "robot", json!({"username": "robot", "password": "s3cret"})).await;
    let mut wanted = None;
    let (mut making, mut taking) = (true, true);
    for writes in 1..MOST {
        make_all(&cluster).await;
        making =
            making && killed_after(writes, &cluster, &kubeconfig, async || is_whole(&cluster).await).await;
        let controller = start(&kubeconfig).await;
        let whole = async || is_whole(&cluster).await.then_some(());
        wait_for(format!("all is there after {writes} writes"), SOON, whole).await;
        let there = children(&cluster).await;
        assert_eq!(there.len(), LEFT.len(), "{:?}", there.keys());
        let wanted = wanted.get_or_insert_with(|| there.clone());
        assert_eq!(there, *wanted, "after {writes} writes");
        controller.kill().await;

        delete_all(&cluster).await;
        let is_gone = async || node_caches(&cluster).get_opt(NAME).await.unwrap().is_none();
        taking = taking && killed_after(writes, &cluster, &kubeconfig, is_gone).await;
        let controller = start(&kubeconfig).await;
        gone(&node_caches(&cluster), NAME).await;
        let left = children(&cluster).await;
        assert!(left.is_empty(), "left after {writes} writes: {:?}", left.keys());
        controller.kill().await;
        if !making && !taking {
            return;
        }
    }
    panic!("the controller never ends to write: {making} {taking}");
}

async fn start(kubeconfig: &Path) -> Controller {
    // Nobody else is there to wait for.
    Controller::start(kubeconfig, &["--leader-elect=false"]).await
}

/// Kills a controller as soon as so many writes were seen; false when it was done before that.
async fn killed_after(
    writes: usize,
    cluster: &Cluster,
    kubeconfig: &Path,
    is_done: impl AsyncFn() -> bool,
) -> bool {
    let mut seen = changes(cluster).await;
    let controller = Controller::spawn(kubeconfig, &["--leader-elect=false"]);
    let counted = async {
        for _ in 0..writes {
            seen.next().await.expect("a watch does not end");
        }
    };
    let done = wait_for("the controller writes, or is done", SOON, async || is_done().await.then_some(()));
    let killed = tokio::select! {
        biased;
        () = counted => true,
        () = done => false,
    };
    controller.kill().await;
    killed
}

/// Every change from now on of what the controller writes.
async fn changes(cluster: &Cluster) -> BoxStream<'static, ()> {
    let mut all = stream::select_all([
        watched(node_caches(cluster)),
        watched(caches(cluster)),
        watched(of_agents::<ServiceAccount>(cluster)),
        watched(of_agents::<Secret>(cluster)),
        watched(of_agents::<ConfigMap>(cluster)),
        watched(of_agents::<DaemonSet>(cluster)),
    ]);
    let mut begun = 0;
    while begun < 6 {
        begun += usize::from(all.next().await == Some(Seen::Begun));
    }
    all.filter(|seen| std::future::ready(*seen == Seen::Change)).map(drop).boxed()
}

#[derive(PartialEq)]
enum Seen {
    Begun,
    Change,
}

fn watched<K>(api: Api<K>) -> BoxStream<'static, Seen>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let events = watcher(api, watcher::Config::default());
    let seen = events.filter_map(|event| {
        std::future::ready(match event.unwrap() {
            Event::InitDone => Some(Seen::Begun),
            Event::Apply(_) | Event::Delete(_) => Some(Seen::Change),
            Event::Init | Event::InitApply(_) => None,
        })
    });
    seen.boxed()
}

async fn make_all(cluster: &Cluster) {
    let cache = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "upstreamRegistryURL": format!("https://{name}.example"), "secretReferenceName": "robot",
        }})
    };
    make(&caches(cluster), cache("a")).await;
    make(&caches(cluster), cache("b")).await;
    make(&node_caches(cluster), json!({"metadata": {"name": NAME}, "spec": {}})).await;
}

async fn delete_all(cluster: &Cluster) {
    for name in ["a", "b"] {
        caches(cluster).delete(name, &DeleteParams::default()).await.unwrap();
    }
    node_caches(cluster).delete(NAME, &DeleteParams::default()).await.unwrap();
}

/// Everything was looked at to its end.
async fn is_whole(cluster: &Cluster) -> bool {
    let looked_at = condition(&node_caches(cluster), NAME, "ConfigDistributed").await.is_some();
    let is_ready = async |name| {
        condition(&caches(cluster), name, "Ready").await.is_some_and(|ready| ready.status == "True")
    };
    looked_at && is_ready("a").await && is_ready("b").await
}

/// What the controller made, by kind and name, but for what differs with each making.
async fn children(cluster: &Cluster) -> BTreeMap<String, Value> {
    let ours = "--selector=app.kubernetes.io/managed-by=larder-controller";
    let get = ["get", &LEFT.join(","), "--namespace=larder-agents", ours, "--output=json"];
    let got = cluster.kubectl(&get, "").await.well();
    let got: Value = serde_json::from_str(&got).unwrap();
    let uid = node_caches(cluster).get_opt(NAME).await.unwrap().and_then(|all| all.metadata.uid);
    let child = |mut child: Value| {
        let metadata = child["metadata"].as_object_mut().unwrap();
        let owner = &metadata["ownerReferences"][0]["uid"];
        assert_eq!(owner.as_str(), uid.as_deref(), "{metadata:?}");
        for each in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "ownerReferences"] {
            metadata.remove(each);
        }
        // A hash of everything, the owner's uid among it.
        metadata["annotations"].as_object_mut().unwrap().remove("registry-operator.dev/applied");
        let name =
            format!("{} {}", child["kind"].as_str().unwrap(), child["metadata"]["name"].as_str().unwrap());
        (name, child)
    };
    got["items"].as_array().unwrap().iter().cloned().map(child).collect()
}
