//! Two replicas: one leads, the other passes on to it what nodes report, and takes over when it ends, however that
//! comes. Each test has a cluster of its own.

use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use larder_tests::cluster::{Agent, Cluster, Controller, NAMESPACE, ask, wait_for};
use serde_json::json;

use crate::scene::{SOON, caches, made, make, node_caches, reader, told};

#[tokio::test]
async fn a_replica_takes_over_what_another_one_led() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let kubeconfig = cluster.install_rights().await;
    let start = async |name: &str| Controller::start(&kubeconfig, &[&format!("--identity={name}")]).await;
    let first = start("first").await;
    leads(&first).await;
    let second = start("second").await;
    make(&node_caches(&cluster), json!({"metadata": {"name": "all"}, "spec": {}})).await;
    make(&caches(&cluster), cache("a")).await;
    made(&cluster, "all").await;

    let agent = Agent::on(&cluster, "n1", "all").await;
    let answer = agent.tell(second.reports(), &agent.report(1, &["a.example"])).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let knows =
        async |controller: &Controller| controller.metric("larder_controller_report_nodes", &[]).await == 1.0;
    assert!(knows(&first).await && !knows(&second).await, "the leader was told, and it alone");
    let reader = reader(&cluster, "reader", "/v1/nodes").await;
    let page = ask(second.reports(), Method::GET, "/v1/nodes", &reader, Vec::new()).await;
    assert_eq!((page.status, &page.body["nodes"][0]["node"]), (200, &json!("n1")), "{}", page.body);
    assert_eq!(second.metric("larder_controller_leader", &[]).await, 0.0);

    // In order: the Lease is given back, so that nobody has to wait until it runs out.
    let (code, log) = first.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!holder(&cluster).await.starts_with("first"), "the Lease is given back");
    leads(&second).await;
    make(&caches(&cluster), cache("b")).await;
    told(&caches(&cluster), "b", ["Ready", "True", "Served"]).await;
    assert_eq!(agent.tell(second.reports(), &agent.report(1, &["a.example"])).await.status, 200);

    // As a node that loses power: the Lease runs out.
    let third = start("third").await;
    second.kill().await;
    leads(&third).await;
    assert!(holder(&cluster).await.starts_with("third"));
    make(&caches(&cluster), cache("c")).await;
    told(&caches(&cluster), "c", ["Ready", "True", "Served"]).await;
    assert_eq!(agent.tell(third.reports(), &agent.report(1, &["a.example"])).await.status, 200);
}

async fn leads(controller: &Controller) {
    let leads = async || (controller.metric("larder_controller_leader", &[]).await == 1.0).then_some(());
    wait_for("it leads", SOON, leads).await;
}

async fn holder(cluster: &Cluster) -> String {
    let api: Api<Lease> = Api::namespaced(cluster.admin.clone(), NAMESPACE);
    let lease = api.get("larder-controller").await.unwrap();
    lease.spec.unwrap().holder_identity.unwrap_or_default()
}

fn cache(name: &str) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {"upstreamRegistryURL": format!("https://{name}.example")}})
}
