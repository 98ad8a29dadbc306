//! One fetch for everybody who wants the same thing, on nobody's account: who comes, leaves or is slow changes nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use larder_tests::chaos::{Chaos, Dice, Fault, Plan};
use larder_tests::client::{End, Exchange, Request};
use larder_tests::image::{Image, Object};
use larder_tests::node::{Node, REGISTRY, url};
use larder_tests::upstream::{Auth, Cut, Gate, Kind, Upstream};
use larder_tests::wait::{until, until_time, within, within_time};

const BIG: usize = 16 << 20;

async fn held_at(upstream: &Upstream, blob: &Object, at: u64) -> Gate {
    upstream.push_blob("a", blob);
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Blob).reference(&blob.digest).once(move |reply| _ = reply.hold_at(at, &held));
    gate
}

async fn open_many(node: &Node, digest: &str, count: usize) -> Vec<Exchange> {
    join_all((0..count).map(|_| node.open(Request::blob("a", digest)))).await
}

async fn all_whole(clients: Vec<Exchange>, size: u64) {
    for (length, end) in join_all(clients.into_iter().map(Exchange::drain)).await {
        assert_eq!((length, end), (size, End::Whole));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_on_a_cold_blob_of_100_mib_cause_one_get() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, 100 << 20);
    upstream.push_blob("a", &blob);
    let node = Arc::new(Node::with(&upstream).await);
    let clients = (0..50).map(|_| {
        let (node, digest) = (Arc::clone(&node), blob.digest.clone());
        tokio::spawn(async move { node.open(Request::blob("a", &digest)).await.drain().await })
    });
    let limit = Duration::from_secs(180);
    for client in within_time("50 clients", limit, join_all(clients)).await {
        assert_eq!(client.unwrap(), (100 << 20, End::Whole));
    }
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    assert_eq!(upstream.body_bytes(), 100 << 20);
    let node = Arc::into_inner(node).unwrap();
    assert_eq!(node.metrics().requests("upstream"), 1);
    assert_eq!(node.metrics().requests("follow") + node.metrics().requests("cache"), 49);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_of_everything_cause_one_fetch_of_each() {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    let image = Image::oci(2, &[200_000]);
    upstream.push("a", "1", &image);
    let node = Node::with(&upstream).await;
    let requests = [
        Request::manifest("a", "1"),
        Request::manifest("a", &image.manifest.digest),
        Request::blob("a", &image.layers[0].digest),
    ];
    let clients = (0..100).flat_map(|_| requests.iter().map(|request| node.fetch(request.clone())));
    for reply in join_all(clients).await {
        assert_eq!((reply.status, reply.end), (200, End::Whole));
    }
    assert_eq!(upstream.count(Kind::Token, "GET"), 1, "one token for the repository");
    assert_eq!(upstream.served(Kind::Blob), 1);
    assert_eq!(upstream.served(Kind::Manifest) + upstream.served(Kind::Tag), 2, "the index and the manifest");
    node.finish().await;
}

#[tokio::test]
async fn the_first_client_may_leave() {
    for size in [200_000, BIG] {
        let upstream = Upstream::start().await;
        let blob = Object::noise(3, size);
        let gate = held_at(&upstream, &blob, size as u64 / 10).await;
        let node = Node::with(&upstream).await;
        let first = node.open(Request::blob("a", &blob.digest)).await;
        let others = open_many(&node, &blob.digest, 20).await;
        gate.arrived(1).await;
        first.leave();
        gate.open();
        all_whole(others, size as u64).await;
        node.stored(&blob.digest).await;
        assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
        node.finish().await;
    }
}

#[tokio::test]
async fn everybody_may_leave_and_the_blob_still_comes() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(4, BIG);
    let gate = held_at(&upstream, &blob, 1000).await;
    let node = Node::with(&upstream).await;
    for client in open_many(&node, &blob.digest, 5).await {
        client.leave();
    }
    gate.arrived(1).await;
    gate.open();
    node.stored(&blob.digest).await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.body.len(), BIG);
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_nobody() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(5, 64 << 20);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    let mut lazy = node.open(Request::blob("a", &blob.digest)).await;
    let (length, end) = node.open(Request::blob("a", &blob.digest)).await.drain().await;
    assert_eq!((length, end), (64 << 20, End::Whole), "while the first has read nothing");
    node.stored(&blob.digest).await;
    assert_eq!(lazy.read(1).await.1, None);
    assert_eq!(lazy.drain().await, (64 << 20, End::Whole));
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    node.finish().await;
}

#[tokio::test]
async fn bytes_of_a_big_blob_flow_before_it_is_whole_and_those_of_a_small_one_do_not() {
    let upstream = Upstream::start().await;
    let (big, small) = (Object::noise(6, BIG), Object::noise(7, 1 << 20));
    let big_gate = held_at(&upstream, &big, BIG as u64 - 1).await;
    let small_gate = held_at(&upstream, &small, small.len() - 1).await;
    let node = Node::with(&upstream).await;
    let mut big_client = node.open(Request::blob("a", &big.digest)).await;
    let small_client = node.open(Request::blob("a", &small.digest)).await;
    assert_eq!((big_client.status, small_client.status), (200, 200), "heads leave at once");
    big_gate.arrived(1).await;
    small_gate.arrived(1).await;
    let (bytes, _) = big_client.read(BIG as u64 / 2).await;
    assert!(bytes.len() >= BIG / 2);
    assert!(small_client.has_nothing_to_read(), "nothing of a small blob is sent before it is verified");
    big_gate.open();
    small_gate.open();
    assert_eq!(big_client.drain().await, (BIG as u64, End::Whole));
    assert_eq!(small_client.drain().await, (1 << 20, End::Whole));
    node.finish().await;
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    for how in [Cut::Fin, Cut::Rst] {
        for size in [300_000, BIG] {
            let upstream = Upstream::start().await;
            let blob = Object::noise(8, size);
            upstream.push_blob("a", &blob);
            let half = size as u64 / 2;
            upstream.on(Kind::Blob).once(move |reply| _ = reply.cut(half, how));
            let node = Node::with(&upstream).await;
            let clients = open_many(&node, &blob.digest, 10).await;
            all_whole(clients, size as u64).await;
            node.stored(&blob.digest).await;
            let asked = upstream.requests();
            assert_eq!(asked.len(), 2, "{how:?}: asked once more");
            let range = asked[1].header("range").unwrap_or_default();
            assert!(range.starts_with("bytes=") && range.ends_with('-') && range != "bytes=0-", "{range}");
            assert_eq!(asked[1].header("if-range"), Some(format!("\"{}\"", blob.digest).as_str()));
            assert_eq!(asked[1].header("accept-encoding"), Some("identity"));
            // What a reset throws away in flight is asked for again.
            let limit = if how == Cut::Fin { size as u64 } else { size as u64 * 3 / 2 };
            assert!(upstream.body_bytes() <= limit, "{how:?}: {} of {limit}", upstream.body_bytes());
            node.finish().await;
        }
    }
}

#[tokio::test]
async fn a_cut_on_the_way_is_resumed_too() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(9, BIG);
    upstream.push_blob("a", &blob);
    let chaos = Chaos::start(upstream.address()).await;
    for how in [Cut::Fin, Cut::Rst, Cut::Fin] {
        chaos.next(Plan { down: Fault { cut: Some((4 << 20, how)), ..Fault::default() }, ..Plan::default() });
    }
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.url = url(&format!("http://{}", chaos.address()));
    });
    let node = node.start().await;
    let reply = node.open(Request::blob("a", &blob.digest)).await.drain().await;
    assert_eq!(reply, (BIG as u64, End::Whole));
    assert_eq!(upstream.count(Kind::Blob, "GET"), 4);
    // The reset throws away what was in flight; the others lose nothing.
    let limit = BIG as u64 * 3 / 2;
    assert!(chaos.down_bytes() <= limit, "{} bytes came from upstream, not {limit}", chaos.down_bytes());
    let received = node.metrics().sum("larder_upstream_bytes_total", &[("registry", REGISTRY)]);
    assert_eq!(received, BIG as f64, "nothing that came is asked for again");
    node.finish().await;
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_read_again_from_the_start() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(10, BIG);
    upstream.push_blob("a", &blob);
    upstream.on(Kind::Blob).once(|reply| _ = reply.cut(5 << 20, Cut::Fin));
    upstream.on(Kind::Blob).always(|reply| _ = reply.ignore_range());
    let node = Node::with(&upstream).await;
    assert_eq!(node.open(Request::blob("a", &blob.digest)).await.drain().await, (BIG as u64, End::Whole));
    assert_eq!(upstream.count(Kind::Blob, "GET"), 2);
    node.finish().await;
}

#[tokio::test]
async fn a_registry_that_always_breaks_is_given_up() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(11, BIG);
    upstream.push_blob("a", &blob);
    upstream.on(Kind::Blob).always(|reply| _ = reply.cut(9 << 20, Cut::Fin));
    let node = Node::with(&upstream).await;
    let clients = open_many(&node, &blob.digest, 5).await;
    for (length, end) in
        within("all clients are told", join_all(clients.into_iter().map(Exchange::drain))).await
    {
        assert!(end == End::Fin && length < BIG as u64, "{length} {end:?}");
    }
    let asked = upstream.count(Kind::Blob, "GET");
    assert!((2..=5).contains(&asked), "resumed at most 3 times without progress, not {asked}");
    assert!(!node.has_stored(&blob.digest));
    node.finish().await;
}

#[tokio::test]
async fn a_stalled_body_is_taken_up_again() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(12, 300_000);
    let _gate = held_at(&upstream, &blob, 100_000).await;
    let node = Node::with(&upstream).await;
    let client = node.open(Request::blob("a", &blob.digest)).await;
    // The upstream is idle for as long as the mirror bears it, which is half a minute.
    let limit = Duration::from_secs(90);
    let got = client.drain_within(limit).await;
    assert_eq!(got, (300_000, End::Whole));
    assert_eq!(upstream.count(Kind::Blob, "GET"), 2);
    node.finish().await;
}

#[tokio::test]
async fn clients_that_leave_at_any_byte_leave_nothing_behind() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..30).map(|seed| Object::noise(100 + seed, 500_000)).collect();
    let node = Node::with(&upstream).await;
    let mut dice = Dice::new(1);
    for blob in &blobs {
        upstream.push_blob("a", blob);
        for _ in 0..10 {
            let mut client = node.open(Request::blob("a", &blob.digest)).await;
            let _ = client.read(dice.below(500_000)).await;
            client.leave();
        }
    }
    for blob in &blobs {
        node.stored(&blob.digest).await;
    }
    assert_eq!(upstream.count(Kind::Blob, "GET"), blobs.len());
    node.finish().await;
}

#[tokio::test]
async fn a_fill_that_nobody_waits_for_any_more_is_bounded() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(13, 160 << 20);
    upstream.push_blob("a", &blob);
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Blob).once(move |reply| _ = reply.hold_head(&held));
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.first_byte_timeout = Duration::from_millis(200);
    });
    let node = node.start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 503);
    gate.open();
    // It goes on for a while, since somebody may come back, and then the connection is closed.
    until("the fill ends", async || (upstream.body_bytes() > 0 && upstream.is_idle()).then_some(())).await;
    assert!(upstream.body_bytes() < 120 << 20, "{} bytes", upstream.body_bytes());
    assert!(!node.has_stored(&blob.digest));
    node.finish().await;
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_cut() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(14, 64 << 20);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    assert!(node.open(Request::blob("a", &blob.digest)).await.drain().await.1 == End::Whole);
    let mut slow = node.open(Request::blob("a", &blob.digest)).await;
    assert_eq!(slow.read(1).await.1, None);
    // The rate is that of a whole minute.
    until_time("the connection is closed", Duration::from_secs(120), async || {
        (node.metrics().sum("larder_connections", &[]) == 0.0).then_some(())
    })
    .await;
    let (length, end) = slow.drain().await;
    assert!(end != End::Whole && length < blob.len());
    node.finish().await;
}
