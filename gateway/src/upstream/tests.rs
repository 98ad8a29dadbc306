//! The gateway's own questions, against a registry that answers as registries do.

mod tls;

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Response};
use larder_wire::digest::Digest;
use larder_wire::name::Repository;

use super::*;
use crate::body::{Body, full};
use crate::caller::Caller;
use crate::serve::tests::stage::{Registry, reply};

fn upstream(registry: &Registry) -> Upstream {
    Upstream::new(format!("http://{}", registry.address).parse().unwrap(), TlsFiles::default()).unwrap()
}

fn caller() -> Caller {
    let authorization = Some(HeaderValue::from_static("Bearer t"));
    Caller { authorization, actor: "-".to_owned(), remote: "127.0.0.1".parse().unwrap() }
}

fn names() -> (Repository, Digest) {
    ("a/b".parse().unwrap(), format!("sha256:{}", "a".repeat(64)).parse().unwrap())
}

fn json(text: &'static str, headers: &[(&str, &str)]) -> Response<Body> {
    reply(200, headers).map(|_| full(text.into()))
}

#[tokio::test]
async fn sizes_are_asked_with_the_clients_credential_and_of_storage_with_none() {
    let storage = Registry::start(|_| reply(200, &[("content-length", "7")])).await;
    let leads_to = format!("http://{}/key?sig=1", storage.address);
    let status = Arc::new(OnceLock::new());
    let answers = Arc::clone(&status);
    let registry = Registry::start(move |_| match answers.get() {
        None => reply(307, &[("location", &leads_to)]),
        Some(status) => reply(*status, &[]),
    })
    .await;
    let upstream = upstream(&registry);
    let (name, digest) = names();
    assert_eq!(upstream.head_blob(&name, &digest, &caller()).await.unwrap(), Some(7));
    let (asked, of_storage) = (registry.take().remove(0), storage.take().remove(0));
    assert_eq!((asked.method.as_str(), asked.target), ("HEAD", format!("/v2/a/b/blobs/{digest}")));
    assert_eq!(asked.headers["authorization"], "Bearer t");
    assert_eq!(of_storage.target, "/key?sig=1");
    assert!(!of_storage.headers.contains_key("authorization"));
    status.set(404).unwrap();
    assert_eq!(upstream.head_blob(&name, &digest, &caller()).await.unwrap(), None);
}

#[tokio::test]
async fn a_refusal_is_no_absence() {
    let registry = Registry::start(|_| reply(401, &[])).await;
    let upstream = upstream(&registry);
    let (name, digest) = names();
    let refused = |status: UpstreamError| matches!(status, UpstreamError::Status(status) if status == 401);
    assert!(refused(upstream.head_blob(&name, &digest, &caller()).await.unwrap_err()));
    assert!(refused(upstream.tags_page(&name, 5, None, None).await.unwrap_err()));
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let registry = Registry::start(|seen| match seen.target.as_str() {
        "/v2/a/b/tags/list?n=2" => json(
            r#"{"name":"a/b","tags":["x","not a tag","y"]}"#,
            &[("link", r#"</v2/a/b/tags/list?last=y%2B&n=2>; rel="next""#)],
        ),
        "/v2/a/b/tags/list?n=2&last=y%2B" => json(r#"{"name":"a/b","tags":null}"#, &[]),
        "/v2/_catalog?n=9" => json(r#"{"repositories":["a/b","../c"]}"#, &[]),
        _ => reply(404, &[]),
    })
    .await;
    let upstream = upstream(&registry);
    let (name, _) = names();
    let first = upstream.tags_page(&name, 2, None, None).await.unwrap().unwrap();
    assert_eq!(
        first,
        TagsPage { tags: vec!["x".parse().unwrap(), "y".parse().unwrap()], next: Some("y+".to_owned()) }
    );
    let second = upstream.tags_page(&name, 2, first.next.as_deref(), None).await.unwrap().unwrap();
    assert_eq!(second, TagsPage::default());
    assert_eq!(upstream.tags_page(&"c".parse().unwrap(), 2, None, None).await.unwrap(), None);
    assert_eq!(upstream.catalog_page(9, None, None).await.unwrap().repositories, [name]);
}
