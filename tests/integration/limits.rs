//! What upstreams in trouble do to what is limited: permits, breakers, tries, credentials.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use larder_tests::client::{End, Request};
use larder_tests::image::{Image, Object};
use larder_tests::node::{Node, REGISTRY, temp_dir};
use larder_tests::upstream::{Auth, Cut, Gate, Kind, Private, Upstream};
use larder_tests::wait::until;

const BIG: usize = 12 << 20;

#[tokio::test]
async fn fills_that_break_together_do_not_wait_for_each_others_permits() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..4).map(|seed| Object::noise(seed, BIG)).collect();
    for blob in &blobs {
        upstream.push_blob("a", blob);
    }
    upstream.on(Kind::Blob).times(4, |reply| _ = reply.cut(BIG as u64 / 2, Cut::Fin));
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| settings.max_concurrent = 2);
    let node = node.start().await;
    let pulls = blobs.iter().map(|blob| node.fetch(Request::blob("a", &blob.digest)));
    for (reply, blob) in join_all(pulls).await.into_iter().zip(&blobs) {
        assert_eq!((reply.status, reply.end), (200, End::Whole));
        assert_eq!(reply.body, blob.bytes);
    }
    node.finish().await;
}

#[tokio::test]
async fn an_upstream_that_restarts_in_mid_blob_is_asked_again() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, BIG);
    upstream.push_blob("a", &blob);
    // The break, and then two refusals while it starts.
    let asked = AtomicUsize::new(0);
    upstream.on(Kind::Blob).always(move |reply| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => _ = reply.cut(BIG as u64 / 2, Cut::Fin),
        1 | 2 => _ = reply.error(500, "UNKNOWN"),
        _ => {}
    });
    let node = Node::with(&upstream).await;
    let reply = node.fetch(Request::blob("a", &blob.digest)).await;
    assert_eq!((reply.status, reply.end, reply.body == blob.bytes), (200, End::Whole, true));
    let upstream_bytes = node.metrics().sum("larder_upstream_bytes_total", &[("registry", REGISTRY)]);
    assert!(upstream_bytes < 1.1 * BIG as f64, "{upstream_bytes} for a blob of {BIG}");
    node.finish().await;
}

#[tokio::test]
async fn a_token_server_that_comes_back_is_found_again() {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    let images: Vec<Image> = (0..8).map(|seed| Image::oci(seed, &[2000])).collect();
    for (at, image) in images.iter().enumerate() {
        upstream.push(&format!("r{at}"), "1", image);
    }
    upstream.on(Kind::Token).always(|reply| _ = reply.error(500, "UNKNOWN"));
    let node = Node::with(&upstream).await;
    for at in 0..8 {
        assert_eq!(node.fetch(Request::manifest(&format!("r{at}"), "1")).await.status, 503);
    }
    assert_eq!(upstream.count(Kind::Token, "GET"), 5, "five failures, then it is left alone");
    assert_eq!(node.metrics().sum("larder_upstream_up", &[("registry", REGISTRY)]), 0.0);
    upstream.clear_rules();
    until("the upstream is up again", async || {
        (node.metrics().sum("larder_upstream_up", &[("registry", REGISTRY)]) == 1.0).then_some(())
    })
    .await;
    assert_eq!(node.fetch(Request::manifest("r0", "1")).await.status, 200);
    node.finish().await;
}

/// A credential's two files.
fn write(dir: &std::path::Path, password: &str) -> (PathBuf, PathBuf) {
    let (username, secret) = (dir.join("username"), dir.join("password"));
    fs::write(&username, "robot").expect("a file can be written");
    fs::write(&secret, password).expect("a file can be written");
    (username, secret)
}

#[tokio::test]
async fn a_credential_rotated_while_no_token_is_kept_is_read_for_the_next_one() {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    let images: Vec<Image> = (0..2).map(|seed| Image::oci(seed, &[2000])).collect();
    for (at, image) in images.iter().enumerate() {
        let name = format!("team/r{at}");
        upstream.push(&name, "1", image);
        upstream.make_private(&name, Private::NoToken);
    }
    upstream.tokens().accept("robot", "first-password");
    let dir = temp_dir();
    let (username, password) = write(dir.path(), "first-password");
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.access = larder_wire::settings::Access::Shared;
        (settings.username_file, settings.password_file) = (Some(username), Some(password));
    });
    let node = node.start().await;
    assert_eq!(node.fetch(Request::manifest("team/r0", &images[0].index.digest)).await.status, 200);
    upstream.tokens().forget_credentials();
    upstream.tokens().accept("robot", "second-password");
    write(dir.path(), "second-password");
    // Another repository needs another token: the registry itself has answered no 401.
    assert_eq!(node.fetch(Request::manifest("team/r1", &images[1].index.digest)).await.status, 200);
    node.finish().await;
}

#[tokio::test]
async fn a_repository_without_the_manifest_does_not_answer_for_one_that_has_it() {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[2000]);
    upstream.push("has", "1", &image);
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Manifest).once(move |reply| _ = reply.hold_head(&held));
    let node = Node::with(&upstream).await;
    let asking = node.fetch(Request::manifest("lacks", &image.index.digest));
    let other = async {
        gate.arrived(1).await;
        // The first is still waiting for its 404.
        let reply = node.fetch(Request::manifest("has", &image.index.digest)).await;
        gate.open();
        reply
    };
    let (lacks, has) = futures_util::future::join(asking, other).await;
    assert_eq!((has.status, has.body == image.index.bytes), (200, true));
    assert_eq!(lacks.status, 404);
    node.finish().await;
}
