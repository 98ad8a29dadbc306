//! Limits are exact: what just fits is taken with a warning, one more is refused with words and leaves nothing behind.

use larder_tests::gateway::Site;
use larder_tests::image::{Image, Object};
use larder_tests::wait::until;
use serde_json::{Value, json};

use crate::registry::{Registry, programs};
use crate::web::{Web, finish};

fn size(image: &Image) -> u64 {
    image.blobs().map(Object::len).sum()
}

#[tokio::test]
async fn an_image_of_just_the_limit_is_taken_and_one_of_a_byte_more_is_not() {
    for program in programs() {
        let mut registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[50_000, 60_001]));
        let limit = size(&image);
        let policy = json!({"limits": {"image_bytes": limit}, "overrides": [
            {"repositories": ["less/*"], "limits": {"image_bytes": limit - 1}},
        ]});
        let mut site = Site::new(&registry.host, &policy);
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        let taken = web.push(&host, "just/app", "v1", &image).await;
        assert_eq!(taken.status, 201, "{taken:?}");
        let warning = taken.header("warning");
        assert!(warning.starts_with("299 - \"image size") && warning.contains("of"), "{taken:?}");

        web.upload_all(&host, "less/app", &image).await;
        registry.asked(&web).await;
        let refused = web.put_manifest(&host, "less/app", "v1", &image.manifest).await;
        let (status, code, words) = refused.error();
        assert_eq!((status, code.as_str()), (403, "DENIED"), "{words}");
        let expected =
            format!("image size {limit} bytes exceeds the limit of {} bytes for less/app", limit - 1);
        assert!(words.contains(&expected), "{words}");
        assert_eq!(refused.json()["errors"][0]["detail"]["actual"], limit);
        let asked = registry.asked(&web).await;
        assert!(asked.iter().all(|access| access.method == "HEAD"), "{asked:?}");
        assert_eq!(web.get(&registry.host, "/v2/less/app/manifests/v1").await.status, 404);
        assert_eq!(gateway.decisions("refused", "image-size").await, 1);
    }
}

#[tokio::test]
async fn an_upload_of_just_the_limit_is_taken_and_a_longer_one_is_stopped_and_deleted() {
    for program in programs() {
        let registry = Registry::start(&program).await;
        let (web, kind) = (Web::new(), ("content-type", "application/octet-stream"));
        let mut site = Site::new(&registry.host, &json!({"limits": {"image_bytes": 100_000}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        let uploaded = web.upload(&host, "team-a/app", &Object::noise(1, 100_000)).await;
        assert_eq!(uploaded.status, 201, "{uploaded:?}");

        // In one piece, and by pieces each of which is small.
        let large = Object::noise(2, 100_001);
        let (status, code, words) = web.upload(&host, "team-a/app", &large).await.error();
        assert_eq!((status, code.as_str()), (403, "DENIED"), "{words}");
        assert!(words.contains("one layer's size 100001 bytes exceeds the limit of 100000 bytes"), "{words}");
        let opened = web.send(&host, "POST", "/v2/team-a/app/blobs/uploads/", &[], "").await;
        let went = web.send(&host, "PATCH", &opened.location(), &[kind], large.bytes.slice(..60_000)).await;
        assert_eq!(went.status, 202, "{went:?}");
        let address = finish(&went.location(), &large.digest);
        let ended = web.send(&host, "PUT", &address, &[kind], large.bytes.slice(60_000..)).await;
        assert_eq!(ended.refused(), (403, "DENIED".to_owned()));
        until("the session is gone", async || {
            (web.get(&registry.host, &went.location()).await.status == 404).then_some(())
        })
        .await;
        let stored = format!("/v2/team-a/app/blobs/{}", large.digest);
        assert_eq!(web.get(&registry.host, &stored).await.status, 404);
        assert_eq!(gateway.decisions("refused", "upload-size").await, 2);
    }
}

#[tokio::test]
async fn the_last_place_for_a_tag_is_given_once_and_what_is_deleted_makes_room() {
    for program in programs() {
        let registry = Registry::start(&program).await;
        let web = Web::new();
        let mut site = Site::new(&registry.host, &json!({"limits": {"tags": 3}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        let (one, two) = (Image::oci(1, &[2000]), Image::oci(2, &[3000]));
        web.upload_all(&host, "team-a/app", &two).await;
        for tag in ["v1", "v2", "v3"] {
            let taken = web.push(&host, "team-a/app", tag, &one).await;
            assert_eq!(taken.status, 201, "{tag}: {taken:?}");
        }
        let refused = web.put_manifest(&host, "team-a/app", "v4", &one.manifest).await;
        let (status, code, words) = refused.error();
        assert_eq!((status, code.as_str()), (403, "DENIED"), "{words}");
        assert!(words.contains("with this push team-a/app has 4 tags; the limit is 3"), "{words}");
        assert_eq!(refused.json()["errors"][0]["detail"]["limit"], 3);
        // An existing tag may move, a digest needs no place, and neither do signatures.
        let moved = web.put_manifest(&host, "team-a/app", "v1", &two.manifest).await;
        assert_eq!(moved.status, 201, "{moved:?}");
        let untagged = web.put_manifest(&host, "team-a/app", &two.index.digest, &two.index).await;
        assert_eq!(untagged.status, 201, "{untagged:?}");
        let signature = format!("sha256-{}.sig", one.manifest.hex());
        let signed = web.put_manifest(&host, "team-a/app", &signature, &one.manifest).await;
        assert_eq!(signed.status, 201, "{signed:?}");
        // Another way to name a tag.
        let path = format!("/v2/team-a/app/manifests/{}?tag=v4", one.manifest.digest);
        let headers = [("content-type", one.manifest.media_type.as_str())];
        let other_way = web.send(&host, "PUT", &path, &headers, one.manifest.bytes.clone()).await;
        assert_eq!(other_way.refused(), (403, "DENIED".to_owned()));

        // `v1` goes with its manifest.
        let path = format!("/v2/team-a/app/manifests/{}", two.manifest.digest);
        assert_eq!(web.send(&host, "DELETE", &path, &[], "").await.status, 202);
        assert_eq!(web.put_manifest(&host, "team-a/app", "v4", &one.manifest).await.status, 201);
        let full = web.put_manifest(&host, "team-a/app", "v5", &one.manifest).await;
        assert_eq!(full.refused(), (403, "DENIED".to_owned()));
        let mut tags = registry.tags(&web, "team-a/app").await;
        tags.sort();
        assert_eq!(tags, [signature.as_str(), "v2", "v3", "v4"]);
    }
}

/// The image's manifest with another size for its layer.
fn lying(image: &Image, size: u64) -> Object {
    let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    manifest["layers"][0]["size"] = json!(size);
    Object::new(&image.manifest.media_type, manifest.to_string())
}

#[tokio::test]
async fn a_size_that_is_not_the_real_one_is_refused() {
    for program in programs() {
        let registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[50_000]));
        let mut site = Site::new(
            &registry.host,
            &json!({"limits": {"image_bytes": 40_000}, "overrides": [
                {"repositories": ["wide/*"], "limits": {"image_bytes": 1 << 30}},
            ]}),
        );
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        // The registry holds it already, so that no upload passes the gateway.
        web.upload_all(&registry.host, "team-a/app", &image).await;
        web.upload_all(&host, "wide/app", &image).await;
        for (repository, size) in
            [("team-a/app", 10), ("team-a/app", 49_999), ("wide/app", 50_001), ("wide/app", 0)]
        {
            let answer = web.put_manifest(&host, repository, "v1", &lying(&image, size)).await;
            assert_eq!(answer.refused(), (400, "SIZE_INVALID".to_owned()), "{repository} {size}");
            let detail = &answer.json()["errors"][0]["detail"];
            assert_eq!((&detail["declared"], &detail["actual"]), (&json!(size), &json!(50_000)));
            assert_eq!(registry.tags(&web, repository).await, [""; 0]);
        }
        assert_eq!(gateway.decisions("refused", "size-mismatch").await, 4);
    }
}
