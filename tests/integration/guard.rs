//! Where the mirror lets an upstream send it: redirects and token realms, with and without a credential.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use larder_tests::client::{Reply, Request};
use larder_tests::image::Object;
use larder_tests::node::{Builder, Node, REGISTRY, own_address, temp_dir};
use larder_tests::upstream::{Auth, CANARY, Cut, Flaw, Kind, Private, Upstream};
use larder_wire::settings::{Access, UpstreamSettings};
use tempfile::TempDir;

/// Another host, on loopback as the upstream is.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn foreign() -> Upstream {
    Upstream::builder().address(FOREIGN).start().await
}

fn blob() -> Object {
    Object::noise(1, 300_000)
}

/// A registry that redirects its blob, and the node in front of it.
async fn redirecting(location: &str) -> (Upstream, Node, Reply) {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    upstream.push_blob("a", &blob());
    let to = location.to_owned();
    upstream.on(Kind::Blob).always(move |reply| {
        if reply.is_good() {
            _ = reply.redirect(307, &to);
        }
    });
    let node = Node::with(&upstream).await;
    let reply = node.fetch(Request::blob("a", &blob().digest)).await;
    (upstream, node, reply)
}

fn blob_url(upstream: &Upstream) -> String {
    format!("{}/v2/cdn/blobs/{}?X-Signature={CANARY}", upstream.url(), blob().digest)
}

fn is_bad_upstream(reply: &Reply) {
    assert!(matches!(reply.status, 404 | 503), "{}: {:?}", reply.status, reply.body);
}

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_without_authorization() {
    let cdn = foreign().await;
    cdn.push_blob("cdn", &blob());
    let (upstream, node, reply) = redirecting(&blob_url(&cdn)).await;
    assert_eq!((reply.status, reply.body), (200, blob().bytes));
    assert!(
        upstream
            .requests()
            .iter()
            .any(|seen| seen.kind == Kind::Blob && seen.header("authorization").is_some())
    );
    for seen in cdn.requests() {
        assert_eq!(seen.header("authorization"), None);
    }
    assert_eq!(cdn.total(), 1);
    node.finish().await;
}

#[tokio::test]
async fn a_relative_redirect_is_followed() {
    let upstream = Upstream::start().await;
    upstream.push_blob("a", &blob());
    upstream.push_blob("b", &blob());
    let location = format!("/v2/b/blobs/{}", blob().digest);
    upstream.on(Kind::Blob).once(move |reply| _ = reply.redirect(302, &location));
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::blob("a", &blob().digest)).await.body, blob().bytes);
    node.finish().await;
}

#[tokio::test]
async fn manifests_are_redirected_too() {
    let mirror = foreign().await;
    let image = larder_tests::image::Image::oci(1, &[2000]);
    mirror.push("region", "1", &image);
    let upstream = Upstream::start().await;
    let to = format!("{}/v2/region/manifests/1", mirror.url());
    upstream.on(Kind::Tag).always(move |reply| _ = reply.redirect(307, &to));
    let to = format!("{}/v2/region/manifests/{}", mirror.url(), image.index.digest);
    upstream.on(Kind::Manifest).always(move |reply| _ = reply.redirect(307, &to));
    let node = Node::with(&upstream).await;
    let reply = node.fetch(Request::manifest("a", "1")).await;
    assert_eq!((reply.status, reply.body), (200, image.index.bytes));
    node.finish().await;
}

#[tokio::test]
async fn a_resumed_fetch_starts_at_the_registry_again() {
    let cdn = foreign().await;
    cdn.push_blob("cdn", &blob());
    cdn.on(Kind::Blob).once(|reply| _ = reply.cut(100_000, Cut::Fin));
    let (upstream, node, reply) = redirecting(&blob_url(&cdn)).await;
    assert_eq!((reply.status, reply.body), (200, blob().bytes));
    let at_registry =
        upstream.requests().iter().filter(|seen| seen.kind == Kind::Blob && seen.status == 307).count();
    assert_eq!((at_registry, cdn.total()), (2, 2), "a signed address is for one use");
    assert!(cdn.requests()[1].header("range").is_some());
    node.finish().await;
}

#[tokio::test]
async fn a_chain_of_redirects_is_followed_and_a_loop_is_not() {
    let upstream = Upstream::start().await;
    upstream.push_blob("a", &blob());
    let location = format!("/v2/a/blobs/{}", blob().digest);
    let to = location.clone();
    upstream.on(Kind::Blob).times(3, move |reply| _ = reply.redirect(307, &to));
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::blob("a", &blob().digest)).await.status, 200);
    let other = Object::noise(2, 1000);
    upstream.push_blob("a", &other);
    let to = format!("/v2/a/blobs/{}", other.digest);
    upstream.on(Kind::Blob).always(move |reply| _ = reply.redirect(307, &to));
    let asked = upstream.total();
    is_bad_upstream(&node.fetch(Request::blob("a", &other.digest)).await);
    assert!(upstream.total() - asked <= 11, "{} hops", upstream.total() - asked);
    node.finish().await;
}

#[tokio::test]
async fn redirects_that_lead_nowhere_good_are_refused() {
    for location in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://0.0.0.0:1/",
        "http://[::]:1/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "//169.254.169.254/x",
        "http://user:pw@169.254.169.254/",
        "http://",
        "http://[",
        "",
    ] {
        let (_upstream, node, reply) = redirecting(location).await;
        assert_eq!(reply.status, 503, "{location}: {:?}", reply.body);
        assert!(!reply.body.windows(11).any(|words| words == b"X-Signature"));
        node.finish().await;
    }
}

#[tokio::test]
async fn a_redirect_to_the_node_itself_is_refused() {
    let upstream = Upstream::start().await;
    upstream.push_blob("a", &blob());
    let inner = Object::noise(7, 2000);
    upstream.push_blob("inner", &inner);
    let node = Node::with(&upstream).await;
    // Of another repository, so that a request to ourselves would be seen upstream.
    let location = format!("http://{}/v2/inner/blobs/{}?ns={REGISTRY}", node.address(), inner.digest);
    upstream.on(Kind::Blob).once(move |reply| _ = reply.redirect(307, &location));
    is_bad_upstream(&node.fetch(Request::blob("a", &blob().digest)).await);
    assert!(upstream.requests().iter().all(|seen| seen.repository == "a"), "the mirror has asked itself");
    node.finish().await;
}

#[tokio::test]
async fn loopback_is_only_for_upstreams_on_loopback() {
    let Some(own) = own_address("the test of redirects from off loopback") else { return };
    let inner = Upstream::start().await;
    inner.push_blob("cdn", &blob());
    let upstream = Upstream::builder().address(own).start().await;
    upstream.push_blob("a", &blob());
    let port = inner.address().port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1"] {
        let node = Node::with(&upstream).await;
        let location = format!("http://{host}:{port}/v2/cdn/blobs/{}", blob().digest);
        upstream.on(Kind::Blob).once(move |reply| _ = reply.redirect(307, &location));
        is_bad_upstream(&node.fetch(Request::blob("a", &blob().digest)).await);
        assert_eq!(inner.connections(), 0, "{host}: not even connected");
        node.finish().await;
    }
    // The same upstream is fine where it stands, though that is a private address.
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::blob("a", &blob().digest)).await.status, 200);
    node.finish().await;
}

#[tokio::test]
async fn a_tls_upstream_does_not_lead_to_plain_http() {
    let plain = Upstream::start().await;
    plain.push_blob("cdn", &blob());
    let upstream = Upstream::builder().tls(&["127.0.0.1"], Flaw::None).start().await;
    upstream.push_blob("a", &blob());
    let location = blob_url(&plain);
    upstream.on(Kind::Blob).once(move |reply| _ = reply.redirect(307, &location));
    let trusting = |settings: &mut UpstreamSettings| settings.ca_file = Some(upstream.ca_file().to_owned());
    let node = Node::builder().upstream_as(REGISTRY, &upstream, trusting).start().await;
    is_bad_upstream(&node.fetch(Request::blob("a", &blob().digest)).await);
    assert_eq!(plain.connections(), 0);
    node.finish().await;
}

/// A shared upstream with a credential, its realm elsewhere.
struct Realm {
    upstream: Upstream,
    credential: TempDir,
}

impl Realm {
    async fn at(realm: &str) -> Self {
        let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
        upstream.push_blob("a", &blob());
        upstream.make_private("a", Private::Unauthorized);
        upstream.tokens().accept("robot", &format!("{CANARY}-password"));
        upstream.set_realm(realm);
        let credential = temp_dir();
        fs::write(credential.path().join("user"), "robot").expect("a file can be written");
        fs::write(credential.path().join("password"), format!("{CANARY}-password"))
            .expect("a file can be written");
        Self { upstream, credential }
    }

    fn node(&self, change: impl FnOnce(&mut UpstreamSettings)) -> Builder {
        Node::builder().upstream_as(REGISTRY, &self.upstream, |settings| {
            settings.access = Access::Shared;
            settings.username_file = Some(self.credential.path().join("user"));
            settings.password_file = Some(self.credential.path().join("password"));
            change(settings);
        })
    }

    async fn pull(&self, change: impl FnOnce(&mut UpstreamSettings)) -> Reply {
        let node = self.node(change).start().await;
        let reply = node.fetch(Request::blob("a", &blob().digest)).await;
        node.finish().await;
        reply
    }
}

#[tokio::test]
async fn a_credential_is_not_sent_to_a_realm_elsewhere() {
    let thief = foreign().await;
    let address = thief.address();
    for realm in [
        format!("http://{address}/token"),
        format!("http://127.0.0.1:80@{address}/token"),
        format!("http://{address}/token?x=127.0.0.1"),
        format!("http://localhost:{}/token", address.port()),
        "http://169.254.169.254/token".to_owned(),
        "file:///token".to_owned(),
        "/token".to_owned(),
        String::new(),
    ] {
        let stand = Realm::at(&realm).await;
        is_bad_upstream(&stand.pull(|_| ()).await);
        for seen in thief.requests() {
            assert_eq!(seen.header("authorization"), None, "{realm}");
        }
    }
}

#[tokio::test]
async fn a_credential_is_sent_to_hosts_that_were_named() {
    let stand = Realm::at("").await;
    let service = Upstream::builder().address(FOREIGN).tokens(stand.upstream.tokens()).start().await;
    stand.upstream.set_realm(&format!("{}/token", service.url()));
    let reply = stand.pull(|settings| settings.token_hosts = vec![FOREIGN.to_string()]).await;
    assert_eq!((reply.status, reply.body), (200, blob().bytes));
    assert_eq!(service.count(Kind::Token, "GET"), 1);
}

#[tokio::test]
async fn an_anonymous_token_may_come_from_elsewhere() {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    upstream.push_blob("a", &blob());
    let service = Upstream::builder().address(FOREIGN).tokens(upstream.tokens()).start().await;
    upstream.set_realm(&format!("{}/token", service.url()));
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(Request::blob("a", &blob().digest)).await.status, 200);
    assert_eq!(service.count(Kind::Token, "GET"), 1);
    node.finish().await;
}

#[tokio::test]
async fn a_token_service_redirects_nobody() {
    let thief = foreign().await;
    let stand = Realm::at("").await;
    stand.upstream.set_realm(&format!("{}/token", stand.upstream.url()));
    let location = format!("{}/token", thief.url());
    stand.upstream.on(Kind::Token).always(move |reply| _ = reply.redirect(307, &location));
    is_bad_upstream(&stand.pull(|_| ()).await);
    assert_eq!(thief.connections(), 0);
}

#[tokio::test]
async fn a_realm_of_a_tls_upstream_is_tls() {
    let plain = Upstream::start().await;
    let upstream = Upstream::builder().auth(Auth::Bearer).tls(&["127.0.0.1"], Flaw::None).start().await;
    upstream.push_blob("a", &blob());
    upstream.set_realm(&format!("{}/token", plain.url()));
    let trusting = |settings: &mut UpstreamSettings| settings.ca_file = Some(upstream.ca_file().to_owned());
    let node = Node::builder().upstream_as(REGISTRY, &upstream, trusting).start().await;
    is_bad_upstream(&node.fetch(Request::blob("a", &blob().digest)).await);
    assert_eq!(plain.connections(), 0, "an anonymous token is not asked for in the open either");
    node.finish().await;
}

#[tokio::test]
async fn of_two_challenges_the_token_is_taken() {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    upstream.push_blob("a", &blob());
    upstream.on(Kind::Blob).always(|reply| {
        if !reply.is_good() {
            _ = reply.extra_header("WWW-Authenticate", r#"Basic realm="also""#);
        }
    });
    let stand_in = temp_dir();
    fs::write(stand_in.path().join("user"), "robot").unwrap();
    fs::write(stand_in.path().join("password"), format!("{CANARY}-password")).unwrap();
    upstream.tokens().accept("robot", &format!("{CANARY}-password"));
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.access = Access::Shared;
        settings.username_file = Some(stand_in.path().join("user"));
        settings.password_file = Some(stand_in.path().join("password"));
    });
    let node = node.start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob().digest)).await.status, 200);
    for seen in upstream.requests().iter().filter(|seen| seen.kind == Kind::Blob) {
        let shown = seen.header("authorization").unwrap_or("Bearer ");
        assert!(
            shown.starts_with("Bearer "),
            "the password went to the registry instead of the token service"
        );
    }
    node.finish().await;
}

#[tokio::test]
async fn private_networks_are_reached_only_where_allowed() {
    let Some(own) = own_address("the test of private networks") else { return };
    let IpAddr::V4(own) = own else { return };
    if !own.is_private() {
        return;
    }
    // From a loopback upstream, whose own address is no private network.
    let inner = Upstream::builder().address(own).start().await;
    inner.push_blob("cdn", &blob());
    let upstream = Upstream::start().await;
    upstream.push_blob("a", &blob());
    let location = blob_url(&inner);
    upstream.on(Kind::Blob).always(move |reply| _ = reply.redirect(307, &location));
    let node = Node::builder().upstream_as(REGISTRY, &upstream, |settings| {
        settings.allow_cidrs = vec![format!("{own}/32").parse().expect("an address is a network of one")];
    });
    let node = node.start().await;
    assert_eq!(node.fetch(Request::blob("a", &blob().digest)).await.status, 200);
    node.finish().await;
}
