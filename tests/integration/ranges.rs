//! Ranges on stored blobs and on blobs that are still coming in.

use larder_tests::client::{End, Request};
use larder_tests::image::Object;
use larder_tests::node::Node;
use larder_tests::upstream::{Gate, Kind, Upstream};

const SIZE: usize = 100_000;
/// Beyond what is held back until it is verified.
const BIG: usize = 12 << 20;

/// Range, and first and last byte of the part; no part: the whole with 200.
const SATISFIABLE: [(&str, Option<(usize, usize)>); 14] = [
    ("bytes=0-", Some((0, 99_999))),
    ("bytes=0-0", Some((0, 0))),
    ("bytes=1-99999", Some((1, 99_999))),
    ("bytes=99999-", Some((99_999, 99_999))),
    ("bytes=5-1000000", Some((5, 99_999))),
    ("bytes=-1", Some((99_999, 99_999))),
    ("bytes=-200000", Some((0, 99_999))),
    ("bytes=50000-50009", Some((50_000, 50_009))),
    ("bytes=a-b", None),
    ("bytes=9-5", None),
    ("bytes=", None),
    ("bytes=-", None),
    ("items=0-5", None),
    ("bytes=0-1,5-9", None),
];
const BEYOND: [&str; 3] = ["bytes=100000-", "bytes=100000-100005", "bytes=-0"];

async fn check_matrix(node: &Node, blob: &Object) {
    for (range, part) in SATISFIABLE {
        let reply = node.fetch(Request::blob("a", &blob.digest).range(range)).await;
        assert_eq!(reply.end, End::Whole, "{range}");
        assert_eq!(reply.header("docker-content-digest"), Some(blob.digest.as_str()), "{range}");
        let Some((first, last)) = part else {
            assert_eq!((reply.status, &reply.body), (200, &blob.bytes), "{range}");
            continue;
        };
        assert_eq!((reply.status, &reply.body), (206, &blob.bytes.slice(first..=last)), "{range}");
        let told = format!("bytes {first}-{last}/{SIZE}");
        assert_eq!(reply.header("content-range"), Some(told.as_str()), "{range}");
        assert_eq!(reply.header("content-length"), Some((last - first + 1).to_string().as_str()), "{range}");
    }
    for range in BEYOND {
        let reply = node.fetch(Request::blob("a", &blob.digest).range(range)).await;
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.header("content-range"), Some(format!("bytes */{SIZE}").as_str()), "{range}");
    }
}

#[tokio::test]
async fn ranges_of_a_stored_blob() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, SIZE);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    let _ = node.fetch(Request::blob("a", &blob.digest)).await;
    node.stored(&blob.digest).await;
    check_matrix(&node, &blob).await;
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    node.finish().await;
}

#[tokio::test]
async fn the_first_ranges_after_a_start_are_right_too() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, SIZE);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    let _ = node.fetch(Request::blob("a", &blob.digest)).await;
    node.stored(&blob.digest).await;
    let mut stopped = node.stop().await;
    for (range, part) in SATISFIABLE {
        let node = stopped.start().await;
        let reply = node.fetch(Request::blob("a", &blob.digest).range(range)).await;
        let part = part.map_or_else(|| blob.bytes.clone(), |(first, last)| blob.bytes.slice(first..=last));
        assert_eq!(reply.body, part, "{range}");
        stopped = node.stop().await;
    }
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
}

#[tokio::test]
async fn if_range_sends_the_part_only_of_the_same_bytes() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, SIZE);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    let request = Request::blob("a", &blob.digest).range("bytes=10-19");
    for (if_range, status) in [(format!("\"{}\"", blob.digest), 206), ("\"other\"".to_owned(), 200)] {
        assert_eq!(
            node.fetch(request.clone().header("If-Range", &if_range)).await.status,
            status,
            "{if_range}"
        );
    }
    node.finish().await;
}

#[tokio::test]
async fn a_head_has_no_parts() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, SIZE);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    let _ = node.fetch(Request::blob("a", &blob.digest)).await;
    let head = node.fetch(Request::blob("a", &blob.digest).method("HEAD").range("bytes=0-9")).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("100000")));
    node.finish().await;
}

#[tokio::test]
async fn parts_of_a_blob_that_is_still_coming_join_to_the_whole() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(2, BIG);
    upstream.push_blob("a", &blob);
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Blob).once(move |reply| _ = reply.hold_at(BIG as u64 / 2, &held));
    let node = Node::with(&upstream).await;
    // As containerd fetches in parallel: open ends, left after a chunk.
    let chunk = 1 << 20;
    let mut parts = Vec::new();
    for first in (0..BIG).step_by(chunk) {
        let request = Request::blob("a", &blob.digest).range(&format!("bytes={first}-"));
        let part = node.open(request).await;
        assert_eq!(part.status, 206);
        let told = format!("bytes {first}-{}/{BIG}", BIG - 1);
        assert_eq!(part.header("content-range"), Some(told.as_str()));
        parts.push(part);
    }
    gate.arrived(1).await;
    let (early, end) = parts[0].read(chunk as u64).await;
    assert!(end.is_none() && blob.bytes.starts_with(&early), "bytes flow while the blob is coming");
    gate.open();
    let mut joined = early;
    joined.truncate(chunk);
    for mut part in parts.drain(1..) {
        let (mut bytes, end) = part.read(chunk as u64).await;
        assert!(matches!(end, None | Some(End::Whole)), "{end:?}");
        bytes.truncate(chunk);
        joined.extend(bytes);
    }
    assert!(joined == blob.bytes, "the chunks join to the blob");
    drop(parts);
    node.stored(&blob.digest).await;
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    node.finish().await;
}

#[tokio::test]
async fn the_matrix_holds_while_a_blob_is_coming() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(3, SIZE);
    upstream.push_blob("a", &blob);
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Blob).once(move |reply| _ = reply.hold_at(40_000, &held));
    let node = Node::with(&upstream).await;
    let mut waiting = Vec::new();
    for (range, part) in SATISFIABLE {
        let exchange = node.open(Request::blob("a", &blob.digest).range(range)).await;
        assert_eq!(exchange.status, if part.is_some() { 206 } else { 200 }, "{range}");
        waiting.push((range, part, exchange));
    }
    for range in BEYOND {
        assert_eq!(node.fetch(Request::blob("a", &blob.digest).range(range)).await.status, 416, "{range}");
    }
    gate.open();
    for (range, part, exchange) in waiting {
        let reply = exchange.read_all().await;
        let part = part.map_or_else(|| blob.bytes.clone(), |(first, last)| blob.bytes.slice(first..=last));
        assert_eq!((reply.end, reply.body), (End::Whole, part), "{range}");
    }
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    node.finish().await;
}

#[tokio::test]
async fn a_cold_part_fetches_the_whole_once() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(4, SIZE);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    let reply = node.fetch(Request::blob("a", &blob.digest).range("bytes=90000-")).await;
    assert_eq!((reply.status, reply.body), (206, blob.bytes.slice(90_000..)));
    node.stored(&blob.digest).await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 200);
    let asked: Vec<_> = upstream.requests();
    assert_eq!((asked.len(), asked[0].header("range")), (1, None));
    node.finish().await;
}
