//! An API server that goes away and comes back, and one that has forgotten the past: the controller goes on. Each test
//! has a cluster of its own.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use larder_tests::cluster::{Cluster, Controller, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::{SOON, caches, made, make, node_caches, registries, told};

#[tokio::test]
async fn who_cannot_renew_the_lease_ends_and_its_successor_goes_on() {
    let Some((cluster, mut plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let kubeconfig = cluster.install_rights().await;
    let mut controller = Controller::start(&kubeconfig, &[]).await;
    make(&node_caches(&cluster), json!({"metadata": {"name": "all"}, "spec": {}})).await;
    made(&cluster, "all").await;

    plane.stop().await.unwrap();
    let ended = async || controller.ended();
    let status = wait_for("it ends", SOON, ended).await;
    assert_eq!(status.code(), Some(70), "{}", controller.log());
    // The kubelet starts it again, while nobody answers yet.
    let mut successor = Controller::spawn(&kubeconfig, &[]);
    plane.resume().await.unwrap();
    successor.ready().await;
    make(&caches(&cluster), cache("a")).await;
    told(&caches(&cluster), "a", ["Ready", "True", "Served"]).await;
    let there = async || (registries(&cluster, "all").await == ["a.example"]).then_some(());
    wait_for("nodes are told", SOON, there).await;
    assert_eq!(successor.terminate().await.0, Some(0));
}

#[tokio::test]
async fn what_happened_while_nobody_watched_is_seen() {
    let Some((cluster, mut plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let kubeconfig = cluster.install_rights().await;
    // Alone, so that nothing but the watches is tried.
    let args = ["--leader-elect=false", "--log-level=info,larder_controller=debug"];
    let controller = Controller::start(&kubeconfig, &args).await;
    for name in ["a", "b"] {
        make(&caches(&cluster), cache(name)).await;
    }
    make(&node_caches(&cluster), json!({"metadata": {"name": "all"}, "spec": {}})).await;
    let are = async |wanted: &[&str]| {
        let there = async || (registries(&cluster, "all").await == wanted).then_some(());
        wait_for(format!("nodes are told of {wanted:?}"), SOON, there).await;
    };
    are(&["a.example", "b.example"]).await;

    controller.signal(Signal::SIGSTOP);
    caches(&cluster).delete("a", &DeleteParams::default()).await.unwrap();
    make(&caches(&cluster), cache("c")).await;
    // Far enough in the past: what the controller knows is from before this.
    for name in ["x", "y", "z"] {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
        namespaces
            .create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() })
            .await
            .unwrap();
    }
    plane.compact().await;
    plane.stop().await.unwrap();
    plane.resume().await.unwrap();
    make(&caches(&cluster), cache("d")).await;
    controller.signal(Signal::SIGCONT);
    are(&["b.example", "c.example", "d.example"]).await;
    let gone = |line: &Value| line.to_string().contains("too old resource version");
    assert!(controller.log_lines().iter().any(gone), "no watch was refused:\n{}", controller.log());

    // And further on, by the watches that were taken up.
    make(&caches(&cluster), cache("e")).await;
    are(&["b.example", "c.example", "d.example", "e.example"]).await;
    assert_eq!(controller.terminate().await.0, Some(0));
}

fn cache(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"upstreamRegistryURL": format!("https://{name}.example")}})
}
