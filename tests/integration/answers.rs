//! Every row of what containerd is told, and the exact headers of what it gets.

use larder_tests::client::{End, Reply, Request};
use larder_tests::image::{Image, Object};
use larder_tests::node::{KEY, NODE, Node, REGISTRY};
use larder_tests::upstream::{Auth, Gate, Kind, Private, Upstream};
use larder_wire::proof;

async fn with_image() -> (Upstream, Node, Image) {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[5000, 70_000]);
    upstream.push("library/alpine", "3.20", &image);
    let node = Node::with(&upstream).await;
    (upstream, node, image)
}

fn is_manifest(reply: &Reply, manifest: &Object) {
    assert_eq!((reply.status, reply.end), (200, End::Whole));
    assert_eq!(reply.header("content-type"), Some(manifest.media_type.as_str()));
    assert_eq!(reply.header("content-length"), Some(manifest.len().to_string().as_str()));
    assert_eq!(reply.header("docker-content-digest"), Some(manifest.digest.as_str()));
    assert_eq!(reply.header("etag"), Some(format!("\"{}\"", manifest.digest).as_str()));
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
}

/// An error with a body that a person can act on.
fn is_refusal(reply: &Reply, status: u16, codes: &[&str]) -> String {
    assert_eq!((reply.status, reply.end), (status, End::Whole), "{:?}", reply.body);
    assert!(reply.header("content-type").is_some_and(|value| value.starts_with("application/json")));
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    let (code, message) = reply.oci_error();
    assert!(codes.contains(&code.as_str()), "{code} is none of {codes:?}: {message}");
    assert!(message.starts_with(&format!("larder@{NODE}: ")), "{message}");
    message
}

#[tokio::test]
async fn the_base_says_that_the_api_is_here() {
    let (upstream, node, _) = with_image().await;
    for path in ["/v2/", "/v2", "/v2/?ns=unknown.test"] {
        let reply = node.fetch(Request::get(path)).await;
        assert_eq!((reply.status, reply.body.trim_ascii()), (200, &b"{}"[..]), "{path}");
        assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    }
    assert_eq!(upstream.total(), 0);
    node.finish().await;
}

#[tokio::test]
async fn a_pull_gets_upstreams_bytes_with_exact_headers_cold_and_warm() {
    let (upstream, node, image) = with_image().await;
    for round in ["cold", "warm"] {
        let head = node.fetch(Request::manifest("library/alpine", "3.20").method("HEAD")).await;
        is_manifest(&head, &image.index);
        assert!(head.body.is_empty(), "{round}: HEAD has no body");
        for (reference, manifest) in [
            ("3.20", &image.index),
            (image.index.digest.as_str(), &image.index),
            (image.manifest.digest.as_str(), &image.manifest),
        ] {
            let reply = node.fetch(Request::manifest("library/alpine", reference)).await;
            is_manifest(&reply, manifest);
            assert_eq!(reply.body, manifest.bytes, "{round}: raw bytes");
        }
        for blob in image.blobs() {
            let reply = node.fetch(Request::blob("library/alpine", &blob.digest)).await;
            assert_eq!((reply.status, &reply.body), (200, &blob.bytes), "{round}");
            for (name, value) in [
                ("content-type", "application/octet-stream".to_owned()),
                ("content-length", blob.len().to_string()),
                ("docker-content-digest", blob.digest.clone()),
                ("etag", format!("\"{}\"", blob.digest)),
                ("accept-ranges", "bytes".to_owned()),
                ("docker-distribution-api-version", "registry/2.0".to_owned()),
            ] {
                assert_eq!(reply.header(name), Some(value.as_str()), "{round}: {name}");
                assert_eq!(reply.header_count(name), 1, "{round}: {name} once");
            }
        }
    }
    assert_eq!(upstream.count(Kind::Blob, "GET"), 3, "each blob once");
    let manifests = upstream.count(Kind::Manifest, "GET") + upstream.count(Kind::Tag, "GET");
    assert_eq!(manifests, 2, "each manifest once");
    node.finish().await;
}

#[tokio::test]
async fn docker_types_are_kept_as_they_are() {
    let upstream = Upstream::start().await;
    let image = Image::docker(2, &[5000]);
    upstream.push("a", "1", &image);
    let node = Node::with(&upstream).await;
    for _ in ["cold", "warm"] {
        is_manifest(&node.fetch(Request::manifest("a", "1")).await, &image.index);
        is_manifest(&node.fetch(Request::manifest("a", &image.manifest.digest)).await, &image.manifest);
    }
    node.finish().await;
}

#[tokio::test]
async fn a_head_of_a_blob_says_what_a_get_would_say() {
    let (_upstream, node, image) = with_image().await;
    let layer = &image.layers[1];
    for round in ["cold", "warm"] {
        let head = node.fetch(Request::blob("library/alpine", &layer.digest).method("HEAD")).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{round}");
        assert_eq!(head.header("content-length"), Some("70000"), "{round}");
        assert_eq!(head.header("docker-content-digest"), Some(layer.digest.as_str()), "{round}");
        let _ = node.fetch(Request::blob("library/alpine", &layer.digest)).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn what_the_client_has_already_is_not_sent_again() {
    let (_upstream, node, image) = with_image().await;
    let (blob, manifest) = (&image.layers[0].digest, &image.index.digest);
    for request in [Request::blob("library/alpine", blob), Request::manifest("library/alpine", "3.20")] {
        let _ = node.fetch(request).await;
    }
    for (request, digest) in [
        (Request::blob("library/alpine", blob), blob),
        (Request::manifest("library/alpine", manifest), manifest),
        (Request::manifest("library/alpine", "3.20"), manifest),
    ] {
        for same in [format!("\"{digest}\""), digest.clone(), format!("W/\"{digest}\""), "*".to_owned()] {
            let reply = node.fetch(request.clone().header("If-None-Match", &same)).await;
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{same}");
            assert_eq!(reply.header("etag"), Some(format!("\"{digest}\"").as_str()));
        }
        let list = format!("\"other\", \"{digest}\"");
        assert_eq!(node.fetch(request.clone().header("If-None-Match", &list)).await.status, 304);
        assert_eq!(node.fetch(request.header("If-None-Match", "\"other\"")).await.status, 200);
    }
    node.finish().await;
}

#[tokio::test]
async fn what_is_not_ours_is_not_found() {
    let (upstream, node, image) = with_image().await;
    let layer = &image.layers[0].digest;
    let unknown = Request::blob("library/alpine", layer).query("ns=unknown.test");
    let _ = is_refusal(&node.fetch(unknown).await, 404, &["NAME_UNKNOWN", "UNSUPPORTED"]);
    assert_eq!(upstream.total(), 0, "an unknown registry is refused before anything is asked");
    let nothing = Object::noise(99, 10).digest;
    let absent = [
        ("BLOB_UNKNOWN", Request::blob("library/alpine", &nothing)),
        ("MANIFEST_UNKNOWN", Request::manifest("library/alpine", "none")),
    ];
    for (code, request) in absent {
        let message = is_refusal(&node.fetch(request.clone()).await, 404, &[code, "NAME_UNKNOWN"]);
        assert!(message.contains("library/alpine"), "{message}");
        let head = node.fetch(request.method("HEAD")).await;
        assert_eq!((head.status, head.body.len()), (404, 0));
    }
    node.finish().await;
}

#[tokio::test]
async fn a_private_repository_is_left_to_the_pods_own_secret() {
    for how in [Private::NoToken, Private::Unauthorized, Private::Forbidden] {
        let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
        upstream.push("acme/app", "1", &Image::oci(3, &[2000]));
        upstream.make_private("acme/app", how);
        let node = Node::with(&upstream).await;
        let reply = node.fetch(Request::manifest("acme/app", "1")).await;
        let message =
            is_refusal(&reply, 404, &["DENIED", "UNAUTHORIZED", "NAME_UNKNOWN", "MANIFEST_UNKNOWN"]);
        let status = if how == Private::Forbidden { "403" } else { "401" };
        let words = [REGISTRY, "acme/app", "is not public", status, "imagePullSecrets"];
        assert!(words.iter().all(|word| message.contains(word)), "{how:?}: {message}");
        node.finish().await;
    }
}

#[tokio::test]
async fn types_that_cannot_be_verified_are_left_to_the_registry() {
    let upstream = Upstream::start().await;
    let schema1 =
        Object::new("application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1}"#);
    upstream.push_tag("old", "1", &schema1);
    let node = Node::with(&upstream).await;
    for method in ["HEAD", "GET"] {
        assert_eq!(node.fetch(Request::manifest("old", "1").method(method)).await.status, 404, "{method}");
    }
    node.finish().await;
}

#[tokio::test]
async fn an_upstream_in_trouble_is_told_as_503() {
    for status in [500, 502, 503, 504, 429, 408] {
        let (upstream, node, image) = with_image().await;
        upstream.on(Kind::Blob).always(move |reply| _ = reply.error(status, "UNKNOWN"));
        upstream.on(Kind::Tag).always(move |reply| _ = reply.error(status, "UNKNOWN"));
        let codes: &[&str] = if status == 429 { &["TOOMANYREQUESTS"] } else { &["UNAVAILABLE", "UNKNOWN"] };
        for request in [
            Request::blob("library/alpine", &image.layers[0].digest),
            Request::manifest("library/alpine", "3.20"),
        ] {
            let message = is_refusal(&node.fetch(request).await, 503, codes);
            assert!(message.contains(REGISTRY), "{status}: {message}");
        }
        node.finish().await;
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_told_as_503() {
    let (upstream, node, image) = with_image().await;
    upstream.stop().await;
    for request in [
        Request::blob("library/alpine", &image.layers[0].digest),
        Request::manifest("library/alpine", "3.20"),
    ] {
        let message = is_refusal(&node.fetch(request).await, 503, &["UNAVAILABLE", "UNKNOWN"]);
        assert!(message.contains(REGISTRY), "{message}");
    }
    node.finish().await;
}

#[tokio::test]
async fn an_upstream_that_is_slow_to_answer_is_told_as_503() {
    use std::time::Duration;
    let upstream = Upstream::start().await;
    let image = Image::oci(4, &[5000]);
    upstream.push("a", "1", &image);
    let gate = Gate::new();
    for kind in [Kind::Blob, Kind::Tag, Kind::Manifest] {
        let gate = gate.clone();
        upstream.on(kind).always(move |reply| _ = reply.hold_head(&gate));
    }
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.head_timeout = Duration::from_millis(200);
        settings.first_byte_timeout = Duration::from_millis(300);
    });
    let node = node.start().await;
    for request in [
        Request::blob("a", &image.layers[0].digest),
        Request::manifest("a", &image.index.digest),
        Request::manifest("a", "1"),
    ] {
        let message = is_refusal(&node.fetch(request.clone()).await, 503, &["UNAVAILABLE", "UNKNOWN"]);
        assert!(message.contains("gave no answer in"), "{message}");
        assert_eq!(node.fetch(request.method("HEAD")).await.status, 503);
    }
    // What was asked goes on without a client.
    gate.open();
    node.stored(&image.layers[0].digest).await;
    assert_eq!(upstream.count(Kind::Blob, "GET"), 1);
    let reply = node.fetch(Request::blob("a", &image.layers[0].digest)).await;
    assert_eq!((reply.status, upstream.count(Kind::Blob, "GET")), (200, 1));
    node.finish().await;
}

#[tokio::test]
async fn the_canary_proves_the_key_to_whoever_asks() {
    let (upstream, node, _) = with_image().await;
    let challenge = "5a".repeat(32);
    let probe = Request::head(proof::CANARY_PATH).header(proof::CHALLENGE, &challenge);
    let reply = node.fetch(probe).await;
    assert_eq!(reply.status, 200);
    let given = reply.header(proof::PROOF).unwrap_or_default();
    assert!(proof::holds(KEY, &challenge, given), "{given}");
    for bad in ["", "zz", &"5A".repeat(32)] {
        let reply = node.fetch(Request::head(proof::CANARY_PATH).header(proof::CHALLENGE, bad)).await;
        assert_eq!(reply.header(proof::PROOF), None, "{bad}");
    }
    assert_eq!(upstream.total(), 0);
    node.finish().await;
}

#[tokio::test]
async fn every_request_is_counted_once_by_where_its_answer_came_from() {
    let (upstream, node, image) = with_image().await;
    let layer = Request::blob("library/alpine", &image.layers[1].digest);
    let _ = node.fetch(layer.clone()).await;
    node.stored(&image.layers[1].digest).await;
    let _ = node.fetch(layer.clone()).await;
    let _ = node.fetch(layer.query("ns=unknown.test")).await;
    let metrics = node.metrics();
    for (source, count) in [("upstream", 1), ("cache", 1), ("none", 1), ("follow", 0), ("stale", 0)] {
        assert_eq!(metrics.requests(source), count, "{source}\n{}", metrics.text());
    }
    let of = |name: &str| metrics.sum(name, &[("registry", REGISTRY)]);
    assert_eq!(of("larder_upstream_bytes_total"), 70_000.0);
    assert_eq!(of("larder_served_bytes_total"), 140_000.0);
    assert_eq!(of("larder_upstream_requests_total"), 1.0);
    assert_eq!(upstream.total(), 1);
    let text = metrics.text();
    assert!(
        !text.contains("alpine") && !text.contains("sha256"),
        "no repository, no digest in labels:\n{text}"
    );
    assert!(text.contains("registry=\"-\""), "what is for no configured registry counts under -:\n{text}");
    node.finish().await;
}
