//! Reports of nodes, by tokens that the API server gave: who is believed, what becomes of numbers, what people are shown.
//! Must not stop the controller.

use std::time::Duration;

use http::Method;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use larder_controller::crd::NodeCacheReport;
use larder_tests::cluster::{AGENTS, Agent, ask, wait_for};
use serde_json::{Value, json};

use crate::scene::{Pool, SOON, caches, node_caches, of_agents, reader, told};

const AUDIENCE: &str = "larder-controller";

/// Two minutes in which nodes report to a new leader, half a minute from one write to the next, and a slow machine.
const WARM: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_node_speaks_for_itself_alone_and_by_a_token_that_holds() {
    let Some(pool) = Pool::new("tokens").await else { return };
    let (cluster, reports, account) = (&pool.led.cluster, pool.led.reports, pool.child());
    pool.node_cache(json!({})).await;
    let generation = pool.settings().await.unwrap().generation;
    let agent = Agent::on(cluster, &pool.node("n1").await, &pool.name).await;
    let report = agent.report(generation, &[]);
    let answer = agent.tell(reports, &report).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body, json!({"desired_generation": generation, "next_report_after": "30s"}));

    let refused = async |what: &str, token: String, wanted: (u16, &str)| {
        let answer = agent.with(token).tell(reports, &report).await;
        let reason = answer.body["reason"].as_str().unwrap_or_default();
        assert_eq!((answer.status, reason), wanted, "{what}: {}", answer.body);
    };
    let other = Agent::on(cluster, &pool.node("n2").await, &pool.name).await;
    refused("another node's", other.token, (403, "OtherNode")).await;
    let last = agent.token.chars().nth_back(20).unwrap();
    let at = agent.token.len() - 21;
    let mut forged = agent.token.clone();
    forged.replace_range(at..=at, if last == 'A' { "B" } else { "A" });
    refused("a forged one", forged, (401, "Token")).await;
    let elsewhere = cluster.node_token(&agent.node, AGENTS, &account, "somebody-else").await;
    refused("one for somebody else", elsewhere, (401, "Token")).await;

    let minute = |claims: &mut Value, minutes: i64| {
        claims["exp"] = (Timestamp::now().as_second() + minutes * 60).into();
    };
    let resigned = cluster.with_claims(&agent.token, |claims| minute(claims, 30));
    assert_eq!(agent.with(resigned).tell(reports, &report).await.status, 200);
    let expired = cluster.with_claims(&agent.token, |claims| minute(claims, -30));
    refused("an expired one", expired, (401, "Token")).await;

    let spec = || TokenRequestSpec { audiences: vec![AUDIENCE.to_owned()], ..TokenRequestSpec::default() };
    let unbound = cluster.token(AGENTS, &account, spec()).await;
    refused("one of no node", unbound, (403, "NoNode")).await;
    let somebody = cluster.node_token(&agent.node, AGENTS, "somebody", AUDIENCE).await;
    refused("no agent's", somebody, (403, "NoAgent")).await;
    let missing = ask(reports, Method::POST, "/v1/reports", "", Vec::new()).await;
    assert_eq!(missing.status, 401);

    for reason in ["OtherNode", "Token", "NoNode", "NoAgent", "NoToken"] {
        let counted = pool.led.metric("larder_controller_reports_refused_total", &[("reason", reason)]).await;
        assert!(counted >= 1.0, "{reason} is not counted");
    }
    pool.end().await;
}

#[tokio::test]
async fn what_cannot_be_is_clamped_and_counted() {
    let Some(pool) = Pool::new("absurd").await else { return };
    let (cluster, reports) = (&pool.led.cluster, pool.led.reports);
    pool.node_cache(json!({})).await;
    let agent = Agent::on(cluster, &pool.node("n1").await, &pool.name).await;
    let mut report = agent.report(1, &["a.example", "a.example", "NO REGISTRY"]);
    report.registries[0].served_bytes = u64::MAX;
    report.registries[0].requests.cache = u64::MAX;
    report.registries[0].reason = "x".repeat(10_000);
    report.cache.bytes = u64::MAX;
    assert_eq!(agent.tell(reports, &report).await.status, 200);
    for reason in ["number", "registry", "duplicate", "text", "capacity", "growth"] {
        let labels = [("reason", reason)];
        let counted = pool.led.metric("larder_controller_report_values_clamped_total", &labels).await;
        assert!(counted >= 1.0, "{reason} is not counted");
    }
    let reader = reader(cluster, &pool.name, "/v1/summary").await;
    let path = format!("/v1/summary?nodeCache={}", pool.name);
    let summary = ask(reports, Method::GET, &path, &reader, Vec::new()).await.body;
    let usage = &summary["nodeCaches"][&pool.name]["usage"];
    // Not more than a node can do in a minute.
    assert!(usage["bytesServed"].as_u64().unwrap() <= 64 << 36, "{summary}");

    let unread = ask(reports, Method::POST, "/v1/reports", &agent.token, b"{\"schema\":1".to_vec()).await;
    assert_eq!((unread.status, &unread.body["reason"]), (400, &json!("Unreadable")));
    pool.end().await;
}

#[tokio::test]
async fn pages_are_for_those_who_may_get_them() {
    let Some(pool) = Pool::new("pages").await else { return };
    let (cluster, reports) = (&pool.led.cluster, pool.led.reports);
    pool.node_cache(json!({})).await;
    let agent = Agent::on(cluster, &pool.node("n1").await, &pool.name).await;
    assert_eq!(agent.tell(reports, &agent.report(1, &["a.example"])).await.status, 200);

    let nodes = format!("/v1/nodes?nodeCache={}", pool.name);
    let namespace = cluster.namespace("readers").await;
    cluster.service_account(&namespace, "nobody").await;
    let nobody = cluster.token(&namespace, "nobody", TokenRequestSpec::default()).await;
    assert_eq!(ask(reports, Method::GET, &nodes, &nobody, Vec::new()).await.status, 403);
    // The agent's token is for reports alone.
    assert_eq!(ask(reports, Method::GET, &nodes, &agent.token, Vec::new()).await.status, 401);

    let reader = reader(cluster, &pool.name, "/v1/nodes").await;
    let page = ask(reports, Method::GET, &nodes, &reader, Vec::new()).await;
    assert_eq!(page.status, 200, "{}", page.body);
    let node = &page.body["nodes"][0];
    assert_eq!(node["node"], json!(agent.node));
    assert_eq!(
        (&node["state"], &node["inUse"], &node["installed"]),
        (&json!("Ready"), &json!(true), &json!(true))
    );
    assert_eq!(node["registries"][0]["registry"], "a.example");
    assert_eq!(page.body["nodes"].as_array().unwrap().len(), 1, "only of that NodeCache");
    assert_eq!(
        ask(reports, Method::GET, "/v1/summary", &reader, Vec::new()).await.status,
        403,
        "another page"
    );
    pool.end().await;
}

#[tokio::test]
async fn the_status_says_what_the_nodes_say() {
    let Some(pool) = Pool::new("status").await else { return };
    let (cluster, reports) = (&pool.led.cluster, pool.led.reports);
    let nodes = [pool.node("n1").await, pool.node("n2").await, pool.node("n3").await];
    let cache = pool.cache("a", json!({})).await;
    pool.node_cache(json!({"reportInterval": "10m"})).await;
    let settings = pool.until_settings("the Cache is there", |now| now.upstreams.len() == 1).await;
    play_pods(&pool).await;
    let registry = pool.host("a");
    for node in &nodes[..2] {
        let agent = Agent::on(cluster, node, &pool.name).await;
        let answer = agent.tell(reports, &agent.report(settings.generation, &[&registry])).await;
        assert_eq!(answer.body["next_report_after"], "10m");
    }
    let api = node_caches(cluster);
    let status =
        async || api.get(&pool.name).await.unwrap().status.filter(|status| status.nodes.reporting == 2);
    let status = wait_for("the nodes are in the status", WARM, status).await;
    let count = status.nodes;
    assert_eq!((count.desired, count.reporting, count.silent), (3, 2, 1));
    assert_eq!((count.ready, count.degraded, count.installed, count.in_use, count.updated), (2, 0, 2, 2, 2));
    let usage = status.usage.unwrap();
    assert_eq!(usage.hit_ratio.as_deref(), Some("90%"));
    assert!(usage.bytes_served > 19 << 20 && usage.bytes_served <= 20 << 20, "{usage:?}");
    told(&api, &pool.name, ["InUse", "True", "InUse"]).await;
    told(&api, &pool.name, ["ConfigDistributed", "True", "Applied"]).await;

    let shown = cluster.kubectl(&["get", "nodecache", &pool.name, "--no-headers"], "").await.well();
    let columns: Vec<&str> = shown.split_whitespace().skip(1).take(5).collect();
    assert_eq!(columns, ["3", "2", "2", "90%", "up"], "{shown}");
    let api = caches(cluster);
    told(&api, &cache, ["UpstreamReachable", "True", "Reachable"]).await;
    let counted = async || api.get(&cache).await.unwrap().status.filter(|it| it.nodes_serving == 2);
    assert_eq!(wait_for("the Cache is counted", SOON, counted).await.hit_ratio.as_deref(), Some("90%"));

    let reports: Api<NodeCacheReport> = Api::all(cluster.admin.clone());
    let report = async || reports.get_opt(&nodes[0]).await.unwrap();
    let report = wait_for("the node has a report of its own", SOON, report).await;
    assert_eq!(report.spec.registries[0].registry, registry);
    pool.end().await;
}

/// What a controller-manager would count of three pods.
async fn play_pods(pool: &Pool) {
    let api: Api<DaemonSet> = of_agents(&pool.led.cluster);
    let status = json!({
        "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "updatedNumberScheduled": 3,
        "numberReady": 2, "numberAvailable": 2, "numberMisscheduled": 0,
        "observedGeneration": pool.generation().await,
    });
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(&pool.child(), &PatchParams::default(), &patch).await.unwrap();
}
