//! Pushes and pulls by skopeo: what goes in comes out, and a refusal is read on its terminal.

use std::fs;
use std::path::Path;

use larder_tests::gateway::Site;
use larder_tests::image::Image;
use larder_tests::wait::within;
use serde_json::json;
use tempfile::TempDir;

use crate::registry::{Registry, programs};
use crate::web::Web;

/// An OCI layout with one image.
fn layout(dir: &Path, name: &str, image: &Image) -> String {
    let place = dir.join(name);
    fs::create_dir_all(place.join("blobs/sha256")).unwrap();
    for object in image.blobs().chain([&image.manifest]) {
        fs::write(place.join("blobs/sha256").join(object.hex()), &object.bytes).unwrap();
    }
    let manifests = [image.manifest.descriptor()];
    fs::write(place.join("index.json"), json!({"schemaVersion": 2, "manifests": manifests}).to_string())
        .unwrap();
    fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    format!("oci:{}", place.display())
}

/// Runs skopeo: what it said, as an error where it failed.
async fn skopeo(arguments: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new("skopeo");
    command.args(arguments).kill_on_drop(true);
    let output = within("skopeo ends", command.output()).await.expect("skopeo starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

async fn copy(from: &str, to: &str) -> Result<String, String> {
    let insecure = ["--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&[&["copy", "--retry-times=0", "--preserve-digests"][..], &insecure, &[from, to]].concat()).await
}

fn has_skopeo() -> bool {
    let has = Path::new("/usr/bin/skopeo").exists();
    if !has {
        eprintln!("did not run: no Debian package `skopeo`");
    }
    has
}

#[tokio::test]
async fn an_image_goes_in_and_comes_out_and_a_refusal_is_read() {
    if !has_skopeo() {
        return;
    }
    for program in programs() {
        let registry = Registry::start(&program).await;
        let policy = json!({"limits": {"image_bytes": 1 << 20, "tags": 2}});
        let mut site = Site::new(&registry.host, &policy);
        let gateway = site.start().await;
        let dir = TempDir::with_prefix("larder-skopeo-").unwrap();
        let name = |tag: &str| format!("docker://{}/team-a/app:{tag}", gateway.address);

        let image = Image::oci(1, &[100_000, 300_000]);
        let from = layout(dir.path(), "image", &image);
        copy(&from, &name("v1")).await.unwrap();
        copy(&name("v1"), &format!("oci:{}", dir.path().join("back").display())).await.unwrap();
        for object in image.blobs().chain([&image.manifest]) {
            let back = dir.path().join("back/blobs/sha256").join(object.hex());
            assert_eq!(fs::read(back).unwrap(), object.bytes);
        }
        let inspected =
            skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &name("v1")]).await;
        assert_eq!(inspected.unwrap().trim(), image.manifest.digest);

        // One layer that is too large by itself, and layers that are too large together.
        let large = layout(dir.path(), "large", &Image::oci(2, &[1_500_000]));
        let told = copy(&large, &name("large")).await.unwrap_err();
        assert!(told.contains("1.4 MiB exceeds the limit of 1 MiB for team-a/app"), "{told}");
        let sum = layout(dir.path(), "sum", &Image::oci(3, &[800_000, 700_000]));
        let told = copy(&sum, &name("sum")).await.unwrap_err();
        assert!(told.contains("image size 1.4 MiB exceeds the limit of 1 MiB for team-a/app"), "{told}");
        assert!(told.contains("Make the image smaller, or ask for a higher limit."), "{told}");

        copy(&from, &name("v2")).await.unwrap();
        let told = copy(&from, &name("v3")).await.unwrap_err();
        assert!(told.contains("with this push team-a/app has 3 tags; the limit is 2"), "{told}");
        let other = layout(dir.path(), "other", &Image::oci(4, &[5000]));
        copy(&other, &name("v2")).await.unwrap();

        assert_eq!(registry.tags(&Web::new(), "team-a/app").await, ["v1", "v2"]);
        let audit = gateway.audit();
        assert!(audit.iter().any(|line| line["reason"] == "tags" && line["tag"] == "v3"), "{audit:?}");
    }
}
