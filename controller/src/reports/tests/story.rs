//! Reports: who may tell what, and what is answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::json;

use super::cluster::{Api, Mood, Replica, agent, patient, person, send};
use super::report;
use crate::reports::{Desired, Leader};

const SECRET: &str = "e30.e30.a-token-that-nobody-else-may-see";

#[tokio::test]
async fn a_report_is_taken_and_answered() {
    let (api, replica) = Replica::leading(&[(SECRET, agent("n1"))]).await;
    let desired = Desired { generation: 9, interval: Duration::from_secs(45) };
    replica.fleet.set_desired("default", desired, Timestamp::now());
    for _ in 0..3 {
        let answered = replica.tell(SECRET, &report("n1")).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        assert_eq!(answered.json(), json!({"desired_generation": 9, "next_report_after": "45s"}));
    }
    assert_eq!(replica.fleet.summary("default", Timestamp::now()).reporting, 1);
    assert_eq!(api.reviews.load(Ordering::Relaxed), 1, "the API server's word holds for a while");
    assert!(replica.counts("reports_total{code=\"200\"} 3"));
    assert!(replica.counts("token_reviews_total{result=\"accepted\"} 1"));
    assert!(replica.counts("report_nodes 1") && replica.counts("token_reviews_waiting 0"));
}

#[tokio::test]
async fn who_is_not_known_is_told_so() {
    let (_api, replica) = Replica::leading(&[
        (SECRET, agent("n1").for_audience("https://kubernetes.default.svc")),
        ("person", person("admin").for_audience("larder-controller")),
        ("elsewhere", agent("n1").named("system:serviceaccount:default:larder-default")),
        ("unbound", agent("n1").without_node()),
    ])
    .await;
    for (token, status, reason) in [
        (SECRET, 401, "Token"),
        ("forged or expired", 401, "Token"),
        ("", 401, "NoToken"),
        ("person", 403, "NoAgent"),
        ("elsewhere", 403, "NoAgent"),
        ("unbound", 403, "NoNode"),
    ] {
        let answered = replica.tell(token, &report("n1")).await;
        assert_eq!((answered.status, &answered.json()["reason"]), (status, &json!(reason)), "{token}");
        assert!(!answered.body.contains(SECRET));
        assert_eq!(answered.header("www-authenticate").is_some(), status == 401);
    }
    assert_eq!(replica.fleet.known(), 0);
    assert!(replica.counts("reports_total{code=\"403\"} 3"));
    assert!(replica.counts("reports_refused_total{reason=\"NoAgent\"} 2"));
    assert!(replica.counts("token_reviews_total{result=\"denied\"} 2"));
}

#[tokio::test]
async fn an_api_server_that_looks_at_no_audience_proves_nothing() {
    let (api, replica) = Replica::leading(&[(SECRET, agent("n1").for_audience("another"))]).await;
    api.is(Mood::Unaware);
    assert_eq!(replica.tell(SECRET, &report("n1")).await.status, 401);
    assert_eq!(replica.fleet.known(), 0);
}

#[tokio::test]
async fn a_node_speaks_for_itself_alone() {
    let (_api, replica) = Replica::leading(&[(SECRET, agent("n1"))]).await;
    let answered = replica.tell(SECRET, &report("n2")).await;
    assert_eq!((answered.status, &answered.json()["reason"]), (403, &json!("OtherNode")));
    assert_eq!(replica.fleet.known(), 0);
    assert!(replica.counts("reports_refused_total{reason=\"OtherNode\"} 1"));
}

#[tokio::test]
async fn absurd_numbers_are_clamped_and_counted() {
    let (_api, replica) = Replica::leading(&[(SECRET, agent("n1"))]).await;
    let mut absurd = report("n1");
    (absurd.cache.bytes, absurd.registries[0].served_bytes) = (u64::MAX, u64::MAX);
    assert_eq!(replica.tell(SECRET, &report("n1")).await.status, 200);
    assert_eq!(replica.tell(SECRET, &absurd).await.status, 200);
    let summary = replica.fleet.summary("default", Timestamp::now());
    assert_eq!(summary.cache_bytes, absurd.cache.capacity_bytes);
    assert!(summary.usage.bytes_served < 1 << 50, "{}", summary.usage.bytes_served);
    for reason in ["number", "capacity", "growth"] {
        assert!(replica.counts(&format!("report_values_clamped_total{{reason=\"{reason}\"}} 1")), "{reason}");
    }
    let body = serde_json::to_string(&report("n1")).unwrap().replace(":7,", ":-7,");
    assert_eq!(replica.post(SECRET, "identity", body.into()).await.status, 400);
}

#[tokio::test]
async fn a_page_that_is_none_says_which_are() {
    let (_api, replica) = Replica::leading(&[]).await;
    for (method, path, status, allow) in [
        ("GET", "/v1/reports", 405, Some("POST")),
        ("POST", "/v1/nodes", 405, Some("GET")),
        ("GET", "/v1/report", 404, None),
    ] {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", replica.address));
        let answered = send(request.body(Full::default()).unwrap()).await;
        assert_eq!((answered.status, answered.header("allow")), (status, allow));
        assert_eq!(answered.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_is_asked_again() {
    let (api, replica) = Replica::leading(&[(SECRET, agent("n1")), ("new", agent("n2"))]).await;
    assert_eq!(replica.tell(SECRET, &report("n1")).await.status, 200);
    api.is(Mood::Broken);
    assert_eq!(replica.tell(SECRET, &report("n1")).await.status, 200, "known for a while");
    let answered = replica.tell("new", &report("n2")).await;
    assert_eq!((answered.status, &answered.json()["reason"]), (503, &json!("Unreviewed")));
    let again: u64 = answered.header("retry-after").unwrap().parse().unwrap();
    assert!((5..=15).contains(&again), "{again}");
    api.is(Mood::Well);
    assert_eq!(replica.tell("new", &report("n2")).await.status, 200);
    assert!(replica.counts("token_reviews_total{result=\"error\"} 1"));
}

#[tokio::test]
async fn who_does_not_lead_passes_on() {
    let (api, leader) = Replica::leading(&[(SECRET, agent("n1"))]).await;
    let other = Replica::start(&api, Some(Leader::Other(leader.address)), patient()).await;
    let answered = other.tell(SECRET, &report("n1")).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    assert_eq!((leader.fleet.known(), other.fleet.known()), (1, 0));
    let answered = other.tell("forged", &report("n1")).await;
    assert_eq!((answered.status, answered.header("www-authenticate")), (401, Some("Bearer")));
    assert!(other.counts("reports_total{code=\"401\"} 1") && leader.counts("reports_total{code=\"401\"} 1"));
}

#[tokio::test]
async fn nobody_who_leads_is_told_as_such() {
    let api = Api::start(&[(SECRET, agent("n1"))]).await;
    let one = Replica::start(&api, None, patient()).await;
    let other = Replica::start(&api, Some(Leader::Other(one.address)), patient()).await;
    let is_refused = async |replica: &Replica| {
        let answered = replica.tell(SECRET, &report("n1")).await;
        assert_eq!((answered.status, &answered.json()["reason"]), (503, &json!("NoLeader")));
        assert_eq!(answered.header("retry-after"), Some("10"));
    };
    is_refused(&one).await;
    is_refused(&other).await;
    // Two who each take the other for the leader.
    one.leader.send_replace(Some(Leader::Other(other.address)));
    is_refused(&one).await;
    assert!(one.counts("reports_total{code=\"503\"} 3") && other.counts("reports_total{code=\"503\"} 2"));
    one.leader.send_replace(Some(Leader::Other("127.0.0.1:1".parse().unwrap())));
    is_refused(&one).await;
    one.leader.send_replace(Some(Leader::Me));
    assert_eq!(other.tell(SECRET, &report("n1")).await.status, 200);
}

#[tokio::test]
async fn after_a_restart_the_base_is_set_anew() {
    let (api, before) = Replica::leading(&[(SECRET, agent("n1"))]).await;
    let mut told = report("n1");
    let served = |replica: &Replica| {
        let summary = replica.fleet.summary("default", Timestamp::now());
        (summary.usage.bytes_served, summary.warming)
    };
    before.tell(SECRET, &told).await;
    told.registries[0].served_bytes = 100;
    before.tell(SECRET, &told).await;
    assert_eq!(served(&before), (100, true));
    let after = Replica::start(&api, Some(Leader::Me), patient()).await;
    assert_eq!(after.tell(SECRET, &told).await.status, 200);
    told.registries[0].served_bytes = 130;
    after.tell(SECRET, &told).await;
    assert_eq!(served(&after), (30, true));
}

#[tokio::test]
async fn many_at_once_for_one_token_ask_once() {
    let (api, replica) = Replica::leading(&[(SECRET, agent("n1"))]).await;
    let replica = Arc::new(replica);
    let told = (0..30).map(|_| {
        let replica = Arc::clone(&replica);
        tokio::spawn(async move { replica.tell(SECRET, &report("n1")).await.status })
    });
    for status in told.collect::<Vec<_>>() {
        assert_eq!(status.await.unwrap(), 200);
    }
    assert_eq!(api.reviews.load(Ordering::Relaxed), 1);
}
