//! What a push asks of the registry does not grow with the number of tags.

use larder_tests::gateway::Site;
use larder_tests::image::Image;
use larder_tests::wait::until;
use serde_json::json;

use crate::registry::{Program, Registry, programs};
use crate::web::Web;

/// Method and path of what the registry is asked when a manifest is pushed to a repository of so many tags.
async fn asked_at(program: &Program, tags: usize) -> Vec<String> {
    let mut registry = Registry::start(program).await;
    let (web, image) = (Web::new(), Image::oci(1, &[2000, 3000]));
    web.upload_all(&registry.host, "team-a/app", &image).await;
    let first = web.put_manifest(&registry.host, "team-a/app", "old-0", &image.manifest).await;
    assert_eq!(first.status, 201, "{first:?}");
    registry.add_tags("team-a/app", &image.manifest.digest, tags);
    let mut site = Site::new(&registry.host, &json!({"limits": {"tags": 20_000, "image_bytes": 1 << 20}}));
    let gateway = site.start().await;
    let host = gateway.address.to_string();
    web.upload_all(&host, "team-a/app", &image).await;
    // Read while the layers came.
    until("the tags are known", async || {
        (gateway.metric("larder_gateway_index_tags").await == tags as u64).then_some(())
    })
    .await;
    let mut all = Vec::new();
    for tag in ["new", "newer"] {
        registry.asked(&web).await;
        assert_eq!(web.put_manifest(&host, "team-a/app", tag, &image.manifest).await.status, 201);
        registry.until_asked("PUT", "/v2/team-a/app/manifests/").await;
        let asked = registry.asked(&web).await;
        all.extend(asked.iter().map(|access| format!("{} {}", access.method, access.path)));
    }
    all
}

#[tokio::test]
async fn a_push_asks_the_same_at_ten_and_at_ten_thousand_tags() {
    for program in programs() {
        let few = asked_at(&program, 10).await;
        assert_eq!(few, ["PUT /v2/team-a/app/manifests/new", "PUT /v2/team-a/app/manifests/newer"]);
        for tags in [1000, 10_000] {
            assert_eq!(asked_at(&program, tags).await, few, "at {tags} tags");
        }
    }
}

#[tokio::test]
async fn sizes_that_nobody_has_seen_are_asked_for_once() {
    for program in programs() {
        let mut registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[2000, 3000, 4000]));
        web.upload_all(&registry.host, "team-a/app", &image).await;
        let mut site = Site::new(&registry.host, &json!({"limits": {"image_bytes": 1 << 20}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        for expected in [4, 0] {
            registry.asked(&web).await;
            assert_eq!(web.put_manifest(&host, "team-a/app", "v1", &image.manifest).await.status, 201);
            registry.until_asked("PUT", "/v2/team-a/app/manifests/v1").await;
            let asked = registry.asked(&web).await;
            let heads = asked.iter().filter(|access| access.method == "HEAD").count();
            assert_eq!((heads, asked.len()), (expected, expected + 1), "{asked:?}");
        }
    }
}
