//! The commands of the chart's Jobs and the objects of a first install: definitions are put there unless the group is
//! somebody else's, defaults are made once, and an uninstall takes everything off the nodes. A cluster of its own each.

use std::fs;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use larder_tests::cluster::{Cluster, Controller, wait_for};
use serde_json::json;

use crate::scene::{SOON, caches, gone, made, merge, node_caches, registries};

#[tokio::test]
async fn definitions_are_applied_unless_the_group_is_somebody_elses() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_rights().await;
    let may = ["create", "customresourcedefinitions/registries.registry-operator.dev"];
    let kubeconfig = cluster.account_of_chart("larder-definitions", &may).await;
    let apply = async || Controller::once(&kubeconfig, &["crds", "--apply"]).await;
    let foreign = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: \
                   mirrors.registry-operator.dev}, spec: {group: registry-operator.dev, scope: Namespaced, names: \
                   {kind: Mirror, plural: mirrors}, versions: [{name: v1, served: true, storage: true, schema: \
                   {openAPIV3Schema: {type: object}}}]}}";
    let _ = cluster.apply("default", foreign).await.well();
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.admin.clone());
    let refused = apply().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("another owner here: mirrors.registry-operator.dev"), "{}", refused.err);
    let there: Vec<String> =
        definitions.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(there, ["mirrors.registry-operator.dev"], "nothing was changed");

    definitions.delete("mirrors.registry-operator.dev", &DeleteParams::default()).await.unwrap();
    gone(&definitions, "mirrors.registry-operator.dev").await;
    let applied = apply().await.well();
    assert_eq!(applied.lines().count(), larder_controller::crd::all().len(), "{applied}");
    let versions = async || {
        let all = definitions.list(&ListParams::default()).await.unwrap();
        all.into_iter().map(|one| (one.name_any(), one.metadata.generation)).collect::<Vec<_>>()
    };
    let before = versions().await;
    let _ = apply().await.well();
    assert_eq!(versions().await, before, "a second time changes nothing");
}

#[tokio::test]
async fn defaults_are_made_once_and_forgotten_by_an_uninstall() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let kubeconfig = cluster.install_rights().await;
    let file = cluster.dir().join("defaults.yaml");
    let cache = |name: &str, most: u32| {
        format!(
            "---\napiVersion: registry-operator.dev/v1alpha1\nkind: Cache\nmetadata: {{name: {name}}}\nspec: \
             {{upstreamRegistryURL: 'https://{name}.example', maxConcurrent: {most}}}\n"
        )
    };
    let node_cache =
        "---\napiVersion: registry-operator.dev/v1alpha1\nkind: NodeCache\nmetadata: {name: all}\nspec: {}\n";
    let write = |caches: &[String]| fs::write(&file, [node_cache, &caches.concat()].concat()).unwrap();
    let flag = format!("--defaults={}", file.display());
    let start = async || Controller::start(&kubeconfig, &[&flag]).await;
    let are = async |what: &str, wanted: &[&str]| {
        let there = async || (registries(&cluster, "all").await == wanted).then_some(());
        wait_for(what, SOON, there).await;
    };
    let most = async |name: &str| caches(&cluster).get(name).await.unwrap().spec.max_concurrent;

    write(&[cache("a", 1), cache("b", 1), cache("c", 1)]);
    let controller = start().await;
    are("a first install", &["a.example", "b.example", "c.example"]).await;
    caches(&cluster).delete("a", &DeleteParams::default()).await.unwrap();
    merge(&caches(&cluster), "b", json!({"spec": {"maxConcurrent": 5}})).await;
    are("one is deleted", &["b.example", "c.example"]).await;
    assert_eq!(controller.terminate().await.0, Some(0));

    // Other values: what nobody touched follows, what somebody changed or deleted stays so, what is new is made.
    write(&[cache("a", 2), cache("b", 2), cache("c", 2), cache("d", 2)]);
    let controller = start().await;
    are("an upgrade", &["b.example", "c.example", "d.example"]).await;
    assert_eq!((most("b").await, most("c").await), (Some(5), Some(2)));
    assert_eq!(controller.terminate().await.0, Some(0));

    let may = ["delete", "configmaps/larder-defaults", "--namespace=larder-system"];
    let by = cluster.account_of_chart("larder-uninstall", &may).await;
    let uninstall = async |timeout: &str| Controller::once(&by, &["uninstall", timeout]).await;
    let alone = uninstall("--timeout=1s").await;
    assert_eq!(alone.code, Some(1), "nobody is there to see to it");
    assert!(
        alone.err.contains("NodeCache all") && alone.err.contains("is larder-controller running?"),
        "{}",
        alone.err
    );

    fs::write(&file, "").unwrap();
    let controller = start().await;
    let _ = uninstall("--timeout=50s").await.well();
    assert!(node_caches(&cluster).get_opt("all").await.unwrap().is_none());
    assert!(uninstall("--timeout=50s").await.well().contains("(0 removed)"));
    assert_eq!(controller.terminate().await.0, Some(0));

    write(&[cache("a", 3), cache("b", 3)]);
    let controller = start().await;
    made(&cluster, "all").await;
    are("installed again", &["a.example", "b.example", "c.example", "d.example"]).await;
    assert_eq!(most("b").await, Some(5), "an object that is there is an administrator's");
    assert_eq!(controller.terminate().await.0, Some(0));
}
