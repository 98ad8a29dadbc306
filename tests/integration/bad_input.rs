//! What no honest client sends: refused here, without a word to upstream and without a file on the disk.

use larder_tests::client::{self, Request, raw, statuses};
use larder_tests::image::Object;
use larder_tests::invariants::files;
use larder_tests::node::{Node, REGISTRY};
use larder_tests::upstream::Upstream;
use larder_tests::wait::until;

struct Stand {
    upstream: Upstream,
    node: Node,
    blob: Object,
}

impl Stand {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let blob = Object::noise(1, 2000);
        upstream.push_blob("a", &blob);
        let node = Node::with(&upstream).await;
        Self { upstream, node, blob }
    }

    /// Nothing reached upstream or the disk, and the node still serves.
    async fn end_unharmed(self) {
        assert_eq!(self.upstream.connections(), 0, "{:?}", self.upstream.requests());
        for dir in ["blobs", "tmp"] {
            assert_eq!(files(&self.node.data_dir().join(dir)).len(), 0, "{dir}");
        }
        assert_eq!(self.node.fetch(Request::blob("a", &self.blob.digest)).await.status, 200);
        self.node.finish().await;
    }
}

/// A request line and headers as bytes.
fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line}\r\nHost: x\r\n{headers}Connection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn paths_outside_the_grammar_are_refused_in_words() {
    let stand = Stand::new().await;
    let digest = &stand.blob.digest;
    let long = "a".repeat(300);
    let tag = "a".repeat(129);
    for path in [
        "/",
        "/v1/",
        "/v2/a",
        "/v2/a/manifests/",
        "/v2//manifests/1",
        "/v2/a/b/c",
        "/V2/a/manifests/1",
        "//v2/a/manifests/1",
        "/v2/A/manifests/1",
        "/v2/a..b/manifests/1",
        "/v2/-a/manifests/1",
        "/v2/a_/manifests/1",
        "/v2/a/manifests/.1",
        "/v2/a/manifests/a%2fb",
        "/v2/a%2fb/manifests/1",
        "/v2/a%2Fb/manifests/1",
        "/v2/%61/manifests/1",
        "/v2/a%00/manifests/1",
        "/v2/../a/manifests/1",
        "/v2/a/../../etc/manifests/1",
        "/v2/%2e%2e/a/manifests/1",
        "/v2/..%2f..%2fetc/manifests/1",
        "/v2/%252e%252e/manifests/1",
        "/v2/a//b/manifests/1",
        "/v2/a/./manifests/1",
        "/v2/a/manifests/..",
        "/v2/a/manifests/%2e%2e",
        "/v2/a\\b/manifests/1",
        "/v2/a/manifests/1%0d%0aX:%20y",
        "/v2/a/manifests/1%00",
        "/v2/a/manifests/1/",
        "/v2/a/tags/",
        "/v2/a/tags/list/x",
        "/v2/a/referrers/1",
        "/v2/a/blobs/1",
        "/v2/a/blobs/uploads/",
        "/v2/a/blobs/uploads/x",
        "/v2/etc/passwd",
        "/etc/passwd",
        "/v2/a/manifests/1;x=y",
        &format!("/v2/{long}/manifests/1"),
        &format!("/v2/a/manifests/{tag}"),
        &format!("/v2/{digest}/blobs/{digest}"),
        "/v2/a/manifests/sha256:",
        "/v2/a/manifests/latest@sha256:0",
        "/v2/a/manifests/é",
        "/v2/ä/manifests/1",
    ] {
        let reply = stand.node.fetch(Request::get(&format!("{path}?ns={REGISTRY}"))).await;
        assert!(matches!(reply.status, 400 | 404 | 405), "{path}: {}", reply.status);
        // What the parser itself refuses has no body of ours.
        if path.is_ascii() {
            let _ = reply.oci_error();
        }
    }
    stand.end_unharmed().await;
}

#[tokio::test]
async fn malformed_digests_are_refused() {
    let stand = Stand::new().await;
    let hex = stand.blob.hex();
    let upper = hex.to_uppercase();
    for digest in [
        "",
        "sha256",
        "sha256:",
        "sha256:zz",
        ":",
        &format!(":{hex}"),
        &format!("sha256:{}", &hex[1..]),
        &format!("sha256:{hex}0"),
        &format!("sha256:{upper}"),
        &format!("SHA256:{hex}"),
        &format!("sha512:{hex}"),
        &format!("sha1:{}", &hex[..40]),
        &format!("md5:{}", &hex[..32]),
        &format!("sha256:{hex}%00"),
        &format!("sha256:{hex}:"),
        &format!("sha256%3A{hex}"),
        &format!("sha256:../{hex}"),
        &format!("sha256:{}", "g".repeat(64)),
        &format!("sha384:{hex}{}", &hex[..32]),
        &format!("sha256+b64:{hex}"),
        &format!("blake3:{hex}"),
        &format!("sha256-{hex}"),
        &format!("sha256: {hex}").replace(' ', "%20"),
    ] {
        for kind in ["blobs", "manifests"] {
            if kind == "manifests" && (digest == "sha256" || !digest.contains(':') && !digest.contains('%')) {
                continue;
            }
            let reply = stand.node.fetch(Request::get(&format!("/v2/a/{kind}/{digest}?ns={REGISTRY}"))).await;
            assert!(matches!(reply.status, 400 | 404), "{kind}/{digest}: {}", reply.status);
            let _ = reply.oci_error();
        }
    }
    stand.end_unharmed().await;
}

#[tokio::test]
async fn only_get_and_head_are_for_us() {
    let stand = Stand::new().await;
    let path = format!("/v2/a/blobs/{}?ns={REGISTRY}", stand.blob.digest);
    for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"] {
        for path in [
            path.as_str(),
            "/v2/a/blobs/uploads/?ns=registry.test",
            "/v2/a/manifests/1?ns=registry.test",
            "/v2/",
        ] {
            let reply = stand.node.fetch(Request::new(method, path)).await;
            assert_eq!(reply.status, 405, "{method} {path}");
            let allow = reply.header("allow").unwrap_or_default();
            assert!(allow.contains("GET") && allow.contains("HEAD"), "{method}: {allow}");
            assert_eq!(reply.oci_error().0, "UNSUPPORTED");
        }
    }
    stand.end_unharmed().await;
}

#[tokio::test]
async fn a_body_where_none_belongs_is_no_second_request() {
    let stand = Stand::new().await;
    let smuggled = format!("GET /v2/a/blobs/{}?ns={REGISTRY} HTTP/1.1\r\nHost: x\r\n\r\n", stand.blob.digest);
    let size = smuggled.len();
    let get = "GET /v2/ HTTP/1.1\r\nHost: x\r\n";
    for (what, bytes) in [
        ("a length", format!("{get}Content-Length: {size}\r\n\r\n{smuggled}")),
        ("chunks", format!("{get}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{smuggled}\r\n0\r\n\r\n")),
        (
            "a length and chunks",
            format!("{get}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunks and a length",
            format!("{get}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("two lengths", format!("{get}Content-Length: 0\r\nContent-Length: {size}\r\n\r\n{smuggled}")),
        ("lengths in one line", format!("{get}Content-Length: 0, {size}\r\n\r\n{smuggled}")),
        ("a signed length", format!("{get}Content-Length: +{size}\r\n\r\n{smuggled}")),
        ("a negative length", format!("{get}Content-Length: -1\r\n\r\n{smuggled}")),
        ("a hex length", format!("{get}Content-Length: 0x{size:x}\r\n\r\n{smuggled}")),
        ("an unknown coding", format!("{get}Transfer-Encoding: xchunked\r\n\r\n{smuggled}")),
        (
            "two codings",
            format!(
                "{get}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        ("a hidden coding", format!("{get}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("a folded coding", format!("{get}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("a huge chunk", format!("{get}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{smuggled}")),
        (
            "a trailer",
            format!("{get}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: {size}\r\n\r\n{smuggled}"),
        ),
        ("an upgrade", format!("{get}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n{smuggled}")),
        ("an expectation", format!("{get}Expect: 100-continue\r\nContent-Length: {size}\r\n\r\n{smuggled}")),
    ] {
        let reply = raw(stand.node.address(), bytes.as_bytes()).await;
        let got = statuses(&reply);
        // "an upgrade" and "a trailer" may be followed by an honest second request; nothing else may.
        assert!(
            got.iter().all(|status| matches!(status, 100 | 200 | 400 | 405 | 404 | 413 | 417)),
            "{what}: {got:?}"
        );
        assert!(!got.contains(&101), "{what}: {got:?}");
        let bodies = reply.windows(10).filter(|window| *window == &stand.blob.bytes[..10]).count();
        let honest = matches!(what, "an upgrade");
        assert!(honest || bodies == 0, "{what}: the smuggled request was answered");
    }
    let untouched = stand.upstream.count(larder_tests::upstream::Kind::Blob, "GET");
    assert!(untouched <= 1, "only the pipelined request may have been asked");
    stand.node.finish().await;
}

#[tokio::test]
async fn other_protocols_get_a_refusal_or_nothing() {
    let stand = Stand::new().await;
    let hello: Vec<u8> = [&[0x16, 3, 1, 0, 0xfa, 1, 0, 0, 0xf6, 3, 3][..], &[7; 244]].concat();
    let pri = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for (what, bytes) in [
        ("a TLS hello", hello.clone()),
        ("HTTP/2", pri),
        ("CONNECT", request("CONNECT 127.0.0.1:22 HTTP/1.1", "")),
        ("CONNECT with a path", request("CONNECT /v2/ HTTP/1.1", "")),
        ("HTTP/0.9", b"GET /v2/\r\n\r\n".to_vec()),
        ("no version", request("GET /v2/", "")),
        ("HTTP/3.7", request("GET /v2/ HTTP/3.7", "")),
        ("two spaces", request("GET  /v2/ HTTP/1.1", "")),
        (
            "a bare line feed in a header",
            b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: b\nContent-Length: 0\n\n\r\n\r\n".to_vec(),
        ),
        ("a folded header", request("GET /v2/ HTTP/1.1", "A: b\r\n c\r\n")),
        ("a NUL in a header", request("GET /v2/ HTTP/1.1", "A: b\0c\r\n")),
        ("a NUL in the path", request("GET /v2/a\0b/manifests/1 HTTP/1.1", "")),
        ("a space in the path", request("GET /v2/a b/manifests/1 HTTP/1.1", "")),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("noise", larder_tests::image::noise(3, 4096)),
        ("nothing", Vec::new()),
    ] {
        let reply = raw(stand.node.address(), &bytes).await;
        let got = statuses(&reply);
        let well = got.iter().all(|status| matches!(status, 400 | 404 | 405 | 505) || *status == 200);
        assert!(well && got.len() <= 1, "{what}: {got:?} {:?}", String::from_utf8_lossy(&reply));
        assert!(
            reply.is_empty() || reply.starts_with(b"HTTP/"),
            "{what}: {:?}",
            String::from_utf8_lossy(&reply)
        );
        if matches!(what, "a TLS hello" | "CONNECT" | "CONNECT with a path" | "HTTP/2" | "noise") {
            assert!(!got.contains(&200), "{what}");
        }
    }
    // containerd tells from these five bytes that the port speaks plain HTTP.
    assert!(raw(stand.node.address(), &hello).await.starts_with(b"HTTP/"));
    stand.end_unharmed().await;
}

#[tokio::test]
async fn a_whole_url_is_not_a_way_to_elsewhere() {
    let stand = Stand::new().await;
    let elsewhere = Upstream::start().await;
    for line in [
        format!("GET http://{}/v2/ HTTP/1.1", elsewhere.address()),
        format!("GET http://{}/v2/a/blobs/{} HTTP/1.1", elsewhere.address(), stand.blob.digest),
        format!("GET https://{}/ HTTP/1.1", elsewhere.address()),
        "OPTIONS * HTTP/1.1".to_owned(),
    ] {
        let got = statuses(&raw(stand.node.address(), &request(&line, "")).await);
        assert!(got.len() == 1 && matches!(got[0], 400 | 404 | 405), "{line}: {got:?}");
    }
    assert_eq!(elsewhere.connections(), 0);
    stand.end_unharmed().await;
}

#[tokio::test]
async fn heads_have_limits() {
    let stand = Stand::new().await;
    let lines = |count: usize, size: usize| {
        (0..count).map(|n| format!("X-{n}: {}\r\n", "y".repeat(size))).collect::<String>()
    };
    for (what, bytes, expected) in [
        ("17 KiB in one header", request("GET /v2/ HTTP/1.1", &lines(1, 17 << 10)), 431),
        ("17 KiB in many", request("GET /v2/ HTTP/1.1", &lines(34, 512)), 431),
        ("101 headers", request("GET /v2/ HTTP/1.1", &lines(101, 1)), 431),
        (
            "a path of 9 KiB",
            request(&format!("GET /v2/{}/manifests/1 HTTP/1.1", "a".repeat(9 << 10)), ""),
            414,
        ),
        ("a query of 70 KiB", request(&format!("GET /v2/?{} HTTP/1.1", "a".repeat(70 << 10)), ""), 414),
    ] {
        let got = statuses(&raw(stand.node.address(), &bytes).await);
        assert!(got.len() == 1 && (got[0] == expected || matches!(got[0], 414 | 431)), "{what}: {got:?}");
    }
    let good = request("GET /v2/ HTTP/1.1", &lines(40, 10));
    assert_eq!(statuses(&raw(stand.node.address(), &good).await), [200], "an honest head is none of these");
    stand.end_unharmed().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_ended_by_us() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let stand = Stand::new().await;
    let mut slow = Vec::new();
    for start in [&b""[..], b"GET /v2/ HTTP/1.1\r\nHost:", b"G"] {
        let mut stream = client::connect(stand.node.address()).await;
        stream.write_all(start).await.unwrap();
        slow.push(stream);
    }
    for mut stream in slow {
        let mut reply = Vec::new();
        let _ = larder_tests::wait::within("the mirror closes", stream.read_to_end(&mut reply)).await;
        assert!(
            statuses(&reply).iter().all(|status| *status == 400),
            "{:?}",
            String::from_utf8_lossy(&reply)
        );
    }
    stand.end_unharmed().await;
}

#[tokio::test]
async fn connections_have_a_limit_and_a_clear_refusal() {
    let upstream = Upstream::start().await;
    let node = Node::builder().upstream(&upstream).settings(|settings| settings.listen.max_connections = 4);
    let node = node.start().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let exchange = client::open(node.address(), Request::get("/v2/")).await;
        let (_, _) = {
            let mut exchange = exchange;
            let read = exchange.read(2).await;
            held.push(exchange);
            read
        };
    }
    let refused = node.fetch(Request::get("/v2/")).await;
    assert_eq!(refused.status, 503);
    assert!(refused.oci_error().1.contains("connections"), "{:?}", refused.body);
    drop(held);
    until("there is room again", async || {
        (node.fetch(Request::get("/v2/")).await.status == 200).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn requests_follow_each_other_on_a_connection() {
    let stand = Stand::new().await;
    let mut stream = client::connect(stand.node.address()).await;
    for path in ["/v2/", "/v2/a/manifests/..", "/v2/_catalog", "/v2/"] {
        let exchange = client::open_on(stream, stand.node.address(), Request::get(path)).await;
        let mut exchange = exchange;
        let length = exchange.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let _ = exchange.read(length).await;
        stream = exchange.into_stream();
    }
    stand.end_unharmed().await;
}
