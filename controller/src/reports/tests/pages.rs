//! What people and tools are shown, and who is shown nothing.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::cluster::{Replica, agent, patient, person};
use super::report;
use crate::reports::{Desired, Leader};

#[tokio::test]
async fn nodes_are_shown_to_who_may_get_them() {
    let (api, leader) =
        Replica::leading(&[("a", agent("n1")), ("b", agent("n2")), ("r", person("reader"))]).await;
    leader.tell("b", &report("n2")).await;
    leader.tell("a", &report("n1")).await;
    api.reviews.store(0, Ordering::Relaxed);
    let other = Replica::start(&api, Some(Leader::Other(leader.address)), patient()).await;
    for replica in [&leader, &other] {
        let page = replica.page("r", "/v1/nodes?nodeCache=default").await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("application/json")), "{page:?}");
        let page = page.json();
        assert_eq!(page["nodes"].as_array().unwrap().len(), 2);
        let (node, registry) = (&page["nodes"][0], &page["nodes"][0]["registries"][0]);
        for (field, value) in [
            ("node", json!("n1")),
            ("nodeCache", json!("default")),
            ("state", json!("Ready")),
            ("reason", json!("")),
            ("version", json!("0.1.0")),
            ("generation", json!(7)),
            ("installed", json!(true)),
            ("inUse", json!(true)),
            ("capacityBytes", json!(100_u64 << 30)),
            ("indexDegraded", json!(false)),
        ] {
            assert_eq!(node[field], value, "{field}");
        }
        assert_eq!((&registry["registry"], &registry["state"]), (&json!("docker.io"), &json!("installed")));
        assert_eq!((&registry["upstreamUp"], &registry["ratelimitRemaining"]), (&json!(true), &json!(null)));
        assert!(node["since"].is_string() && node["lastReport"].is_string());
    }
    assert_eq!(replica_nodes(&leader, "/v1/nodes?nodeCache=other").await, 0);
    assert_eq!(replica_nodes(&leader, "/v1/nodes").await, 2);
    assert_eq!(api.reviews.load(Ordering::Relaxed), 2, "a token and a right, remembered for a minute");
}

async fn replica_nodes(replica: &Replica, path: &str) -> usize {
    replica.page("r", path).await.json()["nodes"].as_array().unwrap().len()
}

#[tokio::test]
async fn who_may_not_read_is_told_what_to_grant() {
    let users = [("agent", agent("n1")), ("r", person("reader")), ("p", person("passer-by"))];
    let (_api, replica) = Replica::leading(&users).await;
    // The reader may get nodes, not the summary; an agent's token is not for the API server.
    for (token, path, status, reason) in [
        ("p", "/v1/nodes", 403, "Forbidden"),
        ("r", "/v1/summary", 403, "Forbidden"),
        ("agent", "/v1/nodes", 401, "Token"),
        ("forged", "/v1/nodes", 401, "Token"),
        ("", "/v1/summary", 401, "NoToken"),
    ] {
        let page = replica.page(token, path).await;
        assert_eq!((page.status, &page.json()["reason"]), (status, &json!(reason)), "{token} {path}");
        assert_eq!(page.json()["status"], json!(status));
        assert!(status != 403 || page.body.contains(path), "{}", page.body);
    }
    assert!(replica.counts("report_pages_total{code=\"403\"} 2"));
}

#[tokio::test]
async fn a_summary_has_node_caches_and_registries() {
    let (api, replica) = Replica::leading(&[("a", agent("n1")), ("all", person("reader"))]).await;
    api.may_get_anything();
    let interval = std::time::Duration::from_secs(30);
    replica.fleet.set_desired("idle", Desired { generation: 1, interval }, jiff::Timestamp::now());
    replica.tell("a", &report("n1")).await;
    let page = replica.page("all", "/v1/summary").await.json();
    let default = &page["nodeCaches"]["default"];
    for (field, value) in [
        ("reporting", json!(1)),
        ("ready", json!(1)),
        ("inUse", json!(1)),
        ("worst", json!([])),
        ("more", json!(0)),
        ("upstreamDown", json!([])),
        ("warming", json!(true)),
    ] {
        assert_eq!(default[field], value, "{field}");
    }
    assert_eq!(default["usage"]["hitRatio"], json!(null));
    assert_eq!(page["nodeCaches"]["idle"]["reporting"], json!(0));
    assert_eq!(page["registries"]["docker.io"]["nodes"], json!(1));
    let page = replica.page("all", "/v1/summary?nodeCache=idle").await.json();
    assert_eq!(page["nodeCaches"].as_object().unwrap().len(), 1);
}
