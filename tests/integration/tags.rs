//! Tags: fresh, stale, forgotten, and how often upstream is asked.

use std::time::Duration;

use futures_util::future::join_all;
use larder_tests::client::{Reply, Request};
use larder_tests::image::Image;
use larder_tests::node::{Builder, Node, REGISTRY};
use larder_tests::upstream::{Gate, Kind, Upstream};
use larder_tests::wait::until;

async fn with_tag() -> (Upstream, Image) {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[2000]);
    upstream.push("a", "1", &image);
    (upstream, image)
}

fn asking_each_time(upstream: &Upstream) -> Builder {
    Node::builder().upstream(upstream).settings(|settings| settings.cache.tag_ttl = Duration::ZERO)
}

fn digest(reply: &Reply) -> &str {
    reply.header("docker-content-digest").unwrap_or_default()
}

#[tokio::test]
async fn a_fresh_tag_asks_nobody() {
    let (upstream, image) = with_tag().await;
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.body, image.index.bytes);
    let asked = upstream.total();
    upstream.stop().await;
    for method in ["GET", "HEAD"] {
        let reply = node.fetch(Request::manifest("a", "1").method(method)).await;
        assert_eq!((reply.status, digest(&reply)), (200, image.index.digest.as_str()));
        assert_eq!(reply.header("larder-stale"), None);
    }
    assert_eq!(upstream.total(), asked);
    node.finish().await;
}

#[tokio::test]
async fn a_pull_by_tag_asks_for_each_manifest_once() {
    let (upstream, image) = with_tag().await;
    let node = Node::with(&upstream).await;
    for request in [
        Request::manifest("a", "1").method("HEAD"),
        Request::manifest("a", &image.index.digest),
        Request::manifest("a", &image.manifest.digest),
        Request::manifest("a", "1"),
    ] {
        assert_eq!(node.fetch(request).await.status, 200);
    }
    assert_eq!(upstream.served(Kind::Manifest) + upstream.served(Kind::Tag), 2);
    node.finish().await;
}

#[tokio::test]
async fn a_tag_that_is_old_at_once_costs_one_head_each_time() {
    let (upstream, image) = with_tag().await;
    let node = asking_each_time(&upstream).start().await;
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
    let (heads, gets) =
        (upstream.count(Kind::Tag, "HEAD"), upstream.served(Kind::Tag) + upstream.served(Kind::Manifest));
    for n in 1..=3 {
        assert_eq!(digest(&node.fetch(Request::manifest("a", "1")).await), image.index.digest);
        assert_eq!(upstream.count(Kind::Tag, "HEAD"), heads + n);
    }
    assert_eq!(upstream.served(Kind::Tag) + upstream.served(Kind::Manifest), gets, "no bytes again");
    node.finish().await;
}

#[tokio::test]
async fn all_who_ask_at_once_share_one_head() {
    let (upstream, image) = with_tag().await;
    let node = asking_each_time(&upstream).start().await;
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
    let before = upstream.count(Kind::Tag, "HEAD");
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Tag).method("HEAD").always(move |reply| _ = reply.hold_head(&held));
    let all =
        async { join_all((0..20).map(|_| node.fetch(Request::manifest("a", "1").method("HEAD")))).await };
    let opened = async {
        gate.arrived(1).await;
        node.has_read_requests(20).await;
        gate.open();
    };
    let (replies, ()) = tokio::join!(all, opened);
    for reply in replies {
        assert_eq!((reply.status, digest(&reply)), (200, image.index.digest.as_str()));
    }
    assert_eq!(upstream.count(Kind::Tag, "HEAD"), before + 1);
    node.finish().await;
}

#[tokio::test]
async fn a_moved_tag_is_seen_when_it_is_old() {
    let (upstream, old) = with_tag().await;
    let node = asking_each_time(&upstream).start().await;
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.body, old.index.bytes);
    let new = Image::oci(2, &[2000]);
    upstream.push("a", "1", &new);
    let reply = node.fetch(Request::manifest("a", "1")).await;
    assert_eq!((digest(&reply), &reply.body), (new.index.digest.as_str(), &new.index.bytes));
    let still = node.fetch(Request::manifest("a", &old.index.digest)).await;
    assert_eq!(still.body, old.index.bytes, "a digest does not go old");
    node.finish().await;
}

#[tokio::test]
async fn a_deleted_tag_is_forgotten() {
    let (upstream, image) = with_tag().await;
    let node = asking_each_time(&upstream).start().await;
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
    upstream.delete_tag("a", "1");
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 404);
    upstream.stop().await;
    assert_ne!(node.fetch(Request::manifest("a", "1")).await.status, 200, "not even stale");
    assert_eq!(node.fetch(Request::manifest("a", &image.index.digest)).await.status, 200);
    node.finish().await;
}

#[tokio::test]
async fn an_upstream_in_trouble_means_a_stale_tag() {
    for status in [500, 502, 503, 504, 429] {
        let (upstream, image) = with_tag().await;
        let node = asking_each_time(&upstream).start().await;
        assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
        upstream.on(Kind::Tag).always(move |reply| _ = reply.error(status, "UNKNOWN"));
        for _ in 0..7 {
            let reply = node.fetch(Request::manifest("a", "1")).await;
            assert_eq!((reply.status, &reply.body), (200, &image.index.bytes), "{status}");
            let age = reply.header("larder-stale").and_then(|value| value.parse::<u64>().ok());
            assert!(age.is_some(), "{status}: marked with its age in seconds");
        }
        let stale = node.metrics().sum("larder_stale_served_total", &[("registry", REGISTRY)]);
        assert_eq!((stale, node.metrics().requests("stale")), (7.0, 7), "{status}: counted");
        node.finish().await;
    }
}

#[tokio::test]
async fn an_upstream_that_is_gone_or_silent_means_a_stale_tag() {
    let (upstream, image) = with_tag().await;
    let node = asking_each_time(&upstream).settings(|settings| {
        settings.upstreams[0].head_timeout = Duration::from_millis(200);
        settings.upstreams[0].first_byte_timeout = Duration::from_millis(200);
    });
    let node = node.start().await;
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Tag).always(move |reply| _ = reply.hold_head(&held));
    for method in ["HEAD", "GET"] {
        let reply = node.fetch(Request::manifest("a", "1").method(method)).await;
        assert_eq!((reply.status, digest(&reply)), (200, image.index.digest.as_str()), "silent");
        assert!(reply.header("larder-stale").is_some());
    }
    gate.open();
    upstream.stop().await;
    let reply = node.fetch(Request::manifest("a", "1")).await;
    assert_eq!((reply.status, reply.header("larder-stale").is_some()), (200, true), "gone");
    // And fresh again once it is back.
    upstream.clear_rules();
    upstream.resume().await;
    until("the tag is fresh again", async || {
        let reply = node.fetch(Request::manifest("a", "1")).await;
        (reply.status == 200 && reply.header("larder-stale").is_none()).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn stale_has_a_limit() {
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        let (upstream, image) = with_tag().await;
        let node =
            asking_each_time(&upstream).settings(|settings| settings.cache.max_stale = limit).start().await;
        assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
        upstream.stop().await;
        until("the tag is too old", async || {
            (node.fetch(Request::manifest("a", "1")).await.status == 503).then_some(())
        })
        .await;
        assert_eq!(
            node.fetch(Request::manifest("a", &image.index.digest)).await.status,
            200,
            "a digest is not"
        );
        node.finish().await;
    }
}

#[tokio::test]
async fn a_refused_tag_is_never_stale() {
    for status in [401, 403] {
        let (upstream, _) = with_tag().await;
        let node = asking_each_time(&upstream).start().await;
        assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
        upstream.on(Kind::Tag).always(move |reply| _ = reply.error(status, "DENIED"));
        for _ in 0..2 {
            let reply = node.fetch(Request::manifest("a", "1")).await;
            assert_eq!((reply.status, reply.header("larder-stale")), (404, None), "{status}");
        }
        node.finish().await;
    }
}

#[tokio::test]
async fn a_registry_that_tells_no_digest_on_head_is_asked_by_get() {
    let (upstream, image) = with_tag().await;
    upstream
        .on(Kind::Tag)
        .always(|reply| _ = reply.without_header("Docker-Content-Digest").without_header("ETag"));
    let node = asking_each_time(&upstream).start().await;
    for method in ["HEAD", "GET", "HEAD"] {
        let reply = node.fetch(Request::manifest("a", "1").method(method)).await;
        assert_eq!((reply.status, digest(&reply)), (200, image.index.digest.as_str()), "{method}");
        assert_eq!(reply.header("content-length"), Some(image.index.len().to_string().as_str()));
    }
    node.finish().await;
}

#[tokio::test]
async fn a_tag_whose_digest_and_bytes_disagree_is_not_taken() {
    let (upstream, image) = with_tag().await;
    let other = Image::oci(5, &[2000]).index.digest;
    let told = other.clone();
    upstream.on(Kind::Tag).always(move |reply| _ = reply.header("Docker-Content-Digest", &told));
    let node = Node::with(&upstream).await;
    let reply = node.fetch(Request::manifest("a", "1")).await;
    assert!(matches!(reply.status, 404 | 503), "{}", reply.status);
    assert!(!node.has_stored(&other) && !node.has_stored(&image.index.digest));
    node.finish().await;
}

#[tokio::test]
async fn upstreams_have_tag_times_of_their_own() {
    let (upstream, _) = with_tag().await;
    let node = Node::builder()
        .upstream_as("old.test", &upstream, |settings| settings.tag_ttl = Some(Duration::ZERO))
        .upstream_as("fresh.test", &upstream, |_| ());
    let node = node.start().await;
    for (ns, more) in [("ns=old.test", true), ("ns=fresh.test", false)] {
        assert_eq!(node.fetch(Request::manifest("a", "1").query(ns)).await.status, 200);
        let asked = upstream.total();
        assert_eq!(node.fetch(Request::manifest("a", "1").query(ns)).await.status, 200);
        assert_eq!(upstream.total() > asked, more, "{ns}");
    }
    node.finish().await;
}
