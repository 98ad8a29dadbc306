//! What passes is the same on both sides, at the time it comes; what cannot pass is told.

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::body::BoxError;
use crate::serve::tests::stage::{Registry, Stage, reply, rest, status, until};

const OPEN: &str = r#"{"generation":1,"action":"enforce","limits":{}}"#;

#[tokio::test]
async fn headers_pass_but_for_those_of_the_connection() {
    let registry = Registry::start(|_| {
        let location = [("location", "https://storage.example/key?sig=%2F1")];
        let more = [
            ("docker-content-digest", "sha256:x"),
            ("oci-tag", "a"),
            ("keep-alive", "5"),
            ("warning", "299"),
        ];
        reply(307, &[location.as_slice(), &more].concat())
    });
    let registry = registry.await;
    let stage = Stage::new(registry.address, OPEN).await;
    let headers =
        "range: bytes=1-2\r\nauthorization: Bearer t\r\nx-forwarded-for: 10.0.0.9\r\nte: trailers\r\n";
    let told = stage.ask("GET /v2/a/manifests/x?ns=docker.io", headers, b"").await;
    assert_eq!(status(&told), 307);
    for header in
        ["location: https://storage.example/key?sig=%2F1", "docker-content-digest: sha256:x", "oci-tag: a"]
    {
        assert!(told.contains(header), "{told}");
    }
    assert!(!told.contains("keep-alive: 5"), "{told}");
    let seen = registry.take().remove(0);
    assert_eq!(seen.target, "/v2/a/manifests/x?ns=docker.io");
    for (name, value) in [
        ("host", "registry.example"),
        ("range", "bytes=1-2"),
        ("authorization", "Bearer t"),
        ("x-forwarded-for", "10.0.0.9, 127.0.0.1"),
        ("x-forwarded-host", "registry.example"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(seen.headers[name], value, "{name}");
    }
    assert!(
        !seen.headers.contains_key("te") && !seen.headers.contains_key("connection"),
        "{:?}",
        seen.headers
    );
}

#[tokio::test]
async fn a_body_passes_frame_by_frame_both_ways() {
    let registry = Registry::scripted(|request| {
        Box::pin(async move {
            // What comes goes back at once: an end that waits for the other would never come.
            let (sender, receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, BoxError>>();
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    sender.send(Ok(frame)).unwrap();
                }
            });
            let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|frame| (frame, receiver))
            });
            Response::new(StreamBody::new(Box::pin(frames)).boxed())
        })
    });
    let stage = Stage::new(registry.await, OPEN).await;
    let mut stream = stage.connect().await;
    let head = "PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for word in ["first", "second"] {
        stream.write_all(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).await.unwrap();
        until(&mut stream, word).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut stream).await, "\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_registry_that_is_away_is_told_as_such() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let stage = Stage::new(address, OPEN).await;
    let told = stage.ask("GET /v2/", "", b"").await;
    assert_eq!(status(&told), 503, "{told}");
    assert!(told.contains("\"UNAVAILABLE\"") && told.contains("no connection to the registry"), "{told}");
    assert!(told.contains("retry-after: 5"), "{told}");

    let breaking = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = breaking.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = breaking.accept().await {
            drop(stream);
        }
    });
    let stage = Stage::new(address, OPEN).await;
    let told = stage.ask("GET /v2/", "", b"").await;
    assert_eq!(status(&told), 502, "{told}");
    assert!(told.contains("\"UNAVAILABLE\""), "{told}");
}

#[tokio::test]
async fn the_length_of_a_blob_is_learnt_from_answers() {
    let registry = Registry::start(|seen| {
        let body = if seen.method == "HEAD" { Bytes::new() } else { Bytes::from_static(b"12345") };
        let mut answer = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
        answer.headers_mut().insert("content-length", "5".parse().unwrap());
        answer
    });
    let stage = Stage::new(registry.await.address, OPEN).await;
    for (method, letter) in [("HEAD", "a"), ("GET", "b")] {
        let digest = format!("sha256:{}", letter.repeat(64));
        let told = stage.ask(&format!("{method} /v2/a/blobs/{digest}"), "", b"").await;
        assert!(told.contains("content-length: 5"), "{told}");
        assert_eq!(stage.gateway.sizes.known(&digest.parse().unwrap()), Some(5), "{method}");
    }
}
