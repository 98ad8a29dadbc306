//! The chart by helm itself: installed, upgraded, uninstalled and installed again, its Jobs and its controller run as
//! processes with the accounts that it makes; and every object that it can render, shown to the API server. Must not
//! need a kubelet: what a pod would do is done by the test.

use std::fs;
use std::path::PathBuf;

use larder_tests::cluster::{AGENTS, Cluster, Controller, Helm, NAMESPACE, Said, Space, chart};
use larder_tests::wait::until;
use serde_json::{Value, json};

const CACHES: [&str; 4] = ["docker-io", "ghcr-io", "quay-io", "registry-k8s-io"];

/// A cluster with a chart in it.
struct Install {
    cluster: Cluster,
    helm: Helm,
    /// Of the release.
    space: Space,
}

#[tokio::test]
async fn installed_upgraded_uninstalled_and_installed_again() {
    let Some((cluster, mut plane)) = Cluster::private().await else { return };
    let Some(helm) = Helm::find(&cluster) else { return };
    if !plane.start_controller_manager("the chart").unwrap() {
        return;
    }
    let space = cluster.space_called(NAMESPACE).await;
    let install = Install { cluster, helm, space };
    let chart = chart().display().to_string();

    assert_eq!(install.helm(&["install", "larder", &chart]).await, [""; 0]);
    let controller = install.controller().await;
    install.has(&CACHES).await;
    install.space.told("NodeCache", "default", "Available=True/NoNodes").await;
    let set = install.cluster.space_called(AGENTS).await.get("DaemonSet", "larder-default").await.unwrap();
    assert_eq!(set["spec"]["template"]["spec"]["priorityClassName"], "system-node-critical");
    let (code, log) = controller.terminate().await;
    assert_eq!(code, Some(0), "{log}");

    let values = install.cluster.dir().join("values.yaml");
    let changed = json!({
        "controller": {"logLevel": "debug"},
        "nodeCache": {"spec": {"reportInterval": "1m"}},
        "caches": [{"name": "gcr-io", "spec": {"upstreamRegistryURL": "https://gcr.io"}}],
    });
    fs::write(&values, changed.to_string()).unwrap();
    let values = format!("--values={}", values.display());
    assert_eq!(install.helm(&["upgrade", "larder", &chart, &values]).await, ["crds --apply"]);
    let controller = install.controller().await;
    install.has(&["docker-io", "gcr-io", "ghcr-io", "quay-io", "registry-k8s-io"]).await;
    let now = |node_cache: &Value| (node_cache["spec"]["reportInterval"] == "1m").then_some(());
    install.space.until("NodeCache", "default", "it has the new values", now).await;

    let by_job = format!("uninstall --timeout=4m --namespace={NAMESPACE}");
    assert_eq!(install.helm(&["uninstall", "larder"]).await, [by_job]);
    assert_eq!(install.space.list("NodeCache", "").await, Vec::<Value>::new());
    let _ = controller.terminate().await;
    install.space.gone("Deployment", "larder-controller").await;
    install.space.gone("Namespace", AGENTS).await;
    assert_eq!(install.space.list("CustomResourceDefinition", "").await.len(), 6);

    assert_eq!(install.helm(&["install", "larder", &chart]).await, [""; 0]);
    let controller = install.controller().await;
    install.space.until("NodeCache", "default", "it is made again", |_| Some(())).await;
    let (code, log) = controller.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}

impl Install {
    /// Runs helm while its Jobs' pods are played; what those were told to do.
    async fn helm(&self, args: &[&str]) -> Vec<String> {
        let mut played = Vec::new();
        let said = tokio::select! {
            said = self.helm.run(args) => said,
            never = self.play(&mut played) => never,
        };
        let _ = said.well();
        played
    }

    /// Does what the pods of Jobs are to do, with their accounts, and says that they succeeded.
    async fn play(&self, played: &mut Vec<String>) -> Said {
        loop {
            let pending = async || {
                let pods = self.space.list("Pod", "batch.kubernetes.io/job-name").await;
                pods.into_iter().find(|pod| pod["status"]["phase"] == "Pending")
            };
            let pod = pending_pod(pending).await;
            let spec = &pod["spec"];
            let args: Vec<&str> = texts(&spec["containers"][0]["args"]);
            let account = self.account(spec["serviceAccountName"].as_str().unwrap(), args[0]).await;
            let _ = Controller::once(&account, &args).await.well();
            let name = pod["metadata"]["name"].as_str().unwrap();
            self.space.change_status("Pod", name, json!({"phase": "Succeeded"})).await;
            played.push(args.join(" "));
        }
    }

    /// A Job's account, once its rights are known.
    async fn account(&self, account: &str, command: &str) -> PathBuf {
        let may: &[&[&str]] = match command {
            "crds" => &[
                &["list", "customresourcedefinitions"],
                &["patch", "customresourcedefinitions/caches.registry-operator.dev"],
            ],
            "uninstall" => &[
                &["delete", "nodecaches.registry-operator.dev"],
                &["delete", "configmaps/larder-defaults", "--namespace=larder-system"],
            ],
            other => panic!("no Job runs {other}"),
        };
        let mut kubeconfig = PathBuf::new();
        for may in may {
            kubeconfig = self.cluster.account_of_chart(account, may).await;
        }
        kubeconfig
    }

    /// The controller as its Deployment runs it, but for addresses, and the file of defaults where it is here.
    async fn controller(&self) -> Controller {
        let live = self.space.get("Deployment", "larder-controller").await.unwrap();
        let pod = &live["spec"]["template"]["spec"];
        let account = pod["serviceAccountName"].as_str().unwrap();
        let kubeconfig = self.cluster.account_of_chart(account, &["list", "nodes"]).await;
        let map = pod["volumes"][0]["configMap"]["name"].as_str().unwrap();
        let map = self.space.get("ConfigMap", map).await.unwrap();
        let file = self.cluster.dir().join("defaults.yaml");
        fs::write(&file, map["data"]["defaults.yaml"].as_str().unwrap()).unwrap();
        let file = format!("--defaults={}", file.display());
        let mut args = texts(&pod["containers"][0]["args"]);
        assert_eq!(args.remove(0), "run");
        args.retain(|arg| !arg.contains("bind-address=") && !arg.starts_with("--defaults="));
        args.push(&file);
        Controller::start(&kubeconfig, &args).await
    }

    /// Waits until the Caches are these, and all are ready.
    async fn has(&self, names: &[&str]) {
        let all = async || {
            let caches = self.space.list("Cache", "").await;
            let there: Vec<_> =
                caches.iter().map(|cache| cache["metadata"]["name"].as_str().unwrap()).collect();
            (there == names).then_some(())
        };
        until(format!("there are {names:?}"), all).await;
        for name in names {
            self.space.told("Cache", name, "Ready=True/Served").await;
        }
    }
}

/// Helm's own end is what ends this wait.
async fn pending_pod(look: impl AsyncFn() -> Option<Value>) -> Value {
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(100));
    loop {
        looks.tick().await;
        if let Some(pod) = look().await {
            return pod;
        }
    }
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_object_of_every_set_of_values_is_accepted() {
    let Some(cluster) = Cluster::start().await else { return };
    let Some(helm) = Helm::find(&cluster) else { return };
    let space = cluster.space_called(NAMESPACE).await;
    let restricted = json!({"metadata": {"labels": {"pod-security.kubernetes.io/warn": "restricted"}}});
    space.change("Namespace", NAMESPACE, restricted).await;
    for namespace in [AGENTS, "node-caches", "registry-system", "team-a"] {
        cluster.namespace_called(namespace).await;
    }
    let mut sets = 0;
    for entry in fs::read_dir(chart().join("ci")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        sets += 1;
        let rendered = helm.template(&path).await;
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&rendered).unwrap();
        objects.retain(|object| !object.is_null());
        let all = objects.len();
        // The prometheus-operator's definitions are not here.
        objects.retain(|object| {
            !object["apiVersion"].as_str().is_some_and(|it| it.starts_with("monitoring.coreos.com"))
        });
        assert!(all > 10, "{}: {all} objects", path.display());
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let args = ["apply", "--server-side", "--dry-run=server", "--filename=-"];
        let said = cluster.kubectl(&args, &list.to_string()).await;
        assert_eq!(said.code, Some(0), "{}: {}", path.display(), said.err);
        assert!(!said.err.contains("Warning"), "{}: {}", path.display(), said.err);
        first_objects(&cluster, &objects).await;
    }
    assert_eq!(sets, 5);
}

/// What the controller would make at a first install is accepted too.
async fn first_objects(cluster: &Cluster, objects: &[Value]) {
    let text = |object: &Value| object["data"]["defaults.yaml"].as_str().map(str::to_owned);
    let defaults = objects.iter().find_map(text).unwrap();
    if defaults.trim().is_empty() {
        return;
    }
    let args = ["apply", "--dry-run=server", "--filename=-"];
    let _ = cluster.kubectl(&args, &defaults).await.well();
}
