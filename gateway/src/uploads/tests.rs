//! Uploads at, below and beyond the limit, and what is learnt of them.

use http::Response;
use tokio::io::AsyncWriteExt;

use crate::body::Body;
use crate::serve::tests::stage::{Registry, Seen, Stage, eventually, reply, rest, status, until};

const UPLOAD: &str = "/v2/team-a/app/blobs/uploads/1";

fn policy(action: &str) -> String {
    format!(r#"{{"generation":1,"action":"{action}","limits":{{"image_bytes":1000}}}}"#)
}

fn digest(letter: &str) -> String {
    format!("sha256:{}", letter.repeat(64))
}

/// A registry with a session whose address changes with every chunk.
fn as_distribution(seen: &Seen) -> Response<Body> {
    let state = |of: &str| format!("{UPLOAD}?_state={of}%3D");
    let end = seen.body.len().saturating_sub(1);
    match (seen.method.as_str(), seen.target.contains("?digest") || seen.target.contains("&digest")) {
        ("POST", true) => reply(201, &[]),
        ("POST", false) => reply(202, &[("location", &state("begin")), ("range", "0-0")]),
        ("PATCH", _) => reply(202, &[("location", &state("more")), ("range", &format!("0-{end}"))]),
        ("PUT", _) => reply(201, &[]),
        _ => reply(204, &[]),
    }
}

async fn stage(action: &str) -> (Registry, Stage) {
    let registry = Registry::start(as_distribution).await;
    let stage = Stage::new(registry.address, &policy(action)).await;
    (registry, stage)
}

async fn deletions(registry: &Registry) -> Vec<String> {
    let deleted = |seen: &Seen| (seen.method == "DELETE").then(|| seen.target.clone());
    eventually(|| registry.seen.lock().unwrap().iter().any(|seen| deleted(seen).is_some())).await;
    registry.take().iter().filter_map(deleted).collect()
}

#[tokio::test]
async fn an_upload_may_be_as_large_as_the_limit_and_no_byte_larger() {
    let (registry, stage) = stage("enforce").await;
    let told = stage.ask_in_chunks(&format!("PATCH {UPLOAD}"), "", &[&[1; 600], &[2; 400]]).await;
    assert_eq!(status(&told), 202, "{told}");
    assert_eq!(registry.take().remove(0).body.len(), 1000);

    let told = stage
        .ask_in_chunks(&format!("PATCH {UPLOAD}x"), "authorization: Basic eDp5\r\n", &[&[1; 600], &[2; 401]])
        .await;
    assert_eq!(status(&told), 403, "{told}");
    assert!(
        told.contains("\"DENIED\"") && told.contains("1000 bytes") && told.contains("connection: close"),
        "{told}"
    );
    eventually(|| registry.seen.lock().unwrap().len() == 2).await;
    let seen = registry.take();
    assert!(seen[0].body.len() <= 1000, "{}", seen[0].body.len());
    // At the address that the registry gave last, with the client's credential.
    assert_eq!(
        (seen[1].method.as_str(), seen[1].target.as_str()),
        ("DELETE", "/v2/team-a/app/blobs/uploads/1?_state=more%3D")
    );
    assert_eq!(seen[1].headers["authorization"], "Basic eDp5");
    let page = stage.gateway.metrics.page().unwrap();
    assert!(page.contains("decisions_total{decision=\"refused\",reason=\"upload-size\"} 1"), "{page}");
}

#[tokio::test]
async fn what_is_announced_too_large_is_refused_before_its_first_byte() {
    let (registry, stage) = stage("enforce").await;
    let head = format!("PUT {UPLOAD}?digest={} HTTP/1.1\r\nhost: a\r\n", digest("a"));
    let mut stream = stage.connect().await;
    let headers = "content-length: 1001\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(format!("{head}{headers}").as_bytes()).await.unwrap();
    // Nobody asks for the body.
    let told = until(&mut stream, "}\n").await;
    assert!(told.starts_with("HTTP/1.1 403 ") && told.contains("1001 bytes"), "{told}");
    assert_eq!(deletions(&registry).await.len(), 1);

    let told = stage.ask(&format!("PATCH {UPLOAD}"), "content-range: 900-1000\r\n", &[0; 101]).await;
    assert_eq!(status(&told), 403, "{told}");
    assert_eq!(deletions(&registry).await.len(), 1);
    let told = stage.ask(&format!("PATCH {UPLOAD}"), "content-range: 900-999\r\n", &[0; 100]).await;
    assert_eq!(status(&told), 202, "{told}");
}

#[tokio::test]
async fn earlier_chunks_count() {
    let (registry, stage) = stage("enforce").await;
    let told = stage.ask(&format!("PATCH {UPLOAD}"), "", &[0; 700]).await;
    assert_eq!(status(&told), 202, "{told}");
    registry.take();
    let told = stage.ask_in_chunks(&format!("PATCH {UPLOAD}?_state=more%3D"), "", &[&[0; 301]]).await;
    assert_eq!(status(&told), 403, "{told}");
    deletions(&registry).await;
}

#[tokio::test]
async fn an_audited_limit_stops_nothing() {
    let (registry, stage) = stage("audit").await;
    let told = stage.ask(&format!("PATCH {UPLOAD}"), "", &[0; 2000]).await;
    assert_eq!(status(&told), 202, "{told}");
    assert_eq!(registry.take().len(), 1);
    let page = stage.gateway.metrics.page().unwrap();
    assert!(page.contains("decisions_total{decision=\"audited\",reason=\"upload-size\"} 1"), "{page}");
}

#[tokio::test]
async fn sizes_are_learnt_from_finished_uploads() {
    let (_registry, stage) = stage("enforce").await;
    let known = |letter: &str| stage.gateway.sizes.known(&digest(letter).parse().unwrap());
    let uploads = "/v2/team-a/app/blobs/uploads/";
    let put = |state: &str, letter: &str| format!("PUT {UPLOAD}?{state}digest={}", digest(letter));

    stage.ask(&format!("POST {uploads}?digest={}", digest("a")), "", &[0; 10]).await;
    assert_eq!(known("a"), Some(10), "one request");

    stage.ask(&format!("POST {uploads}"), "", b"").await;
    stage.ask(&put("_state=begin%3D&", "b"), "", &[0; 20]).await;
    assert_eq!(known("b"), Some(20), "all in the last request");

    stage.ask(&format!("POST {uploads}"), "", b"").await;
    stage.ask_in_chunks(&format!("PATCH {UPLOAD}?_state=begin%3D"), "", &[&[0; 30]]).await;
    // Clients write the address anew when they add the digest.
    stage.ask(&format!("PUT {UPLOAD}?digest={}&_state=more%3D", digest("c")), "", &[0; 3]).await;
    assert_eq!(known("c"), Some(33), "a chunk and the rest");

    stage.ask(&format!("POST {uploads}?mount={}&from=b", digest("d")), "", b"").await;
    assert_eq!(known("d"), None, "a mount");

    // The last chunk went through another replica: what is remembered here is not the whole.
    stage.ask(&format!("POST {uploads}"), "", b"").await;
    stage.ask(&put("_state=others%3D&", "e"), "", &[0; 5]).await;
    assert_eq!(known("e"), None, "a session that went on elsewhere");
}

#[tokio::test]
async fn ranges_that_cannot_be_true_are_refused() {
    let (registry, stage) = stage("enforce").await;
    stage.ask(&format!("PATCH {UPLOAD}"), "", &[0; 100]).await;
    registry.take();
    let line = format!("PATCH {UPLOAD}?_state=more%3D");
    for (range, code, expected) in [
        ("x-y", "BLOB_UPLOAD_INVALID", 400),
        ("9-5", "BLOB_UPLOAD_INVALID", 400),
        ("+1-9", "BLOB_UPLOAD_INVALID", 400),
        ("0-18446744073709551615", "BLOB_UPLOAD_INVALID", 400),
        ("100-108", "SIZE_INVALID", 400),
        ("50-59", "BLOB_UPLOAD_INVALID", 416),
        ("110-119", "BLOB_UPLOAD_INVALID", 416),
    ] {
        let told = stage.ask(&line, &format!("content-range: {range}\r\n"), &[0; 10]).await;
        assert_eq!(status(&told), expected, "{range}: {told}");
        assert!(told.contains(code), "{range}: {told}");
    }
    let told = stage.ask_in_chunks(&line, "content-range: 100-109\r\n", &[&[0; 11]]).await;
    assert!(status(&told) == 400 && told.contains("SIZE_INVALID"), "{told}");
    let patched =
        registry.take().into_iter().filter(|seen| seen.method == "PATCH" && !seen.body.is_empty()).count();
    assert_eq!(patched, 0);
}

#[tokio::test]
async fn an_answer_outlives_a_body_that_nobody_reads() {
    let (_registry, stage) = stage("enforce").await;
    let mut stream = stage.connect().await;
    let head = format!("PATCH {UPLOAD} HTTP/1.1\r\nhost: a\r\ncontent-length: 8388608\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A client that looks for an answer only once it has sent everything.
    stream.write_all(&vec![0; 8 << 20]).await.unwrap();
    stream.shutdown().await.unwrap();
    let told = rest(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 403 ") && told.ends_with("}\n"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_sending_is_told_and_let_go() {
    let (_registry, stage) = stage("enforce").await;
    let mut stream = stage.connect().await;
    let head = format!("PATCH {UPLOAD} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome");
    stream.write_all(head.as_bytes()).await.unwrap();
    let told = rest(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("BLOB_UPLOAD_INVALID"), "{told}");
}
