//! A refusal, from the reason to the answer that docker, buildkit, podman, skopeo and oras show: OCI JSON
//! with words a person can act on. Must not decide anything: who refuses says why, here it only becomes a
//! response.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use larder_wire::oci::Code;
use serde::Serialize;
use serde_json::Value;

use crate::body::{self, Body};

/// Why something was refused: the `reason` of the metrics, and nothing else in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing was wrong: the reason of what is admitted.
    WithinLimits,
    ImageSize,
    /// An upload that outgrew the image limit while it streamed.
    UploadSize,
    ManifestSize,
    Tags,
    Images,
    NamespaceRepositories,
    NamespaceImages,
    NamespaceTags,
    /// A declared size is not the real one.
    SizeMismatch,
    /// The manifest names something that the registry does not have.
    ContentMissing,
    ManifestInvalid,
    /// The counts are not known (yet).
    CountUnknown,
    /// Sizes could not be asked for.
    SizeUnknown,
    /// The registry did not let the client do this.
    Unauthorized,
    /// The request itself breaks the protocol.
    Request,
    /// Too many requests at once.
    Busy,
    /// The registry behind gave no usable answer.
    Upstream,
    /// The gateway is ending.
    Draining,
}

impl Reason {
    /// The label of the metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::WithinLimits => "within-limits",
            Self::ImageSize => "image-size",
            Self::UploadSize => "upload-size",
            Self::ManifestSize => "manifest-size",
            Self::Tags => "tags",
            Self::Images => "images",
            Self::NamespaceRepositories => "namespace-repositories",
            Self::NamespaceImages => "namespace-images",
            Self::NamespaceTags => "namespace-tags",
            Self::SizeMismatch => "size-mismatch",
            Self::ContentMissing => "content-missing",
            Self::ManifestInvalid => "manifest-invalid",
            Self::CountUnknown => "count-unknown",
            Self::SizeUnknown => "size-unknown",
            Self::Unauthorized => "unauthorized",
            Self::Request => "request",
            Self::Busy => "busy",
            Self::Upstream => "upstream",
            Self::Draining => "draining",
        }
    }
}

/// What the client is told instead of the registry's answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: Code,
    /// What, how much, whose limit, and what to do about it.
    pub message: String,
    /// The same for machines; `null` where there is nothing to add.
    pub detail: Value,
    pub retry_after: Option<Duration>,
    pub reason: Reason,
}

#[derive(Serialize)]
struct Errors<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: Code,
    message: &'a str,
    #[serde(skip_serializing_if = "Value::is_null")]
    detail: &'a Value,
}

impl Refusal {
    #[must_use]
    pub fn new(status: StatusCode, code: Code, reason: Reason, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: Value::Null, retry_after: None, reason }
    }

    /// 403 `DENIED`: a limit says no. Never 429, which clients take for a rate and try again.
    #[must_use]
    pub fn denied(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::Denied, reason, message)
    }

    /// 503 `UNAVAILABLE`: the same request may pass in a moment.
    #[must_use]
    pub fn unavailable(reason: Reason, message: impl Into<String>, retry_after: Duration) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, reason, message);
        Self { retry_after: Some(retry_after), ..refusal }
    }

    #[must_use]
    pub fn detail(self, detail: Value) -> Self {
        Self { detail, ..self }
    }

    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// The answer to a request whose body was read, or that had none.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let entry = Entry { code: self.code, message: &self.message, detail: &self.detail };
        let mut json = serde_json::to_vec(&Errors { errors: [entry] })
            .expect("codes, strings and JSON values always have a JSON form");
        json.push(b'\n');
        let mut response = Response::new(body::full(Bytes::from(json)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }

    /// The answer to a request whose body was not read to its end: the connection ends with it, so that
    /// nobody takes the rest of the body for a next request.
    #[must_use]
    pub fn into_closing_response(self) -> Response<Body> {
        let mut response = self.into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::json;

    #[tokio::test]
    async fn a_refusal_reads_as_the_specification_says() {
        let refusal = Refusal::denied(Reason::Tags, "team-a/app is full").detail(json!({"limit": 5}));
        let response = refusal.retry_after(Duration::from_millis(10)).into_closing_response();
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[CONNECTION], "close");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            text,
            "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"team-a/app is full\",\"detail\":{\"limit\":5}}]}\n"
        );
    }
}
