//! A controller that is killed between any two writes, and what is left when a Registry is deleted: nothing that belongs
//! to nobody, and every store that was not asked to go.

use larder_tests::cluster::{Cluster, Controller, Gate, Pods, Space};
use serde_json::{Value, json};

use super::names;

const OURS: &str = "app.kubernetes.io/managed-by=larder-controller";
const ALONE: [&str; 1] = ["--leader-elect=false"];

/// Claim, http secret, status, configuration, Deployment, Service, Ingress, budget, status.
const WRITES: usize = 9;

fn spec(store: Value) -> Value {
    let mut pvc = json!({"size": "1Gi", "accessModes": ["ReadWriteMany"]});
    pvc["storageClassName"] = "none".into();
    let mut storage = json!({"pvc": pvc});
    storage["managementState"] = store;
    json!({"spec": {
        "image": "registry:3.1.1", "replicas": 2, "storage": storage, "ingress": {"host": "registry.example.com"},
    }})
}

#[tokio::test]
async fn killed_after_any_write_it_is_finished_by_the_next() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let gate = Gate::open(&cluster, &cluster.install_rights().await).await;
    let mut controller = Controller::start(gate.kubeconfig(), &ALONE).await;
    for writes in 1..=WRITES {
        let space = cluster.space("killed").await;
        gate.shut_after(writes, &space.name);
        space.make("Registry", "main", spec(json!("Unmanaged"))).await;
        gate.shut().await;
        controller.kill().await;
        gate.reopen();
        controller = Controller::start(gate.kubeconfig(), &ALONE).await;
        let whole = |registry: &Value| {
            let status = &registry["status"];
            (status["observedGeneration"] == 1 && !status["url"].is_null()).then(|| status["configs"].clone())
        };
        let configs = space.until("Registry", "main", "it is told", whole).await;
        let configs: Vec<String> = serde_json::from_value(configs).unwrap();
        assert_eq!(configs.len(), 1, "after {writes} writes: {configs:?}");
        let secrets = space.list("Secret", OURS).await;
        assert_eq!(
            names(&secrets),
            [format!("main-registry-config-{}", configs[0]), "main-registry-http".to_owned()]
        );
        for kind in ["Deployment", "Service", "Ingress", "PodDisruptionBudget", "PersistentVolumeClaim"] {
            assert_eq!(names(&space.list(kind, "").await), ["main-registry"], "{kind} after {writes} writes");
        }
        owned(&space, secrets).await;
        space.play("main-registry", Pods::Healthy).await;
        space.told("Registry", "main", "Available=True/Ready").await;
    }
}

async fn owned(space: &Space, mut all: Vec<Value>) {
    for kind in ["Deployment", "Service", "Ingress", "PodDisruptionBudget"] {
        all.extend(space.list(kind, OURS).await);
    }
    let owner = space.get("Registry", "main").await.unwrap()["metadata"]["uid"].clone();
    for child in all {
        assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], owner, "{child:#}");
    }
}

#[tokio::test]
async fn a_deleted_registry_leaves_its_store_unless_told_otherwise() {
    let Some((cluster, mut plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    if !plane.start_controller_manager("what a deleted Registry leaves").unwrap() {
        return;
    }
    let kubeconfig = cluster.install_rights().await;
    let _controller = Controller::start(&kubeconfig, &ALONE).await;
    let (kept, goes) = (cluster.space("kept").await, cluster.space("goes").await);
    for (space, store) in [(&kept, Value::Null), (&goes, json!("Managed"))] {
        space.make("Registry", "main", spec(store)).await;
        space.told("Registry", "main", "StorageReady=False/ClaimPending").await;
        let has = |live: &Value| (!live["status"]["observedGeneration"].is_null()).then_some(());
        space.until("Deployment", "main-registry", "its controller has seen it", has).await;
    }
    for space in [&kept, &goes] {
        space.delete("Registry", "main").await;
    }
    for space in [&kept, &goes] {
        for kind in ["Deployment", "Service", "Ingress", "PodDisruptionBudget"] {
            space.gone(kind, "main-registry").await;
        }
        let gone = async || space.list("Secret", OURS).await.is_empty().then_some(());
        larder_tests::wait::until("its Secrets are gone", gone).await;
    }
    goes.gone("PersistentVolumeClaim", "main-registry").await;
    let store = kept.get("PersistentVolumeClaim", "main-registry").await.expect("the store stays");
    assert_eq!(store["metadata"]["deletionTimestamp"], Value::Null);
    assert_eq!(store["metadata"]["ownerReferences"], Value::Null);

    // Made again, it finds its images.
    kept.make("Registry", "main", spec(Value::Null)).await;
    kept.told("Registry", "main", "StorageReady=False/ClaimPending").await;
    let again = kept.get("PersistentVolumeClaim", "main-registry").await.unwrap();
    assert_eq!(again["metadata"]["uid"], store["metadata"]["uid"]);
}
