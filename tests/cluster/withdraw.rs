//! The end of a NodeCache: nodes are told to take their entries out of certs.d, waited for, and not for ever. What the
//! nodes say is played, by the tokens that their agents would have. Must not stop the controller.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use larder_tests::cluster::{Agent, wait_for};
use larder_wire::settings::{InstallerMode, Settings};
use serde_json::json;

use crate::scene::{Pool, SOON, gone, node_caches, of_agents, told};

#[tokio::test]
async fn a_node_cache_goes_when_its_nodes_have_nothing_of_it_left() {
    let Some(pool) = Pool::new("withdraw").await else { return };
    let (one, other, settings) = installed_on_two(&pool, json!({})).await;
    let (reports, registries) = (pool.led.reports, [&*pool.host("a")]);
    let node_caches = node_caches(&pool.led.cluster);

    node_caches.delete(&pool.name, &DeleteParams::default()).await.unwrap();
    let is_absent = |now: &Settings| now.installer.mode == InstallerMode::Absent;
    let absent = pool.until_settings("nodes are told", is_absent).await.generation;
    assert_eq!(absent, settings.generation + 1);
    let waits = told(&node_caches, &pool.name, ["Progressing", "True", "Withdrawing"]).await;
    assert!(waits.starts_with("2 of 2 nodes") && waits.contains(&one.node), "{waits}");

    let answer = one.tell(reports, &one.withdrawn(absent, &registries)).await;
    assert_eq!(answer.body["desired_generation"], absent);
    let left = async || {
        let waits = told(&node_caches, &pool.name, ["Progressing", "True", "Withdrawing"]).await;
        waits
            .contains(&format!(
                "1 of 2 nodes have not confirmed that their entries are out of certs.d ({})",
                other.node
            ))
            .then_some(())
    };
    wait_for("one node is left", SOON, left).await;

    // It has the new settings, and not yet done what they say.
    other.tell(reports, &other.report(absent, &registries)).await;
    other.tell(reports, &other.withdrawn(absent, &registries)).await;
    gone(&node_caches, &pool.name).await;
    nothing_is_left(&pool).await;
    let note = event(&pool, "Withdrawn").await;
    assert!(note.contains("all 2 nodes"), "{note}");
    pool.end().await;
}

#[tokio::test]
async fn a_silent_node_is_not_waited_for_beyond_the_deadline() {
    let Some(pool) = Pool::new("silent").await else { return };
    let (one, other, settings) = installed_on_two(&pool, json!({"withdrawTimeout": "8s"})).await;
    let node_caches = node_caches(&pool.led.cluster);
    node_caches.delete(&pool.name, &DeleteParams::default()).await.unwrap();
    let waits = told(&node_caches, &pool.name, ["Progressing", "True", "Withdrawing"]).await;
    assert!(waits.contains("not waited for after"), "{waits}");
    let withdrawn = one.withdrawn(settings.generation + 1, &[&*pool.host("a")]);
    assert_eq!(one.tell(pool.led.reports, &withdrawn).await.status, 200);
    gone(&node_caches, &pool.name).await;
    nothing_is_left(&pool).await;
    let note = event(&pool, "WithdrawIncomplete").await;
    assert!(note.contains("1 of 2 nodes") && note.contains(&other.node), "{note}");
    pool.end().await;
}

/// A NodeCache with one Cache, on two nodes that say that their entries are in.
async fn installed_on_two(pool: &Pool, spec: serde_json::Value) -> (Agent, Agent, Settings) {
    let nodes = [pool.node("n1").await, pool.node("n2").await];
    pool.cache("a", json!({})).await;
    pool.node_cache(spec).await;
    let settings = pool.until_settings("the Cache is there", |now| now.upstreams.len() == 1).await;
    let agents = nodes.each_ref().map(|node| Agent::on(&pool.led.cluster, node, &pool.name));
    let [one, other] = agents;
    let (one, other) = (one.await, other.await);
    for agent in [&one, &other] {
        let report = agent.report(settings.generation, &[&*pool.host("a")]);
        let answer = agent.tell(pool.led.reports, &report).await;
        assert_eq!((answer.status, &answer.body["desired_generation"]), (200, &json!(settings.generation)));
    }
    (one, other, settings)
}

async fn nothing_is_left(pool: &Pool) {
    let (cluster, child) = (&pool.led.cluster, pool.child());
    gone(&of_agents::<DaemonSet>(cluster), &child).await;
    gone(&of_agents::<ConfigMap>(cluster), &child).await;
    gone(&of_agents::<ServiceAccount>(cluster), &child).await;
    gone(&of_agents::<Secret>(cluster), &format!("{child}-credentials")).await;
}

/// Waits for an event of the NodeCache; its note.
async fn event(pool: &Pool, reason: &str) -> String {
    let api: Api<Event> = Api::namespaced(pool.led.cluster.admin.clone(), "default");
    let told = async || {
        let of =
            |event: &Event| event.regarding.as_ref().and_then(|of| of.name.as_deref()) == Some(&pool.name);
        let all = api.list(&ListParams::default()).await.unwrap().items;
        let found = all.into_iter().find(|event| of(event) && event.reason.as_deref() == Some(reason));
        found.and_then(|event| event.note)
    };
    wait_for(format!("the event {reason}"), SOON, told).await
}
