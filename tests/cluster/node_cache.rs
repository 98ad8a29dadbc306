//! NodeCaches among others in a cluster: Caches that come and go, what somebody else changed, the kill switch, two that
//! want the same nodes. Must not stop the controller or the API server.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Api;
use kube::api::DeleteParams;
use larder_tests::cluster::wait_for;
use larder_wire::settings::InstallerMode;
use serde_json::json;

use crate::scene::{Pool, SOON, caches, condition, gone, merge, node_caches, of_agents, told};

#[tokio::test]
async fn caches_come_and_go_and_no_pod_is_replaced() {
    let Some(pool) = Pool::new("caches").await else { return };
    let (cluster, (a, b)) = (&pool.led.cluster, (pool.host("a"), pool.host("b")));
    let first = pool.cache("a", json!({})).await;
    pool.node_cache(json!({})).await;
    let begun = pool.until_settings("the first Cache is there", |now| now.upstreams.len() == 1).await;
    let daemon_set = pool.generation().await;

    let second = pool.cache("b", json!({"maxConcurrent": 7})).await;
    let added = pool.until_settings("the second Cache is there", |now| now.upstreams.len() == 2).await;
    assert_eq!(pool.registries().await, [a.clone(), b.clone()]);
    assert!(added.generation > begun.generation);
    told(&caches(cluster), &second, ["Ready", "True", "Served"]).await;

    merge(&caches(cluster), &second, json!({"spec": {"maxConcurrent": 9}})).await;
    let changed =
        pool.until_settings("the change is there", |now| now.upstreams[1].max_concurrent == 9).await;
    assert!(changed.generation > added.generation);

    caches(cluster).delete(&first, &DeleteParams::default()).await.unwrap();
    let removed = pool.until_settings("the first Cache is out", |now| now.upstreams.len() == 1).await;
    assert_eq!(pool.registries().await, [b]);
    assert!(removed.generation > changed.generation);
    assert_eq!(pool.generation().await, daemon_set, "the DaemonSet is as it was");
    pool.end().await;
}

#[tokio::test]
async fn what_somebody_else_changed_is_changed_back() {
    let Some(pool) = Pool::new("drift").await else { return };
    let (cluster, child) = (&pool.led.cluster, pool.child());
    pool.cache("a", json!({})).await;
    pool.node_cache(json!({})).await;
    let wanted = pool.until_settings("the Cache is there", |now| now.upstreams.len() == 1).await;
    let image = async || {
        let daemon_set: DaemonSet = of_agents(cluster).get_opt(&child).await.unwrap()?;
        daemon_set.spec?.template.spec?.containers.first()?.image.clone()
    };
    let right = wait_for("the DaemonSet is there", SOON, image).await;

    let wrong =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "image": "other:1"}]}}}});
    let patch = ["patch", "daemonset", &child, "--namespace=larder-agents", "--patch", &wrong.to_string()];
    let _ = cluster.kubectl(&patch, "").await.well();
    let is_right = async || image().await.filter(|image| *image == right);
    wait_for("the image is right again", SOON, is_right).await;
    merge(&of_agents::<ConfigMap>(cluster), &child, json!({"data": {"larder.toml": "generation = 99"}}))
        .await;
    // The generation rises, lest nodes think that they have it.
    let same = |upstreams: &[_]| format!("{upstreams:?}") == format!("{:?}", wanted.upstreams);
    pool.until_settings("the settings are right again", |now| same(&now.upstreams)).await;

    let delete = ["delete", "--namespace=larder-agents", "--wait=false"];
    let credentials = format!("secret/{child}-credentials");
    let all = ["daemonset", "configmap", "serviceaccount"].map(|kind| format!("{kind}/{child}"));
    let all: Vec<&str> = all.iter().chain([&credentials]).map(String::as_str).collect();
    let _ = cluster.kubectl(&[&delete[..], &all[..]].concat(), "").await.well();
    pool.until_settings("the settings are there again", |now| same(&now.upstreams)).await;
    wait_for("the DaemonSet is there again", SOON, is_right).await;
    // These two are not watched, and looked at whenever anything is.
    let credentials = format!("{child}-credentials");
    let there = async || {
        of_agents::<Secret>(cluster).get_opt(&credentials).await.unwrap()?;
        of_agents::<ServiceAccount>(cluster).get_opt(&child).await.unwrap()
    };
    wait_for("credentials and account are there again", SOON, there).await;
    pool.end().await;
}

#[tokio::test]
async fn the_kill_switch_is_told_by_settings_alone() {
    let Some(pool) = Pool::new("removed").await else { return };
    pool.cache("a", json!({})).await;
    pool.node_cache(json!({})).await;
    let before = pool.until_settings("the Cache is there", |now| now.upstreams.len() == 1).await;
    assert_eq!(before.installer.mode, InstallerMode::Manage);
    let daemon_set = pool.generation().await;

    pool.change(json!({"spec": {"managementState": "Removed"}})).await;
    let is_absent = |mode| mode == InstallerMode::Absent;
    let removed = pool.until_settings("entries are to go", |now| is_absent(now.installer.mode)).await;
    assert_eq!(removed.generation, before.generation + 1);
    assert_eq!(removed.upstreams, before.upstreams, "the cache itself goes on");
    // No node has told that it still has an entry.
    let node_caches = node_caches(&pool.led.cluster);
    told(&node_caches, &pool.name, ["Progressing", "False", "Removed"]).await;

    pool.change(json!({"spec": {"managementState": "Managed"}})).await;
    let back = pool.until_settings("entries come back", |now| !is_absent(now.installer.mode)).await;
    assert_eq!(back.generation, removed.generation + 1);
    assert_eq!(pool.generation().await, daemon_set, "no pod is replaced");
    pool.end().await;
}

#[tokio::test]
async fn of_two_on_one_node_the_younger_gives_way() {
    let Some(pool) = Pool::new("conflict").await else { return };
    let (cluster, node_caches) = (&pool.led.cluster, node_caches(&pool.led.cluster));
    let node = pool.node("n1").await;
    pool.node_cache(json!({})).await;
    // Made in the same second, the name decides.
    let younger = format!("{}-younger", pool.name);
    pool.node_cache_called(&younger, json!({})).await;
    let message = told(&node_caches, &younger, ["Degraded", "True", "Conflict"]).await;
    assert!(message.contains(&format!("NodeCache {} selects 1 of these nodes", pool.name)), "{message}");
    assert!(message.contains(&node), "{message}");
    let children: Api<DaemonSet> = of_agents(cluster);
    assert!(children.get_opt(&format!("larder-{younger}")).await.unwrap().is_none(), "nothing of it is made");
    let elder = condition(&node_caches, &pool.name, "Degraded").await;
    assert_ne!(elder.map(|elder| elder.status).as_deref(), Some("True"), "the elder is undisturbed");

    node_caches.delete(&pool.name, &DeleteParams::default()).await.unwrap();
    gone(&node_caches, &pool.name).await;
    let made = async || children.get_opt(&format!("larder-{younger}")).await.unwrap();
    wait_for("the younger takes over", SOON, made).await;
    let healed =
        async || condition(&node_caches, &younger, "Degraded").await.filter(|it| it.reason != "Conflict");
    wait_for("nothing is in its way any more", SOON, healed).await;
    pool.end().await;
}
