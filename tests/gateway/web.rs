//! A registry's client as simple as can be: it sends what it is told, and pushes images. Must not retry or follow.

use std::io;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use larder_tests::image::{Image, Object};
use larder_tests::wait::within;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections of one test.
#[derive(Clone)]
pub(crate) struct Web(Client<HttpConnector, Full<Bytes>>);

/// What came of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Nothing of the body is missing.
    pub(crate) is_whole: bool,
}

impl Web {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// What came back, or why nothing did.
    pub(crate) async fn try_send(
        &self,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{host}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let reply = within(format!("{method} {path}"), self.0.request(request)).await;
        let (head, mut body) = reply.map_err(|error| format!("{method} {path}: {error:?}"))?.into_parts();
        let (mut bytes, mut is_whole) = (BytesMut::new(), true);
        while let Some(frame) = within(format!("{method} {path}: the body"), body.frame()).await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap()),
                Err(_) => is_whole = false,
            }
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes.freeze(), is_whole })
    }

    pub(crate) async fn send(
        &self,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(host, method, path, headers, body).await.unwrap()
    }

    pub(crate) async fn get(&self, host: &str, path: &str) -> Answer {
        self.send(host, "GET", path, &[], "").await
    }

    /// Uploads in one piece: the answer of the first request that does not go well, or of the last.
    pub(crate) async fn upload(&self, host: &str, repository: &str, blob: &Object) -> Answer {
        let opened = self.send(host, "POST", &format!("/v2/{repository}/blobs/uploads/"), &[], "").await;
        if opened.status != 202 {
            return opened;
        }
        let path = finish(&opened.location(), &blob.digest);
        let headers = [("content-type", "application/octet-stream")];
        self.send(host, "PUT", &path, &headers, blob.bytes.clone()).await
    }

    pub(crate) async fn put_manifest(
        &self,
        host: &str,
        repository: &str,
        reference: &str,
        it: &Object,
    ) -> Answer {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send(host, "PUT", &path, &[("content-type", &it.media_type)], it.bytes.clone()).await
    }

    /// Config and layers, all of which must be taken.
    pub(crate) async fn upload_all(&self, host: &str, repository: &str, image: &Image) {
        for blob in image.blobs() {
            let answer = self.upload(host, repository, blob).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    }

    /// A whole push; the answer to its manifest.
    pub(crate) async fn push(&self, host: &str, repository: &str, tag: &str, image: &Image) -> Answer {
        self.upload_all(host, repository, image).await;
        self.put_manifest(host, repository, tag, &image.manifest).await
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The path that the answer leads to.
    pub(crate) fn location(&self) -> String {
        let location: http::Uri = self.header(header::LOCATION.as_str()).parse().unwrap();
        location.path_and_query().expect("a path").to_string()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Status, code and words of an OCI error.
    pub(crate) fn error(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |key: &str| json["errors"][0][key].as_str().unwrap_or_default().to_owned();
        (self.status, text("code"), text("message"))
    }

    /// Status and code alone.
    pub(crate) fn refused(&self) -> (u16, String) {
        let (status, code, words) = self.error();
        assert!(!words.is_empty(), "a refusal without words: {self:?}");
        (status, code)
    }
}

/// An upload's address with the digest that ends it.
pub(crate) fn finish(location: &str, digest: &str) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}digest={digest}")
}

/// Sends bytes as they are and reads what comes until the other side ends.
pub(crate) async fn raw(host: &str, bytes: &[u8]) -> String {
    let mut stream = within("connecting", TcpStream::connect(host)).await.unwrap();
    // Who has seen enough may stop reading: what it says is all that counts.
    let _ = within("sending", stream.write_all(bytes)).await;
    text(&mut stream).await
}

/// Reads to the end, or to a reset.
pub(crate) async fn text(stream: &mut TcpStream) -> String {
    let (mut told, mut piece) = (Vec::new(), vec![0; 16 << 10]);
    while let Ok(read @ 1..) = within("an answer", stream.read(&mut piece)).await as io::Result<usize> {
        told.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&told).into_owned()
}
