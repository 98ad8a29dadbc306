//! Lists are passed through: never kept, their links kept on our side.

use larder_tests::client::Request;
use larder_tests::image::{Image, OCI_INDEX};
use larder_tests::node::{Node, REGISTRY};
use larder_tests::upstream::{Auth, Kind, Private, Upstream};

async fn with_tags() -> (Upstream, Node, Image) {
    let upstream = Upstream::start().await;
    let image = Image::oci(1, &[2000]);
    for tag in ["1", "2", "3"] {
        upstream.push("team/app", tag, &image);
    }
    let node = Node::with(&upstream).await;
    (upstream, node, image)
}

fn tags(query: &str) -> Request {
    let query = if query.is_empty() { format!("ns={REGISTRY}") } else { format!("{query}&ns={REGISTRY}") };
    Request::get(&format!("/v2/team/app/tags/list?{query}"))
}

#[tokio::test]
async fn tags_are_listed_as_upstream_lists_them_each_time() {
    let (upstream, node, _) = with_tags().await;
    for asked in 1..=2 {
        let reply = node.fetch(tags("")).await;
        assert_eq!(
            (reply.status, &reply.body[..]),
            (200, &br#"{"name":"team/app","tags":["1","2","3"]}"#[..])
        );
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(upstream.count(Kind::Tags, "GET"), asked);
    }
    assert_eq!(node.fetch(tags("").method("HEAD")).await.body.len(), 0);
    node.finish().await;
}

#[tokio::test]
async fn pages_are_walked_on_our_side() {
    let (upstream, node, _) = with_tags().await;
    let mut next = Some(tags("n=1"));
    let mut pages = Vec::new();
    while let Some(request) = next.take() {
        let reply = node.fetch(request).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        pages.push(String::from_utf8_lossy(&reply.body).into_owned());
        if let Some(link) = reply.header("link") {
            let target = link.strip_prefix('<').and_then(|link| link.split('>').next()).unwrap_or_default();
            assert!(target.starts_with("/v2/team/app/tags/list?") && target.contains("ns="), "{link}");
            assert!(link.contains("rel=\"next\""), "{link}");
            assert!(pages.len() < 5, "{link}");
            next = Some(Request::get(target));
        }
    }
    let all: Vec<String> = (1..=3).map(|n| format!(r#"{{"name":"team/app","tags":["{n}"]}}"#)).collect();
    assert_eq!(pages, all);
    assert!(upstream.requests().iter().all(|seen| !seen.query.contains("ns=")));
    node.finish().await;
}

#[tokio::test]
async fn a_path_before_upstreams_api_does_not_show_in_links() {
    let upstream = Upstream::builder().prefix("/v2/proxy-project").start().await;
    for tag in ["1", "2"] {
        upstream.push("team/app", tag, &Image::oci(1, &[2000]));
    }
    let node = Node::with(&upstream).await;
    let reply = node.fetch(tags("n=1")).await;
    let link = reply.header("link").unwrap_or_default();
    assert!(link.starts_with("</v2/team/app/tags/list?"), "{link}");
    node.finish().await;
}

#[tokio::test]
async fn links_to_elsewhere_are_not_passed_on() {
    let (upstream, node, _) = with_tags().await;
    for foreign in [
        "<http://evil.test/v2/team/app/tags/list?n=1&last=1>; rel=\"next\"",
        "<//evil.test/v2/team/app/tags/list?last=1>; rel=\"next\"",
        "</v2/other/app/tags/list?last=1>; rel=\"next\"",
        "</../../x>; rel=\"next\"",
        "<>; rel=\"next\"",
        "garbage",
    ] {
        upstream.on(Kind::Tags).once(move |reply| _ = reply.header("Link", foreign));
        let reply = node.fetch(tags("")).await;
        let link = reply.header("link").unwrap_or_default();
        assert!(!link.contains("evil.test") && !link.contains("other/app") && !link.contains(".."), "{link}");
        assert_eq!(reply.status, 200);
    }
    node.finish().await;
}

#[tokio::test]
async fn absurd_pages_harm_nobody() {
    let (_upstream, node, _) = with_tags().await;
    for query in ["n=9223372036854775807", "n=-1", "n=x", "last=%00", "n=1&n=2", "last=..%2f..", "n="] {
        let status = node.fetch(tags(query)).await.status;
        assert!(matches!(status, 200 | 400 | 404), "{query}: {status}");
    }
    node.finish().await;
}

#[tokio::test]
async fn referrers_are_passed_through() {
    let (upstream, node, image) = with_tags().await;
    upstream.on(Kind::Referrers).always(|reply| _ = reply.header("OCI-Filters-Applied", "artifactType"));
    let path = format!("/v2/team/app/referrers/{}?artifactType=a%2Fb&ns={REGISTRY}", image.index.digest);
    let reply = node.fetch(Request::get(&path)).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(OCI_INDEX)));
    assert_eq!(reply.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(upstream.requests()[0].query, "artifactType=a%2Fb");
    upstream.on(Kind::Referrers).always(|reply| _ = reply.error(404, "UNSUPPORTED"));
    assert_eq!(node.fetch(Request::get(&path)).await.status, 404, "so that clients go to the tag");
    node.finish().await;
}

#[tokio::test]
async fn lists_of_private_repositories_and_of_an_upstream_in_trouble() {
    let upstream = Upstream::builder().auth(Auth::Bearer).start().await;
    upstream.push("team/app", "1", &Image::oci(1, &[2000]));
    upstream.make_private("team/app", Private::Unauthorized);
    let node = Node::with(&upstream).await;
    assert_eq!(node.fetch(tags("")).await.status, 404);
    node.finish().await;
    let (upstream, node, _) = with_tags().await;
    upstream.on(Kind::Tags).always(|reply| _ = reply.error(500, "UNKNOWN"));
    assert_eq!(node.fetch(tags("")).await.status, 503);
    node.finish().await;
}

#[tokio::test]
async fn the_catalog_is_not_for_reading() {
    let (upstream, node, _) = with_tags().await;
    for query in ["", "?ns=registry.test", "?n=9223372036854775807&ns=registry.test"] {
        let reply = node.fetch(Request::get(&format!("/v2/_catalog{query}"))).await;
        assert_eq!((reply.status, reply.oci_error().0.as_str()), (404, "UNSUPPORTED"), "{query}");
    }
    assert_eq!(upstream.total(), 0);
    node.finish().await;
}
