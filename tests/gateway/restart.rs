//! What ends in the middle of a push and comes back: a client that tries again succeeds, and the count stays right.

use larder_tests::gateway::Site;
use larder_tests::image::{Image, Object};
use larder_tests::wait::within;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::registry::{Registry, programs};
use crate::web::Web;

#[tokio::test]
async fn a_registry_that_comes_back_has_lost_no_place() {
    for program in programs() {
        let mut registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[2000]));
        let mut site = Site::new(&registry.host, &json!({"limits": {"tags": 3}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        assert_eq!(web.push(&host, "team-a/app", "v1", &image).await.status, 201);
        registry.stop().await;
        for tag in ["v2", "v3", "v4"] {
            let (status, code, words) =
                web.put_manifest(&host, "team-a/app", tag, &image.manifest).await.error();
            assert!(matches!(status, 502..=504) && !code.is_empty() && !words.is_empty(), "{status} {words}");
        }
        assert!(matches!(web.get(&host, "/v2/team-a/app/manifests/v1").await.status, 502..=504));
        registry.resume().await;
        for tag in ["v2", "v3"] {
            let retried = web.push(&host, "team-a/app", tag, &image).await;
            assert_eq!(retried.status, 201, "{retried:?}");
        }
        let refused = web.push(&host, "team-a/app", "v4", &image).await;
        assert_eq!(refused.refused(), (403, "DENIED".to_owned()));
        assert_eq!(registry.tags(&web, "team-a/app").await, ["v1", "v2", "v3"]);
        gateway.process.check_log();
    }
}

/// Sends a request whose body breaks off, and keeps the connection.
async fn half(host: &str, head: &str, length: usize, body: &[u8]) -> TcpStream {
    let mut stream = within("connecting", TcpStream::connect(host)).await.unwrap();
    let head = format!("{head} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n");
    stream
        .write_all(format!("{head}Content-Type: application/octet-stream\r\n\r\n").as_bytes())
        .await
        .unwrap();
    stream.write_all(body).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn a_gateway_killed_in_mid_push_comes_back_and_counts_right() {
    for program in programs() {
        let registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[2000]));
        let mut site = Site::new(&registry.host, &json!({"limits": {"tags": 3}}));
        site = site.settings("on_unknown = \"deny\"\nseed_timeout = \"20s\"");
        let mut gateway = site.start().await;
        let host = gateway.address.to_string();
        for tag in ["v1", "v2"] {
            assert_eq!(web.push(&host, "team-a/app", tag, &image).await.status, 201);
        }
        // A layer and a manifest that are half there.
        let layer = Object::noise(9, 1 << 20);
        let opened = web.send(&host, "POST", "/v2/team-a/app/blobs/uploads/", &[], "").await;
        let patch = format!("PATCH {}", opened.location());
        let _uploading = half(&host, &patch, layer.bytes.len(), &layer.bytes[..500_000]).await;
        let manifest = &image.manifest.bytes;
        let _pushing = half(&host, "PUT /v2/team-a/app/manifests/v3", manifest.len(), &manifest[..50]).await;
        gateway.process.kill().await;
        assert!(web.try_send(&host, "GET", "/v2/", &[], "").await.is_err(), "it is gone");

        let gateway = site.start().await;
        assert_eq!(gateway.address.to_string(), host);
        let again = web.upload(&host, "team-a/app", &layer).await;
        assert_eq!(again.status, 201, "{again:?}");
        let retried = web.push(&host, "team-a/app", "v3", &image).await;
        assert_eq!(retried.status, 201, "{retried:?}");
        let refused = web.push(&host, "team-a/app", "v4", &image).await;
        assert_eq!(refused.refused(), (403, "DENIED".to_owned()));
        assert_eq!(registry.tags(&web, "team-a/app").await, ["v1", "v2", "v3"]);
    }
}
