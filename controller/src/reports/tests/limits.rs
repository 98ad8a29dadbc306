//! What is too large, too slow, too much, or about to end.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cluster::{Api, Replica, agent, patient};
use super::report;
use crate::reports::{Leader, Limits, Rates};

const SOON: Duration = Duration::from_millis(200);

/// What a peer says until it closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut said)).await;
    read.expect("the server closes").unwrap();
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_taken() {
    let (_api, replica) = Replica::leading(&[("token", agent("n1"))]).await;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b' '; 100 << 20]).unwrap();
    assert_eq!(replica.post("token", "gzip", bomb.finish().unwrap()).await.status, 413);
    assert_eq!(replica.post("token", "br", b"{}".to_vec()).await.status, 400);
    assert_eq!(replica.post("token", "identity", b"{\"schema\":2}".to_vec()).await.status, 400);
    let mut stream = TcpStream::connect(replica.address).await.unwrap();
    let head = "POST /v1/reports HTTP/1.1\r\nhost: c\r\nauthorization: Bearer token\r\n";
    stream
        .write_all(format!("{head}content-length: 262145\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 413 "));
    assert!(replica.counts("reports_refused_total{reason=\"TooLarge\"} 2"));
    assert_eq!(replica.tell("token", &report("n1")).await.status, 200);
}

#[tokio::test]
async fn a_slow_sender_is_not_waited_for() {
    let api = Api::start(&[("token", agent("n1"))]).await;
    let replica = Replica::start(&api, Some(Leader::Me), Limits { body: SOON, ..patient() }).await;
    let mut stream = TcpStream::connect(replica.address).await.unwrap();
    let head =
        "POST /v1/reports HTTP/1.1\r\nhost: c\r\nauthorization: Bearer token\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("\"Slow\""), "{said}");
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_end() {
    let api = Api::start(&[("token", agent("n1"))]).await;
    let replica = Replica::start(&api, Some(Leader::Me), Limits { head: SOON, ..patient() }).await;
    let mut slow = TcpStream::connect(replica.address).await.unwrap();
    slow.write_all(b"POST /v1/reports HTTP/1.1\r\nhost:").await.unwrap();
    rest(&mut slow).await;
    let mut idle = TcpStream::connect(replica.address).await.unwrap();
    idle.write_all(b"GET /v1/none HTTP/1.1\r\nhost: c\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 404 "), "kept alive, and then not for ever");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let (_api, replica) = Replica::leading(&[]).await;
    let mut stream = TcpStream::connect(replica.address).await.unwrap();
    let head = format!("GET /v1/nodes HTTP/1.1\r\nhost: c\r\nx: {}\r\n\r\n", "x".repeat(200 << 10));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut said = [0; 16];
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut said)).await.unwrap();
    assert!(read.is_err() || said.starts_with(b"HTTP/1.1 431"), "{said:?}");
}

#[tokio::test]
async fn beyond_the_rate_tokens_wait_and_known_ones_do_not() {
    let api = Api::start(&[("known", agent("n0"))]).await;
    // One review an hour: what comes second is too much, however slow this machine is.
    let reviews = Rates { at_rest: 1.0 / 3600.0, warming: 1.0 / 3600.0 };
    let replica = Replica::start(&api, Some(Leader::Me), Limits { reviews, ..patient() }).await;
    assert_eq!(replica.tell("known", &report("n0")).await.status, 200);
    for number in 1..=21 {
        let (token, node) = (format!("token-{number}"), format!("n{number}"));
        api.add(&token, agent(&node));
        let answered = replica.tell(&token, &report(&node)).await;
        assert_eq!((answered.status, answered.json()["reason"].as_str()), (503, Some("Busy")));
        let again: u64 = answered.header("retry-after").unwrap().parse().unwrap();
        assert!((5..=30).contains(&again), "{again}");
    }
    assert_eq!(replica.tell("known", &report("n0")).await.status, 200);
    assert_eq!(api.reviews.load(Ordering::Relaxed), 1);
    assert!(replica.counts("token_reviews_total{result=\"busy\"} 21"));
}

#[tokio::test]
async fn what_is_under_way_is_ended_and_nothing_new_begins() {
    let (_api, replica) = Replica::leading(&[("token", agent("n1"))]).await;
    let body = serde_json::to_vec(&report("n1")).unwrap();
    let mut stream = TcpStream::connect(replica.address).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST /v1/reports HTTP/1.1\r\nhost: c\r\nauthorization: Bearer token\r\ncontent-length: {length}\r\n\
         expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n", "the report is under way");
    replica.stop.cancel();
    stream.write_all(&body).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
    tokio::time::timeout(Duration::from_secs(30), replica.served).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(replica.address).await.is_err());
}
