//! Method by route by tag or digest: what passes, what is refused here and never seen by the registry, and what a tag's
//! count makes of it.

use larder_tests::gateway::{Gateway, Site};
use larder_tests::image::{Image, sha256};
use larder_tests::wait::until;
use serde_json::json;

use crate::registry::{Registry, programs};
use crate::web::Web;

const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"];

/// The methods that pass on a route; all others are 405 by the gateway.
fn routes() -> Vec<(String, &'static [&'static str])> {
    let digest = sha256(b"unknown");
    vec![
        ("/v2/".to_owned(), &["GET", "HEAD"]),
        ("/v2/_catalog".to_owned(), &["GET", "HEAD"]),
        ("/v2/team-a/app/tags/list".to_owned(), &["GET", "HEAD"]),
        (format!("/v2/team-a/app/referrers/{digest}"), &["GET", "HEAD"]),
        ("/v2/team-a/app/manifests/unknown".to_owned(), &["GET", "HEAD", "DELETE"]),
        (format!("/v2/team-a/app/manifests/{digest}"), &["GET", "HEAD", "DELETE"]),
        (format!("/v2/team-a/app/blobs/{digest}"), &["GET", "HEAD", "DELETE"]),
        ("/v2/team-a/app/blobs/uploads/".to_owned(), &["POST"]),
        ("/v2/team-a/app/blobs/uploads/some-session".to_owned(), &["GET", "HEAD", "PUT", "PATCH", "DELETE"]),
    ]
}

#[tokio::test]
async fn only_what_the_specification_knows_reaches_the_registry() {
    for program in programs() {
        let mut registry = Registry::start(&program).await;
        let web = Web::new();
        let mut site = Site::new(&registry.host, &json!({"limits": {"image_bytes": 1 << 20}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        for (path, passing) in routes() {
            for method in METHODS {
                let is_manifest_put = method == "PUT" && path.contains("/manifests/");
                registry.asked(&web).await;
                let answer = web.send(&host, method, &path, &[], "").await;
                if passing.contains(&method) {
                    registry.until_asked(method, &path).await;
                    continue;
                }
                let asked = registry.asked(&web).await;
                assert!(asked.is_empty(), "{method} {path}: {asked:?}");
                let expected = if is_manifest_put { (400, "MANIFEST_INVALID") } else { (405, "UNSUPPORTED") };
                // A HEAD has no words.
                let (status, code, _) = answer.error();
                let code = if method == "HEAD" { expected.1 } else { code.as_str() };
                assert_eq!((status, code), expected, "{method} {path}");
            }
        }
        for path in ["/", "/v1/", "/v2/a", "/v2/a/b", "/v3/a/manifests/b", "/metrics", "/v2/a/manifests/"] {
            let answer = web.get(&host, path).await;
            let asked = registry.asked(&web).await;
            assert!(asked.is_empty(), "{path}: {asked:?}");
            let (status, code) = answer.refused();
            assert!(matches!(status, 400 | 404) && !code.is_empty(), "{path}: {answer:?}");
        }
    }
}

/// Waits until so many tags are counted.
async fn counted(gateway: &Gateway, what: &str, tags: u64) {
    until(format!("{what}: {tags} tags are counted"), async || {
        (gateway.metric("larder_gateway_index_tags").await == tags).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_way_a_tag_comes_and_goes_is_counted() {
    for program in programs() {
        let registry = Registry::start(&program).await;
        let (web, one, two) = (Web::new(), Image::oci(1, &[2000]), Image::docker(2, &[3000]));
        let mut site = Site::new(&registry.host, &json!({"limits": {"tags": 100}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        let base = "/v2/team-a/app";
        for image in [&one, &two] {
            web.upload_all(&host, "team-a/app", image).await;
        }
        counted(&gateway, "uploads", 0).await;
        let put = async |reference: &str, object| {
            let answer = web.put_manifest(&host, "team-a/app", reference, object).await;
            assert_eq!(answer.status, 201, "{reference}: {answer:?}");
        };
        put("v1", &one.manifest).await;
        counted(&gateway, "a tag", 1).await;
        put("v1", &one.manifest).await;
        put("v1", &two.manifest).await;
        counted(&gateway, "the same tag", 1).await;
        put(&one.manifest.digest, &one.manifest).await;
        counted(&gateway, "a digest", 1).await;
        put("multi", &one.index).await;
        put("list", &two.index).await;
        put("v2", &two.manifest).await;
        put("v3", &one.manifest).await;
        counted(&gateway, "indexes are tags too", 5).await;
        for (method, path) in [
            ("GET", format!("{base}/manifests/v1")),
            ("HEAD", format!("{base}/manifests/v9")),
            ("GET", format!("{base}/tags/list")),
            ("DELETE", format!("{base}/manifests/{}", sha256(b"unknown"))),
            ("DELETE", format!("{base}/blobs/{}", one.layers[0].digest)),
        ] {
            web.send(&host, method, &path, &[], "").await;
            counted(&gateway, &path, 5).await;
        }
        // Two tags point at it.
        let path = format!("{base}/manifests/{}", two.manifest.digest);
        assert_eq!(web.send(&host, "DELETE", &path, &[], "").await.status, 202);
        counted(&gateway, "a deleted image", 3).await;
        // Only the newer version deletes a tag alone.
        let deleted = web.send(&host, "DELETE", &format!("{base}/manifests/list"), &[], "").await;
        let left = if program.major == 2 { 3 } else { 2 };
        assert_eq!(deleted.status == 202, program.major > 2, "{deleted:?}");
        counted(&gateway, "a deleted tag", left).await;
        assert_eq!(registry.tags(&web, "team-a/app").await.len() as u64, left);
    }
}
