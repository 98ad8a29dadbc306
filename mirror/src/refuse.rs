//! Any error -> status, OCI code and words: the only such mapping. Pods show these words first when a pull fails
//! everywhere, so each says what, where, the consequence, the next step. containerd goes on to the registry at once after
//! each of them; 401, 408, 429 and redirects are never sent, since it would not.

use std::time::Duration;

use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use larder_wire::digest::DigestError;
use larder_wire::oci::{Code, ErrorBody};
use larder_wire::route::RouteError;

use crate::answer::{Reply, api_headers, body, text};
use crate::error::{PullError, RequestError, UpstreamError};
use crate::request::{PullRequest, What};
use crate::stats::{Source, chain};
use crate::upstream::Target;

/// A refusal, before it is a reply.
struct Refusal {
    status: StatusCode,
    code: Code,
    words: String,
}

/// What is being refused, as far as it is known.
struct Place<'a> {
    registry: &'a str,
    repository: &'a str,
    unknown: Code,
}

pub(crate) fn reply<B>(
    node: &str,
    asked: Option<&PullRequest>,
    request: &Request<B>,
    error: &PullError,
) -> Reply {
    let pull = asked.and_then(|asked| match &asked.what {
        What::Pull(pull) => Some(pull),
        What::Base(_) | What::Canary(_) => None,
    });
    let place = Place {
        registry: pull.map_or("the registry", |pull| pull.upstream.settings.registry.as_str()),
        repository: pull.map_or("", |pull| pull.repository.as_str()),
        unknown: match pull.map(|pull| &pull.target) {
            Some(Target::Blob(_)) => Code::BlobUnknown,
            Some(Target::Tags(_) | Target::Referrers(..)) => Code::NameUnknown,
            Some(Target::Manifest(_)) | None => Code::ManifestUnknown,
        },
    };
    let refusal = refuse(&place, error);
    let message = ErrorBody::new(refusal.code, format!("larder@{node}: {}", refusal.words)).to_bytes();
    let mut headers = headers_of(error);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(message.len()));
    let silent = request.method() == Method::HEAD;
    let body = if silent { body::Source::Empty } else { body::Source::Bytes(message.into()) };
    Reply {
        status: refusal.status,
        headers,
        body,
        source: Source::None,
        stale: None,
        error: Some(chain(error)),
    }
}

fn headers_of(error: &PullError) -> HeaderMap {
    let mut headers = api_headers();
    match error {
        PullError::Request(RequestError::Method) => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        PullError::Range { size } => {
            headers.insert(CONTENT_RANGE, text(&format!("bytes */{size}")));
        }
        PullError::Bypass => {
            headers
                .insert(HeaderName::from_static(larder_wire::proof::BYPASS), HeaderValue::from_static("1"));
        }
        PullError::Request(_) | PullError::Upstream(_) | PullError::Deadline(_) => {}
    }
    headers
}

fn refuse(place: &Place<'_>, error: &PullError) -> Refusal {
    match error {
        PullError::Request(error) => malformed(error),
        PullError::Upstream(error) => upstream(place, error),
        PullError::Deadline(patience) => no_answer(place, *patience),
        PullError::Bypass => Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: Code::Unavailable,
            words:
                "the cache is turned off by the file BYPASS in its data directory; remove it to turn it on"
                    .to_owned(),
        },
        PullError::Range { size } => Refusal {
            status: StatusCode::RANGE_NOT_SATISFIABLE,
            code: Code::BlobUnknown,
            words: format!("the range begins beyond the blob's {size} bytes"),
        },
    }
}

fn malformed(error: &RequestError) -> Refusal {
    let (status, code, advice) = match error {
        RequestError::Method => (
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Unsupported,
            "this is a read-only mirror; push to the registry itself",
        ),
        RequestError::Body | RequestError::Absolute => {
            (StatusCode::BAD_REQUEST, Code::Unsupported, "send a GET or HEAD without a body")
        }
        RequestError::TooLong => (StatusCode::URI_TOO_LONG, Code::NameInvalid, "no reference is that long"),
        RequestError::Route(RouteError::Unknown) => {
            (StatusCode::NOT_FOUND, Code::Unsupported, "see the OCI distribution specification")
        }
        RequestError::Route(RouteError::Name(_)) => {
            (StatusCode::BAD_REQUEST, Code::NameInvalid, "check the image's name")
        }
        RequestError::Route(RouteError::Digest(DigestError::Algorithm)) => {
            (StatusCode::NOT_FOUND, Code::Unsupported, "ask the registry itself")
        }
        RequestError::Route(RouteError::Digest(_)) => {
            (StatusCode::BAD_REQUEST, Code::DigestInvalid, "check the digest")
        }
        RequestError::RepeatedNs => (StatusCode::BAD_REQUEST, Code::Unsupported, "name one registry"),
        RequestError::UnknownNs(_) => (
            StatusCode::NOT_FOUND,
            Code::NameUnknown,
            "containerd asks the registry itself; add an [[upstream]] to cache it",
        ),
        RequestError::NoNs => (
            StatusCode::NOT_FOUND,
            Code::NameUnknown,
            "say ?ns=REGISTRY, or set default = true on one [[upstream]]",
        ),
        RequestError::Catalog => (
            StatusCode::NOT_FOUND,
            Code::Unsupported,
            "it would tell everyone's names; ask the registry itself",
        ),
        RequestError::TagsNotServed => (
            StatusCode::NOT_FOUND,
            Code::ManifestUnknown,
            "the registry resolves them with the pod's own secret",
        ),
        RequestError::NotAccepted(_) => {
            (StatusCode::NOT_FOUND, Code::ManifestUnknown, "the registry itself may convert it")
        }
    };
    Refusal { status, code, words: format!("{error}; {advice}.") }
}

fn upstream(place: &Place<'_>, error: &UpstreamError) -> Refusal {
    let Place { registry, repository, unknown } = place;
    let (status, code, words) = match error {
        UpstreamError::NotFound => (
            StatusCode::NOT_FOUND,
            *unknown,
            format!(
                "{registry}/{repository}: {registry} says there is no such thing; containerd now asks it too."
            ),
        ),
        UpstreamError::Private(status) => (
            StatusCode::NOT_FOUND,
            Code::Denied,
            format!(
                "{registry}/{repository} is not public (upstream {status}); containerd now asks {registry} with the pod's own \
                 secret. If the pull fails, check imagePullSecrets."
            ),
        ),
        UpstreamError::Limited(wait) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Code::Toomanyrequests,
            format!(
                "{registry} limits our rate and is left alone for {}s; containerd now goes direct. If the pull fails too, wait \
                 or give the upstream a credential.",
                wait.unwrap_or(crate::upstream::breaker::QUIET).as_secs()
            ),
        ),
        UpstreamError::Banned => (
            StatusCode::NOT_FOUND,
            *unknown,
            format!(
                "{registry} sent wrong bytes for this digest a moment ago; containerd now asks it directly."
            ),
        ),
        UpstreamError::UnsupportedType(_) | UpstreamError::TooLarge => (
            StatusCode::NOT_FOUND,
            *unknown,
            format!("{registry}/{repository}: {error}; containerd now goes direct."),
        ),
        UpstreamError::NoAnswer(patience) => return no_answer(place, *patience),
        UpstreamError::Status(_)
        | UpstreamError::Connect(_)
        | UpstreamError::Forbidden(_)
        | UpstreamError::Unusable(_)
        | UpstreamError::Broken(_)
        | UpstreamError::Idle(_)
        | UpstreamError::Resting
        | UpstreamError::WrongBytes(_)
        | UpstreamError::Credential(_)
        | UpstreamError::TokenServer(_)
        | UpstreamError::Exhausted(_)
        | UpstreamError::Abandoned => (
            StatusCode::SERVICE_UNAVAILABLE,
            Code::Unavailable,
            format!("{registry} could not be used ({error}); containerd now goes direct."),
        ),
    };
    Refusal { status, code, words }
}

fn no_answer(place: &Place<'_>, patience: Duration) -> Refusal {
    let words = format!(
        "{} gave no answer in {}s; containerd now goes direct.",
        place.registry,
        patience.as_secs_f64()
    );
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, code: Code::Unavailable, words }
}
