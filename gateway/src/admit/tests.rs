//! Whole pushes against a registry that notes what it is asked.

mod registry;
mod replicas;
mod tags;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::caller::Caller;
use crate::config;
use crate::metrics::Metrics;
use crate::owner::Owners;
use crate::peers::Peers;
use crate::policy::PolicyWatch;
use crate::serve::Places;
use crate::tags::{Parts, Settings, Tags};
use crate::uploads::Sessions;
use crate::upstream::{TlsFiles, Upstream};
use registry::Registry;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A gateway in front of a registry, with a policy and more settings.
fn gateway(registry: &Registry, policy: &str, settings: &str) -> Arc<Gateway> {
    replica(registry, policy, settings, Owners::single(), None)
}

fn replica(
    registry: &Registry,
    policy: &str,
    settings: &str,
    owners: Owners,
    peers: Option<Peers>,
) -> Arc<Gateway> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.json");
    std::fs::write(&file, policy).unwrap();
    let policy = PolicyWatch::open(&file).unwrap();
    let parsed = config::parse(&format!("upstream = \"{}\"\n{settings}", registry.address()));
    let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.mistakes));
    let metrics = Arc::new(Metrics::new(policy.failures()));
    let upstream = Arc::new(Upstream::new(config.upstream.clone(), TlsFiles::default()).unwrap());
    let tags = Tags::new(Parts {
        upstream: Arc::clone(&upstream),
        policy: policy.clone(),
        metrics: Arc::clone(&metrics),
        settings: Settings { mode: config.mode, seed_timeout: config.seed_timeout },
        owners,
        peers,
    });
    let (sizes, sessions, places) = (Arc::default(), Sessions::default(), Places::new(512, 512));
    Arc::new(Gateway { config, upstream, policy, sizes, tags, metrics, sessions, places })
}

fn caller() -> Caller {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
    Caller::new(&headers, IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn put(target: &str, media_type: &'static str, body: &str) -> ManifestPut {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (name, reference) = path.rsplit_once('/').unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
    let caller = Caller::new(&headers, IpAddr::V4(Ipv4Addr::LOCALHOST));
    ManifestPut {
        name: name.parse().unwrap(),
        reference: larder_wire::route::Reference::parse(reference).unwrap(),
        tags: query
            .split("tag=")
            .filter(|tag| !tag.is_empty())
            .map(|tag| tag.trim_end_matches('&').parse().unwrap())
            .collect(),
        target: format!("/v2/{name}/manifests/{reference}").parse::<PathAndQuery>().unwrap(),
        headers,
        body: Bytes::from(body.to_owned()),
        caller,
    }
}

/// An image of a config of 10 bytes and a layer, both in the registry.
fn image(registry: &Registry, layer: u64) -> String {
    let (config, digest) = (registry.add_blob('c', 10), registry.add_blob('a', layer));
    format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":10}},"layers":[{{"digest":"{digest}","size":{layer}}}]}}"#
    )
}

async fn push(gateway: &Gateway, target: &str, body: &str) -> Response<Body> {
    put_manifest(gateway, put(target, OCI_MANIFEST, body)).await
}

async fn words(response: Response<Body>) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let error = &json["errors"][0];
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (status, text("code"), text("message"))
}

#[tokio::test]
async fn the_limit_is_exact_and_near_it_there_is_a_warning() {
    let registry = Registry::start().await;
    let gateway = gateway(&registry, r#"{"limits":{"image_bytes":100}}"#, "");
    let response = push(&gateway, "team-a/app/v1", &image(&registry, 69)).await;
    assert_eq!((response.status().as_u16(), response.headers().get(WARNING)), (201, None));
    registry.add_blob('a', 0);
    let gateway = self::gateway(&registry, r#"{"limits":{"image_bytes":100}}"#, "");
    let response = push(&gateway, "team-a/app/v1", &image(&registry, 90)).await;
    assert_eq!(response.status(), 201);
    let warning = response.headers()[WARNING].to_str().unwrap();
    assert!(
        warning.starts_with("299 - \"image size 100 bytes of 100 bytes allowed for team-a/app"),
        "{warning}"
    );

    let gateway = self::gateway(&registry, r#"{"limits":{"image_bytes":100}}"#, "");
    let (status, code, message) = words(push(&gateway, "team-a/app/v2", &image(&registry, 91)).await).await;
    assert_eq!((status, code.as_str()), (403, "DENIED"));
    assert!(
        message.contains("101 bytes exceeds the limit of 100 bytes for team-a/app (the default limits)"),
        "{message}"
    );
    assert_eq!(registry.tags("team-a/app"), 1);
    let page = gateway.metrics.page().unwrap();
    assert!(
        page.contains(r#"larder_gateway_decisions_total{decision="refused",reason="image-size"} 1"#),
        "{page}"
    );
}

#[tokio::test]
async fn sizes_are_those_of_the_registry() {
    let registry = Registry::start().await;
    let gateway = gateway(&registry, r#"{"limits":{"image_bytes":100}}"#, "");
    let body = image(&registry, 50);
    let lie = body.replace("\"size\":50", "\"size\":5");
    let (status, code, message) = words(push(&gateway, "team-a/app/v1", &lie).await).await;
    assert_eq!((status, code.as_str()), (400, "SIZE_INVALID"));
    assert!(message.contains("has 5 bytes, but in team-a/app it has 50"), "{message}");
    registry.take_asked();
    assert_eq!(push(&gateway, "team-a/app/v1", &body).await.status(), 201);
    assert_eq!(registry.take_asked(), ["PUT /v2/team-a/app/manifests/v1"], "sizes are asked for once");
    let missing = body.replace(&"a".repeat(64), &"b".repeat(64));
    let (status, code, _) = words(push(&gateway, "team-a/app/v1", &missing).await).await;
    assert_eq!((status, code.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    gateway.sizes.observed(&format!("sha256:{}", "b".repeat(64)).parse().unwrap(), 50);
    assert_eq!(push(&gateway, "team-a/app/v1", &missing).await.status(), 201, "seen while it was uploaded");
}

#[tokio::test]
async fn an_index_is_let_through_or_summed_as_the_policy_says() {
    let registry = Registry::start().await;
    let child = image(&registry, 50);
    let by_child = gateway(&registry, r#"{"limits":{"image_bytes":100}}"#, "");
    let digest = put("team-a/app/v1", OCI_MANIFEST, &child).digest();
    let index = |digest: &str, size: usize| {
        let child = format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":{size}}}"#);
        let other =
            format!(r#"{{"mediaType":"application/x","digest":"sha256:{}","size":50}}"#, "a".repeat(64));
        put("team-a/app/all", OCI_INDEX, &format!(r#"{{"manifests":[{child},{other}]}}"#))
    };
    let summed = gateway(&registry, r#"{"limits":{"image_bytes":100,"scope":"index"}}"#, "");
    let (status, code, message) =
        words(put_manifest(&summed, index(&digest.to_string(), child.len())).await).await;
    assert_eq!((status, code.as_str()), (400, "MANIFEST_UNKNOWN"));
    assert!(message.contains("which is not in team-a/app. Push it first."), "{message}");
    let pushed = push(&by_child, &format!("team-a/app/{digest}"), &child).await;
    assert_eq!(pushed.status(), 201);
    assert_eq!(put_manifest(&by_child, index(&digest.to_string(), child.len())).await.status(), 201);
    let (status, _, message) =
        words(put_manifest(&summed, index(&digest.to_string(), child.len())).await).await;
    assert_eq!(status, 403);
    assert!(message.contains("image size 110 bytes"), "{message}");
    let summed = gateway(&registry, r#"{"limits":{"image_bytes":110,"scope":"index"}}"#, "");
    let (status, code, _) = words(put_manifest(&summed, index(&digest.to_string(), 3)).await).await;
    assert_eq!((status, code.as_str()), (400, "SIZE_INVALID"));
    assert_eq!(put_manifest(&summed, index(&digest.to_string(), child.len())).await.status(), 201);
}

#[tokio::test]
async fn a_client_that_may_not_is_refused_by_the_registry_itself() {
    let registry = Registry::start().await;
    registry.state().needs_credential = true;
    let gateway = gateway(&registry, r#"{"limits":{"image_bytes":100,"tags":5}}"#, "");
    let mut put = put("team-a/app/v1", OCI_MANIFEST, &image(&registry, 50));
    put.headers.remove(AUTHORIZATION);
    put.caller.authorization = None;
    let response = put_manifest(&gateway, put.clone()).await;
    assert_eq!(response.status(), 401);
    assert!(response.headers().contains_key(WWW_AUTHENTICATE));
    gateway.sizes.observed(&format!("sha256:{}", "a".repeat(64)).parse().unwrap(), 50);
    gateway.sizes.observed(&format!("sha256:{}", "c".repeat(64)).parse().unwrap(), 10);
    assert_eq!(put_manifest(&gateway, put).await.status(), 401, "nor are its tags shown");
    assert_eq!(registry.tags("team-a/app"), 0);
}

#[tokio::test]
async fn an_auditing_policy_refuses_nothing_and_tells_everything() {
    let registry = Registry::start().await;
    let gateway = gateway(&registry, r#"{"action":"audit","limits":{"image_bytes":10,"tags":1}}"#, "");
    registry.add_tag("team-a/app", "v0");
    let response = push(&gateway, "team-a/app/v1", &image(&registry, 50)).await;
    assert_eq!(response.status(), 201);
    let warning = response.headers()[WARNING].to_str().unwrap();
    assert!(warning.contains("this push would be refused: image size 60 bytes"), "{warning}");
    assert_eq!(registry.tags("team-a/app"), 2);
    let page = gateway.metrics.page().unwrap();
    assert!(
        page.contains(r#"larder_gateway_decisions_total{decision="audited",reason="image-size"} 1"#),
        "{page}"
    );
}
