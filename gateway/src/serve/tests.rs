//! What is refused before anything of it reaches the registry, and the limits on how much is under way.

pub(crate) mod stage;

use tokio::io::AsyncWriteExt;

use stage::{Registry, Stage, reply, rest, status, until};

const OPEN: &str = r#"{"generation":1,"action":"enforce","limits":{}}"#;

fn digest() -> String {
    format!("sha256:{}", "a".repeat(64))
}

#[tokio::test]
async fn what_breaks_the_grammar_is_refused_with_words_and_never_passed_on() {
    let registry = Registry::start(|_| reply(200, &[])).await;
    let stage = Stage::new(registry.address, OPEN).await;
    let digest = digest();
    for (line, code, expected) in [
        ("GET /", "UNSUPPORTED", 404),
        ("GET /v2/a/b", "UNSUPPORTED", 404),
        ("GET /v2/../etc/manifests/x", "NAME_INVALID", 400),
        ("GET /v2/a/../b/manifests/x", "NAME_INVALID", 400),
        ("GET /v2/a%2f..%2fb/manifests/x", "NAME_INVALID", 400),
        ("GET /v2/A/manifests/x", "NAME_INVALID", 400),
        ("GET /v2/a/manifests/..", "TAG_INVALID", 400),
        ("GET /v2/a/manifests/x%00", "TAG_INVALID", 400),
        ("GET /v2/a/blobs/sha256:xyz", "DIGEST_INVALID", 400),
        ("PATCH /v2/a/blobs/uploads/..", "BLOB_UPLOAD_INVALID", 400),
        ("PATCH /v2/a/blobs/uploads/x/y", "BLOB_UPLOAD_INVALID", 400),
        ("PATCH /v2/a/blobs/uploads/%2e%2e", "BLOB_UPLOAD_INVALID", 400),
        ("PUT /v2/a/manifests/x?tag=.bad", "TAG_INVALID", 400),
        ("POST /v2/a/manifests/x", "UNSUPPORTED", 405),
        ("PATCH /v2/a/manifests/x", "UNSUPPORTED", 405),
        ("DELETE /v2/_catalog", "UNSUPPORTED", 405),
        ("PUT /v2/a/blobs/uploads/", "UNSUPPORTED", 405),
        ("BREW /v2/", "UNSUPPORTED", 405),
        (&format!("PUT /v2/a/blobs/{digest}"), "UNSUPPORTED", 405),
    ] {
        let told = stage.ask(line, "", b"").await;
        assert_eq!(status(&told), expected, "{line}: {told}");
        assert!(
            told.contains(&format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"")),
            "{line}: {told}"
        );
    }
    let told = stage.ask("GET /v2/", "", b"body").await;
    assert_eq!(status(&told), 400, "{told}");
    let told = stage.ask("GET /v2/", "host: other\r\n", b"").await;
    assert_eq!(status(&told), 400, "{told}");
    assert!(registry.take().is_empty());
}

#[tokio::test]
async fn two_lengths_never_become_two_requests() {
    let registry = Registry::start(|_| reply(202, &[])).await;
    let stage = Stage::new(registry.address, OPEN).await;
    let head = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: a\r\n";
    let hidden = "GET /v2/hidden/tags/list HTTP/1.1\r\nhost: a\r\n\r\n";
    let told = stage.raw(format!("{head}content-length: 0\r\ncontent-length: 5\r\n\r\n{hidden}")).await;
    assert_eq!(status(&told), 400, "{told}");
    let told = stage.raw(format!("{head}transfer-encoding: gzip\r\n\r\n{hidden}")).await;
    assert_eq!(status(&told), 400, "{told}");
    assert!(registry.take().is_empty());
    // What is read by one rule is sent on by the same, and the connection ends with it.
    let both = format!("{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}");
    let told = stage.raw(both).await;
    assert_eq!(told.matches("HTTP/1.1").count(), 1, "{told}");
    let seen = registry.take();
    assert!(seen.iter().all(|seen| seen.method == "POST" && seen.body.is_empty()), "{seen:?}");
}

#[tokio::test]
async fn a_manifest_that_is_too_long_is_not_passed_on() {
    let registry = Registry::start(|_| reply(201, &[])).await;
    let policy = r#"{"generation":1,"action":"enforce","limits":{"manifest_bytes":100}}"#;
    let stage = Stage::new(registry.address, policy).await;
    let body = [b' '; 101];
    for told in [
        stage.ask("PUT /v2/a/manifests/x", "", &body).await,
        stage.ask_in_chunks("PUT /v2/a/manifests/x", "", &[&body[..60], &body[..41]]).await,
        stage.raw("PUT /v2/a/manifests/x HTTP/1.1\r\nhost: a\r\ncontent-length: 300000000\r\n\r\n").await,
    ] {
        assert_eq!(status(&told), 413, "{told}");
        assert!(told.contains("MANIFEST_INVALID") && told.contains("connection: close"), "{told}");
    }
    assert!(registry.take().is_empty());
}

#[tokio::test]
async fn pushes_do_not_take_the_places_of_pulls() {
    let registry = Registry::start(|_| reply(200, &[])).await;
    let stage = Stage::with(registry.address, OPEN, "max_writes = 1", None).await;
    let mut pushing = stage.connect().await;
    let head = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                content-length: 2\r\nexpect: 100-continue\r\n\r\n";
    pushing.write_all(head.as_bytes()).await.unwrap();
    // The body is asked for, so the place is taken.
    until(&mut pushing, "100 Continue\r\n\r\n").await;
    let told = stage.ask("POST /v2/b/blobs/uploads/", "", b"").await;
    assert_eq!(status(&told), 503, "{told}");
    assert!(told.contains("\"UNAVAILABLE\"") && told.contains("retry-after: "), "{told}");
    assert_eq!(status(&stage.ask("GET /v2/", "", b"").await), 200);
    assert!(stage.gateway.metrics.page().unwrap().contains("in_flight{kind=\"write\"} 1"));
    pushing.write_all(b"xx").await.unwrap();
    assert_eq!(status(&rest(&mut pushing).await), 200);
    assert_eq!(status(&stage.ask("POST /v2/b/blobs/uploads/", "", b"").await), 200);
}
