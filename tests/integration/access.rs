//! Who may read what: private repositories, shared credentials and their links, tokens and their rotation.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use futures_util::future::join_all;
use larder_tests::client::{self, End, Request};
use larder_tests::image::{Image, Object};
use larder_tests::node::{Builder, Node, REGISTRY, own_address, temp_dir};
use larder_tests::upstream::{Auth, CANARY, Kind, Private, Upstream};
use larder_tests::wait::until;
use larder_wire::settings::{Access, UpstreamSettings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Files with a user and a password, as a mounted Secret has them.
struct Credential {
    dir: TempDir,
}

impl Credential {
    fn new(password: &str) -> Self {
        let credential = Self { dir: temp_dir() };
        credential.write(password);
        credential
    }

    fn write(&self, password: &str) {
        fs::write(self.file("username"), "robot").expect("a file can be written");
        // A file made by an editor ends with a line end.
        fs::write(self.file("password"), format!("{password}\n")).expect("a file can be written");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set(&self, settings: &mut UpstreamSettings) {
        settings.username_file = Some(self.file("username"));
        settings.password_file = Some(self.file("password"));
    }

    fn share(&self, settings: &mut UpstreamSettings) {
        self.set(settings);
        settings.access = Access::Shared;
    }
}

fn password(n: u32) -> String {
    format!("{CANARY}-password-{n}")
}

/// A registry with a private `team/app` that `robot` may read.
async fn private_registry(auth: Auth, image: &Image) -> Upstream {
    let upstream = Upstream::builder().auth(auth).start().await;
    upstream.push("team/app", "1", image);
    upstream.make_private("team/app", Private::Unauthorized);
    upstream.tokens().accept("robot", &password(1));
    upstream
}

fn shared(upstream: &Upstream, credential: &Credential) -> Builder {
    Node::builder().upstream_as(REGISTRY, upstream, |settings| credential.share(settings))
}

async fn pull(node: &Node, repository: &str, image: &Image) {
    let manifests =
        [&image.index, &image.manifest].map(|manifest| Request::manifest(repository, &manifest.digest));
    let blobs = image.blobs().map(|blob| Request::blob(repository, &blob.digest));
    for request in manifests.into_iter().chain(blobs) {
        let reply = node.fetch(request).await;
        assert_eq!((reply.status, reply.end), (200, End::Whole), "{:?}", reply.body);
    }
}

#[tokio::test]
async fn twenty_requests_for_a_private_repository_cost_at_most_three_upstream() {
    for how in [Private::NoToken, Private::Unauthorized, Private::Forbidden] {
        let image = Image::oci(1, &[2000, 3000]);
        let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
        upstream.push("team/app", "1", &image);
        upstream.make_private("team/app", how);
        let node = Node::with(&upstream).await;
        for _ in 0..5 {
            for request in [
                Request::manifest("team/app", "1").method("HEAD"),
                Request::manifest("team/app", &image.index.digest),
                Request::blob("team/app", &image.layers[0].digest),
                Request::blob("team/app", &image.layers[1].digest),
            ] {
                assert_eq!(node.fetch(request).await.status, 404);
            }
        }
        assert!(upstream.total() <= 3, "{how:?}: {:?}", upstream.requests());
        assert!(!image.blobs().any(|blob| node.has_stored(&blob.digest)));
        node.finish().await;
    }
}

#[tokio::test]
async fn a_private_neighbour_does_not_close_a_public_repository() {
    let (private, public) = (Image::oci(1, &[2000]), Image::oci(2, &[2000]));
    let upstream = private_registry(Auth::Bearer, &private).await;
    upstream.push("library/app", "1", &public);
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::manifest("team/app", "1")).await.status, 404);
    pull(&node, "library/app", &public).await;
    node.finish().await;
}

#[tokio::test]
async fn a_public_upstream_never_fetches_with_its_credential_what_is_not_public() {
    let (private, public) = (Image::oci(1, &[2000]), Image::oci(2, &[2000]));
    let upstream = private_registry(Auth::Bearer, &private).await;
    upstream.push("library/app", "1", &public);
    let credential = Credential::new(&password(1));
    let node =
        Node::builder().upstream_as(REGISTRY, &upstream, |settings| credential.set(settings)).start().await;
    for request in [
        Request::manifest("team/app", "1"),
        Request::manifest("team/app", &private.index.digest),
        Request::blob("team/app", &private.layers[0].digest),
    ] {
        assert_eq!(node.fetch(request).await.status, 404);
    }
    assert!(!private.blobs().any(|blob| node.has_stored(&blob.digest)));
    pull(&node, "library/app", &public).await;
    let with_credential = upstream.requests().iter().any(|seen| {
        seen.kind == Kind::Token && seen.header("authorization").is_some() && seen.query.contains("library")
    });
    assert!(with_credential, "what is proven public is fetched with the credential, for its quota");
    node.finish().await;
}

#[tokio::test]
async fn a_shared_upstream_serves_what_its_credential_can_read() {
    for auth in [Auth::Bearer, Auth::Basic] {
        let image = Image::oci(1, &[2000, 70_000]);
        let upstream = private_registry(auth, &image).await;
        let credential = Credential::new(&password(1));
        let node = shared(&upstream, &credential).start().await;
        pull(&node, "team/app", &image).await;
        let layer = &image.layers[1].digest;
        let path = node.shared_path(REGISTRY, layer);
        until("the blob is stored", async || path.exists().then_some(())).await;
        assert!(!node.public_path(layer).exists(), "in a tree of its own");
        let asked = upstream.total();
        pull(&node, "team/app", &image).await;
        assert_eq!(upstream.total(), asked, "{auth:?}: warm");
        node.finish().await;
    }
}

#[tokio::test]
async fn a_wrong_credential_is_like_none() {
    let image = Image::oci(1, &[2000]);
    for auth in [Auth::Bearer, Auth::Basic] {
        let upstream = private_registry(auth, &image).await;
        let credential = Credential::new(&password(7));
        let node = shared(&upstream, &credential).start().await;
        let reply = node.fetch(Request::blob("team/app", &image.layers[0].digest)).await;
        assert_eq!(reply.status, 404, "{auth:?}");
        node.finish().await;
    }
}

#[tokio::test]
async fn a_shared_blob_is_read_through_its_own_repository_alone() {
    let image = Image::oci(1, &[2000]);
    let upstream = private_registry(Auth::Bearer, &image).await;
    upstream.push("team/other", "1", &Image::oci(2, &[2000]));
    let credential = Credential::new(&password(1));
    let node = shared(&upstream, &credential).start().await;
    pull(&node, "team/app", &image).await;
    let layer = &image.layers[0];
    // The repository exists and can be read, but the blob is not in it.
    for request in [
        Request::blob("team/other", &layer.digest),
        Request::blob("team/other", &layer.digest).method("HEAD"),
        Request::manifest("team/other", &image.manifest.digest),
    ] {
        assert_eq!(node.fetch(request).await.status, 404);
    }
    // Upstream's word in that repository's scope is the link.
    upstream.push_blob("team/third", layer);
    let asked = upstream.total();
    assert_eq!(node.fetch(Request::blob("team/third", &layer.digest)).await.body, layer.bytes);
    let after = upstream.total();
    assert!(after > asked, "asked upstream first");
    assert_eq!(node.fetch(Request::blob("team/third", &layer.digest)).await.body, layer.bytes);
    assert_eq!(upstream.total(), after, "and then no more");
    node.finish().await;
}

#[tokio::test]
async fn without_its_index_nobody_reads_by_digest_alone() {
    let image = Image::oci(1, &[2000]);
    let upstream = private_registry(Auth::Bearer, &image).await;
    let credential = Credential::new(&password(1));
    let node = shared(&upstream, &credential).start().await;
    pull(&node, "team/app", &image).await;
    let layer = &image.layers[0];
    let path = node.shared_path(REGISTRY, &layer.digest);
    until("the blob is stored", async || path.exists().then_some(())).await;
    let stopped = node.stop().await;
    for entry in fs::read_dir(stopped.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("index-") {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let node = stopped.start().await;
    assert_eq!(
        node.fetch(Request::blob("team/other", &layer.digest)).await.status,
        404,
        "not by digest alone"
    );
    assert_eq!(node.fetch(Request::blob("team/app", &layer.digest)).await.body, layer.bytes);
    node.finish().await;
}

#[tokio::test]
async fn leaving_shared_deletes_what_was_shared() {
    let image = Image::oci(1, &[2000]);
    let upstream = private_registry(Auth::Bearer, &image).await;
    let credential = Credential::new(&password(1));
    let mut node = shared(&upstream, &credential).start().await;
    pull(&node, "team/app", &image).await;
    let path = node.shared_path(REGISTRY, &image.layers[0].digest);
    until("the blob is stored", async || path.exists().then_some(())).await;
    node.apply(|settings| settings.upstreams[0].access = Access::Public);
    until("the shared tree is gone", async || (!path.exists()).then_some(())).await;
    assert_eq!(node.fetch(Request::blob("team/app", &image.layers[0].digest)).await.status, 404);
    node.finish().await;
}

#[tokio::test]
async fn two_registries_on_one_host_share_neither_token_nor_bytes() {
    let image = Image::oci(1, &[2000]);
    let upstream = private_registry(Auth::Bearer, &image).await;
    let credential = Credential::new(&password(1));
    let node = shared(&upstream, &credential).upstream_as("public.test", &upstream, |_| ()).start().await;
    pull(&node, "team/app", &image).await;
    for request in [
        Request::manifest("team/app", &image.index.digest),
        Request::blob("team/app", &image.layers[0].digest),
    ] {
        assert_eq!(node.fetch(request.query("ns=public.test")).await.status, 404);
    }
    node.finish().await;
}

#[tokio::test]
async fn a_token_that_ends_is_fetched_once_for_all() {
    let image = Image::oci(1, &[2000; 32]);
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    upstream.push("a", "1", &image);
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::manifest("a", "1")).await.status, 200);
    assert_eq!(upstream.count(Kind::Token, "GET"), 1);
    upstream.tokens().revoke();
    let pulls = image.layers.iter().map(|layer| node.fetch(Request::blob("a", &layer.digest)));
    for reply in join_all(pulls).await {
        assert_eq!((reply.status, reply.end), (200, End::Whole));
    }
    assert_eq!(upstream.count(Kind::Token, "GET"), 2, "one refresh");
    node.finish().await;
}

#[tokio::test]
async fn tokens_are_kept_by_scope() {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    let images: Vec<Image> = (0..3).map(|seed| Image::oci(seed, &[2000])).collect();
    let node = Node::with(&upstream).await;
    for (n, image) in images.iter().enumerate() {
        let repository = format!("team/app-{n}");
        upstream.push(&repository, "1", image);
        pull(&node, &repository, image).await;
        assert_eq!(upstream.count(Kind::Token, "GET"), n + 1);
    }
    for seen in upstream.requests().iter().filter(|seen| seen.kind == Kind::Token) {
        assert!(seen.query.contains("service=test"), "{}", seen.query);
    }
    node.finish().await;
}

#[tokio::test]
async fn a_rotated_credential_is_read_again_without_an_error() {
    for auth in [Auth::Bearer, Auth::Basic] {
        let image = Image::oci(1, &[2000; 12]);
        let upstream = private_registry(auth, &image).await;
        let credential = Credential::new(&password(1));
        let node = shared(&upstream, &credential).start().await;
        assert_eq!(node.fetch(Request::blob("team/app", &image.layers[0].digest)).await.status, 200);
        upstream.tokens().forget_credentials();
        upstream.tokens().accept("robot", &password(2));
        credential.write(&password(2));
        let pulls = image.layers.iter().map(|layer| node.fetch(Request::blob("team/app", &layer.digest)));
        for reply in join_all(pulls).await {
            assert_eq!((reply.status, reply.end), (200, End::Whole), "{auth:?}");
        }
        node.finish().await;
    }
}

#[tokio::test]
async fn what_a_client_shows_of_itself_stays_here() {
    let upstream = Upstream::start().await;
    let blob = Object::noise(1, 2000);
    upstream.push_blob("a", &blob);
    let node = Node::with(&upstream).await;
    let mut request = Request::blob("a", &blob.digest);
    for (name, value) in [
        ("Authorization", format!("Bearer {CANARY}-client")),
        ("Cookie", format!("{CANARY}-cookie")),
        ("X-Forwarded-For", "192.0.2.1".to_owned()),
        ("X-Meta-Source-Client", "azure/aks".to_owned()),
        ("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5".to_owned()),
        ("Proxy-Authorization", format!("Basic {CANARY}")),
    ] {
        request = request.header(name, &value);
    }
    assert_eq!(node.fetch(request).await.status, 200);
    let known = ["host", "user-agent", "accept", "accept-encoding", "range", "if-range", "connection"];
    for seen in upstream.requests() {
        for (name, value) in &seen.headers {
            assert!(known.contains(&name.as_str()), "{name}: {value}");
        }
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert!(!seen.query.contains("ns="), "{}", seen.query);
    }
    node.finish().await;
}

#[tokio::test]
async fn peers_off_loopback_get_no_reply() {
    let Some(own) = own_address("the test of peers off loopback") else { return };
    let upstream = Upstream::start().await;
    let node = Node::builder().upstream(&upstream).listen_on(IpAddr::from([0, 0, 0, 0])).start().await;
    let port = node.address().port();
    assert_eq!(client::fetch(([127, 0, 0, 1], port).into(), Request::get("/v2/")).await.status, 200);
    let mut stream = client::connect((own, port).into()).await;
    // The connection may be gone before we have written.
    let _ = stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut reply = Vec::new();
    let _ = larder_tests::wait::within("the connection is dropped", stream.read_to_end(&mut reply)).await;
    assert!(reply.is_empty(), "{reply:?}");
    node.finish().await;
}
