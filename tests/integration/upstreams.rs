//! Which upstream is asked, how it is reached, and how trouble with it is kept from becoming more.

use std::time::Duration;

use futures_util::future::join_all;
use larder_tests::client::{End, Request};
use larder_tests::image::{Image, OCI_MANIFEST, Object};
use larder_tests::node::{Node, REGISTRY, temp_dir, url};
use larder_tests::upstream::{Auth, CANARY, Flaw, Gate, Kind, Upstream};
use larder_tests::wait::until;
use larder_wire::settings::{Proxy, UpstreamSettings};

/// What must not reach a resolver, let alone a socket.
const NO_REGISTRIES: [&str; 44] = [
    "",
    "unknown.test",
    "Registry.test",
    "registry.test.",
    "registry.test:443",
    "registry.test:",
    "registry.test/",
    "registry.test/a",
    "http://registry.test",
    "docker.io@evil.test",
    "evil@registry.test",
    "registry.test%23",
    "registry.test%00",
    "registry.test%0d%0a",
    "registry%252Etest",
    "%",
    "%zz",
    "127.0.0.1",
    "127.0.0.1:80",
    "localhost",
    "2130706433",
    "0x7f.1",
    "127.1",
    "0177.0.0.1",
    "[::1]",
    "[::1]:80",
    "[::ffff:127.0.0.1]",
    "169.254.169.254",
    "169.254.169.254:80",
    "metadata.google.internal",
    "xn--rgistry-bya.test",
    "r%C3%A9gistry.test",
    "registry.test%20",
    "+registry.test",
    "..",
    "../..",
    "*",
    "registry.test,other.test",
    "registry.test;x",
    "registry.test?x",
    "registry.test%26ns=x",
    "registry.test\\",
    "registry..test",
    "-registry.test",
];

async fn with_blob() -> (Upstream, Object) {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, 3000);
    upstream.push_blob("a", &blob);
    (upstream, blob)
}

#[tokio::test]
async fn the_namespace_says_which_registry() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let (one, two) = (Image::oci(1, &[2000]), Image::oci(2, &[2000]));
    first.push("a", "1", &one);
    second.push("a", "1", &two);
    // Docker Hub's official images, for clients that do not spell them out.
    second.push("library/a", "1", &two);
    let node = Node::builder()
        .upstream_as("one.test", &first, |_| ())
        .upstream_as("two.test:5000", &second, |_| ())
        .upstream_as("docker.io", &second, |_| ());
    let node = node.start().await;
    for (query, image) in [
        ("ns=one.test", &one),
        ("ns=two.test:5000", &two),
        ("ns=two.test%3A5000", &two),
        ("ns=two.test%3a5000", &two),
        ("ns=one%2Etest", &one),
        ("other=1&ns=one.test&n=5", &one),
        ("ns=docker.io", &two),
    ] {
        let reply = node.fetch(Request::manifest("a", "1").query(query)).await;
        assert_eq!((reply.status, reply.body), (200, image.index.bytes.clone()), "{query}");
    }
    node.finish().await;
}

#[tokio::test]
async fn a_namespace_that_is_no_configured_registry_asks_nobody() {
    let (upstream, blob) = with_blob().await;
    let node = Node::with(&upstream).await;
    for ns in NO_REGISTRIES {
        let reply = node.fetch(Request::blob("a", &blob.digest).query(&format!("ns={ns}"))).await;
        assert_eq!(reply.status, 404, "{ns}");
        let _ = reply.oci_error();
    }
    let own = format!("ns={}", upstream.address());
    assert_eq!(node.fetch(Request::blob("a", &blob.digest).query(&own)).await.status, 404);
    for repeated in
        ["ns=registry.test&ns=registry.test", "ns=registry.test&x=1&ns=other.test", "ns&ns=registry.test"]
    {
        let reply = node.fetch(Request::blob("a", &blob.digest).query(repeated)).await;
        assert_eq!(reply.status, 400, "{repeated}");
        let _ = reply.oci_error();
    }
    assert_eq!(upstream.connections(), 0);
    node.finish().await;
}

#[tokio::test]
async fn clients_that_send_no_namespace_get_the_default_upstream() {
    let (upstream, blob) = with_blob().await;
    let node = Node::with(&upstream).await;
    let request = Request::blob("a", &blob.digest).query("");
    assert_eq!(node.fetch(request.clone()).await.status, 404, "there is none");
    node.finish().await;
    let node =
        Node::builder().upstream_as(REGISTRY, &upstream, |settings| settings.default = true).start().await;
    assert_eq!(node.fetch(request.clone()).await.body, blob.bytes);
    assert_eq!(node.fetch(request.query("ns=unknown.test")).await.status, 404);
    node.finish().await;
}

#[tokio::test]
async fn a_url_with_a_path_is_the_root_of_the_api() {
    let image = Image::oci(1, &[2000]);
    for auth in [Auth::Open, Auth::Bearer] {
        let upstream = Upstream::builder().auth(auth).prefix("/v2/proxy-project").start().await;
        upstream.push("library/alpine", "1", &image);
        let node = Node::with(&upstream).await;
        for request in [
            Request::manifest("library/alpine", "1"),
            Request::manifest("library/alpine", &image.manifest.digest),
            Request::blob("library/alpine", &image.layers[0].digest),
        ] {
            assert_eq!(node.fetch(request).await.status, 200);
        }
        let content = upstream.requests().into_iter().filter(|seen| seen.kind != Kind::Token);
        for seen in content.filter(|seen| seen.kind != Kind::Base) {
            assert!(seen.path.starts_with("/v2/proxy-project/library/alpine/"), "{}", seen.path);
        }
        node.finish().await;
    }
}

#[tokio::test]
async fn too_many_requests_are_answered_here_until_upstream_takes_more() {
    for retry_after in [Some("60"), None] {
        let (upstream, blob) = with_blob().await;
        let (cached, third) = (Object::noise(2, 2000), Object::noise(3, 2000));
        upstream.push_blob("a", &cached);
        upstream.push_blob("a", &third);
        let node = Node::with(&upstream).await;
        assert!(node.fetch(Request::blob("a", &cached.digest)).await.is_whole());
        upstream.on(Kind::Blob).once(move |reply| {
            reply.error(429, "TOOMANYREQUESTS");
            if let Some(seconds) = retry_after {
                reply.header("Retry-After", seconds);
            }
        });
        let asked = upstream.total();
        for request in [&blob, &blob, &third].map(|blob| Request::blob("a", &blob.digest)) {
            let reply = node.fetch(request).await;
            assert_eq!((reply.status, reply.oci_error().0.as_str()), (503, "TOOMANYREQUESTS"));
        }
        assert_eq!(
            node.fetch(Request::manifest("a", "1")).await.status,
            503,
            "the whole registry is left alone"
        );
        assert_eq!(upstream.total(), asked + 1, "{retry_after:?}");
        assert_eq!(
            node.fetch(Request::blob("a", &cached.digest)).await.status,
            200,
            "what is here is served"
        );
        node.finish().await;
    }
}

#[tokio::test]
async fn a_short_retry_after_is_kept_and_then_over() {
    let (upstream, blob) = with_blob().await;
    upstream.on(Kind::Blob).once(|reply| _ = reply.error(429, "TOOMANYREQUESTS").header("Retry-After", "1"));
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 503);
    until("upstream is asked again", async || {
        (node.fetch(Request::blob("a", &blob.digest)).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(upstream.count(Kind::Blob, "GET"), 2);
    node.finish().await;
}

#[tokio::test]
async fn five_failures_open_the_breaker_and_our_own_ping_closes_it() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..12).map(|seed| Object::noise(seed, 2000)).collect();
    for blob in &blobs {
        upstream.push_blob("a", blob);
    }
    let image = Image::oci(1, &[2000]);
    upstream.push("a", "1", &image);
    upstream.on(Kind::Blob).always(|reply| _ = reply.error(500, "UNKNOWN"));
    upstream.on(Kind::Base).always(|reply| _ = reply.error(500, "UNKNOWN"));
    let node = Node::with(&upstream).await;
    for blob in &blobs {
        assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 503);
    }
    assert_eq!(upstream.count(Kind::Blob, "GET"), 5, "five failures, then none is tried");
    assert_eq!(
        node.fetch(Request::manifest("a", "1")).await.status,
        200,
        "manifests have a breaker of their own"
    );
    assert_eq!(node.metrics().sum("larder_upstream_up", &[("registry", REGISTRY)]), 0.0);
    upstream.clear_rules();
    until("the breaker closes", async || {
        (node.fetch(Request::blob("a", &blobs[0].digest)).await.status == 200).then_some(())
    })
    .await;
    assert!(upstream.count(Kind::Base, "GET") >= 1, "a ping of our own found out");
    assert_eq!(upstream.count(Kind::Blob, "GET"), 6, "no pull was spent on finding out");
    assert_eq!(node.metrics().sum("larder_upstream_up", &[("registry", REGISTRY)]), 1.0);
    node.finish().await;
}

#[tokio::test]
async fn refusals_of_single_things_open_no_breaker() {
    let (upstream, blob) = with_blob().await;
    let node = Node::with(&upstream).await;
    for seed in 100..110 {
        assert_eq!(node.fetch(Request::blob("a", &Object::noise(seed, 10).digest)).await.status, 404);
    }
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 200);
    node.finish().await;
}

#[tokio::test]
async fn an_upstream_that_is_gone_does_not_touch_another() {
    let (gone, blob) = with_blob().await;
    let (there, _) = with_blob().await;
    gone.stop().await;
    let node = Node::builder()
        .upstream_as("gone.test", &gone, |_| ())
        .upstream_as("there.test", &there, |_| ())
        .start()
        .await;
    for _ in 0..8 {
        assert_eq!(node.fetch(Request::blob("a", &blob.digest).query("ns=gone.test")).await.status, 503);
    }
    assert_eq!(node.fetch(Request::blob("a", &blob.digest).query("ns=there.test")).await.status, 200);
    node.finish().await;
}

#[tokio::test]
async fn a_start_needs_no_upstream() {
    let (upstream, blob) = with_blob().await;
    upstream.stop().await;
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::get("/v2/")).await.status, 200);
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 503);
    upstream.resume().await;
    until("the upstream is used", async || {
        (node.fetch(Request::blob("a", &blob.digest)).await.status == 200).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn no_more_fetches_at_once_than_were_said() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..6).map(|seed| Object::noise(seed, 2000)).collect();
    let gate = Gate::new();
    for blob in &blobs {
        upstream.push_blob("a", blob);
    }
    let node = Node::builder()
        .upstream_as(REGISTRY, &upstream, |settings| settings.max_concurrent = 2)
        .start()
        .await;
    // What is asked of a repository first goes alone.
    let first = Object::noise(100, 2000);
    upstream.push_blob("a", &first);
    assert_eq!(node.fetch(Request::blob("a", &first.digest)).await.status, 200);
    let held = gate.clone();
    upstream.on(Kind::Blob).always(move |reply| _ = reply.hold_head(&held));
    let pulls = join_all(blobs.iter().map(|blob| node.fetch(Request::blob("a", &blob.digest))));
    let watch = async {
        gate.arrived(2).await;
        node.has_read_requests(6).await;
        assert_eq!(upstream.count(Kind::Blob, "GET"), 1 + 2);
        gate.open();
    };
    let (replies, ()) = tokio::join!(pulls, watch);
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.end == End::Whole));
    node.finish().await;
}

#[tokio::test]
async fn the_wait_for_a_place_counts_too() {
    let upstream = Upstream::start().await;
    let blobs: Vec<Object> = (0..2).map(|seed| Object::noise(seed, 2000)).collect();
    for blob in &blobs {
        upstream.push_blob("a", blob);
    }
    let gate = Gate::new();
    let held = gate.clone();
    upstream.on(Kind::Blob).always(move |reply| _ = reply.hold_at(1, &held));
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.max_concurrent = 1;
        settings.first_byte_timeout = Duration::from_millis(300);
    });
    let node = node.start().await;
    let first = node.open(Request::blob("a", &blobs[0].digest)).await;
    gate.arrived(1).await;
    assert_eq!(node.fetch(Request::blob("a", &blobs[1].digest)).await.status, 503);
    gate.open();
    assert!(first.read_all().await.is_whole());
    node.finish().await;
}

#[tokio::test]
async fn tls_is_spoken_with_the_authority_that_was_named() {
    let upstream = Upstream::builder().tls(&["127.0.0.1", "localhost"], Flaw::None).start().await;
    let blob = Object::noise(1, 2 << 20);
    upstream.push_blob("a", &blob);
    let trusting = |settings: &mut UpstreamSettings| settings.ca_file = Some(upstream.ca_file().to_owned());
    let node = Node::builder().upstream_as(REGISTRY, &upstream, trusting).start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.body, blob.bytes);
    node.finish().await;
    let for_all = Node::builder().upstream(&upstream).settings(|settings| {
        settings.ca_file = Some(upstream.ca_file().to_owned());
    });
    let node = for_all.start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 200);
    node.finish().await;
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 503, "the system does not know it");
    node.finish().await;
}

#[tokio::test]
async fn a_bad_certificate_is_refused() {
    for flaw in [Flaw::Expired, Flaw::WrongName, Flaw::UnknownAuthority] {
        let upstream = Upstream::builder().tls(&["127.0.0.1"], flaw).start().await;
        let blob = Object::noise(1, 2000);
        upstream.push_blob("a", &blob);
        let trusting =
            |settings: &mut UpstreamSettings| settings.ca_file = Some(upstream.ca_file().to_owned());
        let node = Node::builder().upstream_as(REGISTRY, &upstream, trusting).start().await;
        let reply = node.fetch(Request::blob("a", &blob.digest)).await;
        assert_eq!(reply.status, 503, "{flaw:?}");
        assert!(reply.oci_error().1.contains(REGISTRY), "{flaw:?}");
        assert_eq!(upstream.total(), 0, "{flaw:?}: nothing was asked");
        let errors = [("registry", REGISTRY), ("status", "error")];
        assert!(node.metrics().sum("larder_upstream_requests_total", &errors) >= 1.0, "{flaw:?}");
        node.finish().await;
    }
}

#[tokio::test]
async fn a_proxy_is_used_where_one_is_set() {
    let (upstream, blob) = with_blob().await;
    let proxy = Proxy {
        host: upstream.address().ip().to_string(),
        port: upstream.address().port(),
        userinfo: Some(format!("proxy-user:{CANARY}-proxy")),
    };
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.url = url("http://registry.invalid");
        settings.proxy = Some(proxy);
    });
    let node = node.start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.body, blob.bytes);
    let through = upstream.requests();
    assert!(through.iter().any(|seen| seen.absolute || seen.kind == Kind::Connect), "{through:?}");
    assert!(through[0].header("proxy-authorization").is_some_and(|value| value.starts_with("Basic ")));
    node.finish().await;
}

#[tokio::test]
async fn tls_goes_through_a_proxy_by_connect() {
    let builder = Upstream::builder().tls(&["registry.invalid"], Flaw::None).tls_after_connect();
    let upstream = builder.start().await;
    let blob = Object::noise(1, 1 << 20);
    upstream.push_blob("a", &blob);
    let address = upstream.address();
    let proxy =
        Proxy { host: address.ip().to_string(), port: address.port(), userinfo: Some(format!("u:{CANARY}")) };
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.url = url("https://registry.invalid");
        settings.ca_file = Some(upstream.ca_file().to_owned());
        settings.proxy = Some(proxy);
    });
    let node = node.start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.body, blob.bytes);
    for seen in upstream.requests() {
        let told = seen.header("proxy-authorization").is_some();
        assert_eq!(told, seen.kind == Kind::Connect, "the proxy's password is for the proxy: {seen:?}");
        if seen.kind == Kind::Connect {
            assert_eq!(seen.reference, "registry.invalid:443");
        }
    }
    node.finish().await;
}

#[tokio::test]
async fn a_registry_that_refuses_head_is_served_all_the_same() {
    for status in [401, 403, 405, 404] {
        let (upstream, blob) = with_blob().await;
        upstream.on(Kind::Blob).method("HEAD").always(move |reply| _ = reply.error(status, "UNSUPPORTED"));
        let node = Node::with(&upstream).await;
        assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.body, blob.bytes, "{status}");
        let head = node.fetch(Request::blob("a", &blob.digest).method("HEAD")).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("3000")));
        node.finish().await;
    }
}

#[tokio::test]
async fn what_is_left_of_a_rate_limit_is_a_metric() {
    let (upstream, blob) = with_blob().await;
    upstream.on(Kind::Blob).always(|reply| _ = reply.header("ratelimit-remaining", "57;w=21600"));
    let node = Node::with(&upstream).await;
    let _ = node.fetch(Request::blob("a", &blob.digest)).await;
    assert_eq!(node.metrics().sum("larder_ratelimit_remaining", &[("registry", REGISTRY)]), 57.0);
    let report = node.mirror().snapshot().registries;
    assert_eq!(report.iter().find(|r| r.registry == REGISTRY).and_then(|r| r.ratelimit_remaining), Some(57));
    node.finish().await;
}

#[tokio::test]
async fn manifests_over_the_limit_pass_through_unkept() {
    let upstream = Upstream::start().await;
    let padding = "x".repeat(5 << 20);
    let text =
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","annotations":{{"a":"{padding}"}}}}"#);
    let manifest = Object::new(OCI_MANIFEST, text);
    upstream.push_tag("a", "big", &manifest);
    let node = Node::with(&upstream).await;
    for n in 1..=2 {
        let reply = node.fetch(Request::manifest("a", &manifest.digest)).await;
        assert_eq!((reply.status, reply.end, reply.body.len()), (200, End::Whole, manifest.bytes.len()));
        assert_eq!(reply.header("content-type"), Some(OCI_MANIFEST));
        // Once to see how large it is, once to pass it on.
        assert!(upstream.served(Kind::Manifest) <= 2 * n);
    }
    assert!(!node.has_stored(&manifest.digest));
    node.finish().await;
}

#[tokio::test]
async fn a_manifest_that_is_two_things_at_once_is_served_only_as_what_it_says() {
    let upstream = Upstream::start().await;
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","layers":[],"manifests":[]}}"#);
    let confusing = Object::new(OCI_MANIFEST, text);
    upstream.push_tag("a", "1", &confusing);
    let node = Node::with(&upstream).await;
    let reply = node.fetch(Request::manifest("a", &confusing.digest)).await;
    match reply.status {
        200 => assert_eq!(reply.header("content-type"), Some(OCI_MANIFEST)),
        status => assert!(matches!(status, 404 | 503), "{status}"),
    }
    // The type is the body's, whatever the header says the second time.
    let image = Image::oci(1, &[2000]);
    upstream.push("b", "1", &image);
    upstream.on(Kind::Manifest).reference(&image.manifest.digest).once(|reply| {
        _ = reply.header("Content-Type", "application/vnd.oci.image.index.v1+json");
    });
    let reply = node.fetch(Request::manifest("b", &image.manifest.digest)).await;
    if reply.status == 200 {
        assert_eq!(reply.header("content-type"), Some(OCI_MANIFEST));
    }
    node.finish().await;
}

#[tokio::test]
async fn settings_are_taken_over_while_running() {
    let (upstream, blob) = with_blob().await;
    let mut node = Node::builder().start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 404);
    let mut settings = UpstreamSettings::new(REGISTRY.parse().expect("a good name"));
    settings.url = url(&upstream.url());
    node.apply(|all| all.upstreams.push(settings));
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 200);
    node.apply(|all| all.upstreams.clear());
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 404, "not even what is stored");
    node.finish().await;
}

#[tokio::test]
async fn a_missing_authority_file_harms_only_its_upstream() {
    let (upstream, blob) = with_blob().await;
    let dir = temp_dir();
    let broken = Node::builder()
        .upstream_as("broken.test", &upstream, |settings| {
            settings.url = url("https://127.0.0.1:1");
            settings.ca_file = Some(dir.path().join("none.pem"));
        })
        .upstream(&upstream);
    let node = broken.start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob.digest)).await.status, 200);
    let other = Object::noise(2, 2000);
    upstream.push_blob("a", &other);
    let status = node.fetch(Request::blob("a", &other.digest).query("ns=broken.test")).await.status;
    assert!(matches!(status, 404 | 503), "{status}");
    node.finish().await;
}
