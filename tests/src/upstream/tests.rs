//! The registry against the client: each kind of fault shows as what it is.

use std::net::SocketAddr;

use super::*;
use crate::client::{self, End, Reply as Got, Request, connect, open_on};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SIZE: usize = 300_000;

async fn blob_at(upstream: &Upstream) -> (Object, SocketAddr) {
    let blob = Object::noise(9, SIZE);
    upstream.push_blob("a", &blob);
    (blob, upstream.address())
}

async fn with_fault(change: impl Fn(&mut Reply) + Send + Sync + 'static) -> Got {
    let upstream = Upstream::start().await;
    let (blob, address) = blob_at(&upstream).await;
    upstream.on(Kind::Blob).once(change);
    // Not by the digest's path: the client would rightly refuse a whole wrong body.
    let reply =
        client::fetch(address, Request::get(&format!("/v2/a/blobs/{}", blob.digest)).query("x")).await;
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    reply
}

#[tokio::test]
async fn an_honest_reply_is_whole_and_counted() {
    let upstream = Upstream::start().await;
    let (blob, address) = blob_at(&upstream).await;
    let image = Image::oci(1, &[2000]);
    upstream.push("a", "latest", &image);
    let got = client::fetch(address, Request::blob("a", &blob.digest)).await;
    assert_eq!((got.status, got.end, got.body.len()), (200, End::Whole, SIZE));
    assert_eq!(upstream.body_bytes(), SIZE as u64);
    let head = client::fetch(address, Request::manifest("a", "latest").method("HEAD")).await;
    assert_eq!(head.header("docker-content-digest"), Some(image.index.digest.as_str()));
    assert_eq!(head.header("content-length"), Some(image.index.len().to_string().as_str()));
    let part = client::fetch(address, Request::blob("a", &blob.digest).range("bytes=299990-")).await;
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 299990-299999/300000")));
    assert_eq!(part.body, blob.bytes.slice(299_990..));
    let beyond = client::fetch(address, Request::blob("a", &blob.digest).range("bytes=300000-")).await;
    assert_eq!(beyond.status, 416);
    assert_eq!(upstream.requests()[0].repository, "a");
}

#[tokio::test]
async fn bodies_are_cut_shortened_lengthened_and_encoded() {
    let got = with_fault(|reply| _ = reply.cut(1000, Cut::Fin)).await;
    assert_eq!((got.end, got.body.len()), (End::Fin, 1000));
    assert_eq!(with_fault(|reply| _ = reply.cut(1000, Cut::Rst)).await.end, End::Rst);
    assert_eq!(with_fault(|reply| _ = reply.content_length("400000")).await.end, End::Fin);
    assert_eq!(with_fault(|reply| _ = reply.unterminated_chunks()).await.end, End::Fin);
    for change in [Reply::chunked, Reply::without_length] {
        let got = with_fault(move |reply| _ = change(reply)).await;
        assert_eq!((got.end, got.body.len(), got.header("content-length")), (End::Whole, SIZE, None));
    }
}

#[tokio::test]
#[should_panic(expected = "a whole wrong body")]
async fn a_whole_wrong_body_fails_the_test() {
    with_fault(|reply| _ = reply.corrupt(SIZE as u64 / 2)).await;
}

#[tokio::test]
#[should_panic(expected = "429 must never be sent")]
async fn what_must_never_be_sent_fails_the_test() {
    with_fault(|reply| _ = reply.error(429, "TOOMANYREQUESTS")).await;
}

#[tokio::test]
async fn gates_hold_heads_and_bodies_until_they_open() {
    let upstream = Upstream::start().await;
    let (blob, address) = blob_at(&upstream).await;
    let (head, middle) = (Gate::new(), Gate::new());
    let held = (head.clone(), middle.clone());
    upstream.on(Kind::Blob).once(move |reply| _ = reply.hold_head(&held.0).hold_at(1000, &held.1));
    let digest = blob.digest.clone();
    let asking = tokio::spawn(async move { client::open(address, Request::blob("a", &digest)).await });
    head.arrived(1).await;
    assert!(!asking.is_finished());
    head.open();
    let mut exchange = asking.await.unwrap();
    middle.arrived(1).await;
    assert_eq!(exchange.read(1000).await.0.len(), 1000);
    middle.open();
    assert_eq!(exchange.drain().await, (SIZE as u64, End::Whole));
}

#[tokio::test]
async fn a_private_repository_needs_a_token_of_a_known_user() {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    let address = upstream.address();
    let image = Image::oci(1, &[2000]);
    upstream.push("team/app", "1", &image);
    upstream.make_private("team/app", Private::Unauthorized);
    upstream.tokens().accept("robot", "secret");
    let ask = async |authorization: Option<&str>, target: &str| {
        let mut stream = connect(address).await;
        let line = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
        let text = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n{line}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    };
    let manifest = "/v2/team/app/manifests/1";
    assert!(ask(None, manifest).await.contains("401"));
    let token = "/token?service=test&scope=repository%3Ateam%2Fapp%3Apull";
    let bearer = |reply: String| {
        let token = reply.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        format!("Bearer {token}")
    };
    let anonymous = bearer(ask(None, token).await);
    assert!(ask(Some(&anonymous), manifest).await.contains("401"));
    // robot:secret
    let known = bearer(ask(Some("Basic cm9ib3Q6c2VjcmV0"), token).await);
    assert!(ask(Some(&known), manifest).await.starts_with("HTTP/1.1 200"));
    upstream.tokens().revoke();
    assert!(ask(Some(&known), manifest).await.contains("401"));
}

#[tokio::test]
async fn tags_come_in_pages_and_a_stopped_registry_comes_back() {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[2000]);
    for tag in ["1", "2", "3"] {
        upstream.push_tag("a", tag, &image.index);
    }
    let page = client::fetch(upstream.address(), Request::get("/v2/a/tags/list?n=2")).await;
    assert_eq!(page.header("link"), Some("</v2/a/tags/list?n=2&last=2>; rel=\"next\""));
    upstream.stop().await;
    assert!(tokio::net::TcpStream::connect(upstream.address()).await.is_err());
    upstream.resume().await;
    let stream = connect(upstream.address()).await;
    let first = open_on(stream, upstream.address(), Request::get("/v2/a/tags/list?last=2")).await;
    let list = first.read_all().await.body;
    assert_eq!(list, r#"{"name":"a","tags":["3"]}"#);
}
