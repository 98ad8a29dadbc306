//! What was found -> the HTTP reply: exact headers, conditions and ranges, and a body that is never copied where the
//! kernel can send it. Raw upstream bytes, never encoded. Must not look anything up.

pub(crate) mod body;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use larder_wire::digest::Digest;
use larder_wire::proof::PROOF;

use crate::cache::Cache;
use crate::error::{PullError, UpstreamError};
use crate::flight::{Follower, Head};
use crate::request::{PullRequest, Span, What};
use crate::stats::{Account, Entry, Kind, Source};
use crate::store::{Manifest, OpenBlob};
use crate::upstream::Reply as UpstreamReply;

pub(crate) use body::Body;

/// The answer to a request, and where it came from.
pub(crate) struct Found {
    pub content: Content,
    pub source: Source,
    /// How long ago upstream last confirmed it, where it could not be asked.
    pub stale: Option<Duration>,
}

pub(crate) enum Content {
    Base(Option<String>),
    Canary(Option<String>),
    Manifest(Arc<Manifest>),
    /// What a HEAD of a tag needs.
    Described {
        digest: Digest,
        size: u64,
        media_type: String,
    },
    File {
        digest: Digest,
        blob: Arc<OpenBlob>,
    },
    Growing {
        digest: Digest,
        follower: Box<Follower>,
        head: Head,
    },
    /// What a HEAD of a blob needs.
    Sized {
        digest: Digest,
        size: u64,
    },
    /// Upstream's own reply, with the headers that go on.
    Passed {
        headers: HeaderMap,
        reply: Box<UpstreamReply>,
    },
}

/// A reply that only lacks its entry in the log.
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: body::Source,
    pub source: Source,
    pub stale: Option<Duration>,
    pub error: Option<String>,
}

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const STALE: HeaderName = HeaderName::from_static("larder-stale");
const OCTETS: &str = "application/octet-stream";
const PASSED_IDLE: Duration = Duration::from_secs(30);

impl Found {
    pub(crate) fn new(content: Content, source: Source) -> Self {
        Self { content, source, stale: None }
    }
}

impl Content {
    /// Bytes, where they are known.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::Manifest(manifest) => Some(manifest.bytes.len() as u64),
            Self::Described { size, .. } | Self::Sized { size, .. } => Some(*size),
            Self::File { blob, .. } => Some(blob.size),
            Self::Growing { head, .. } => head.size,
            Self::Base(_) | Self::Canary(_) | Self::Passed { .. } => None,
        }
    }

    fn digest(&self) -> Option<Digest> {
        match self {
            Self::Manifest(manifest) => Some(*manifest.digest()),
            Self::Described { digest, .. }
            | Self::File { digest, .. }
            | Self::Growing { digest, .. }
            | Self::Sized { digest, .. } => Some(*digest),
            Self::Base(_) | Self::Canary(_) | Self::Passed { .. } => None,
        }
    }
}

/// Says what was found, to this client.
pub(crate) fn reply(request: &PullRequest, found: Found) -> Result<Reply, PullError> {
    let Found { content, source, stale } = found;
    let mut headers = api_headers();
    let size = content.size();
    if let Some(age) = stale {
        headers.insert(STALE, number(age.as_secs()));
    }
    let mut status = StatusCode::OK;
    let mut span = None;
    if let Some(digest) = content.digest() {
        let etag = name_it(&mut headers, &digest);
        if request.if_none_match.iter().any(|tag| matches(tag, &digest)) {
            let body = body::Source::Empty;
            return Ok(Reply { status: StatusCode::NOT_MODIFIED, headers, body, source, stale, error: None });
        }
        span = part(request, &content, &etag)?;
    }
    match (size, span) {
        (Some(size), Some(Span { from, to })) => {
            status = StatusCode::PARTIAL_CONTENT;
            headers.insert(CONTENT_RANGE, text(&format!("bytes {from}-{}/{size}", to - 1)));
            headers.insert(CONTENT_LENGTH, number(to - from));
        }
        (Some(size), None) => drop(headers.insert(CONTENT_LENGTH, number(size))),
        (None, _) => {}
    }
    let body = bring(content, span, &mut headers);
    let body = if request.head_only { body::Source::Empty } else { body };
    Ok(Reply { status, headers, body, source, stale, error: None })
}

/// The headers of every reply of ours.
pub(crate) fn api_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers
}

impl Reply {
    /// Counts the request and gives the reply its body.
    pub(crate) fn finish(
        self,
        cache: &Cache,
        request: Option<&PullRequest>,
        started: Instant,
        method: &Method,
    ) -> Response<Body> {
        let pull = request.and_then(|request| match &request.what {
            What::Pull(pull) => Some(pull),
            What::Base(_) | What::Canary(_) => None,
        });
        let account = Account::open(Entry {
            started,
            registry: pull.map_or_else(|| cache.stats.registry("-"), |pull| Arc::clone(&pull.upstream.stats)),
            kind: pull.map_or(Kind::List, |pull| pull.target.kind()),
            source: self.source,
            method: match *method {
                Method::GET => "GET",
                Method::HEAD => "HEAD",
                _ => "other",
            },
            repository: pull.map(|pull| pull.repository.to_string()).unwrap_or_default(),
            reference: pull.map(|pull| pull.target.reference()).unwrap_or_default(),
            status: self.status.as_u16(),
            stale: self.stale,
            error: self.error,
        });
        let mut response = Response::new(Body::new(self.body, account));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Names the content by its digest; the entity tag.
fn name_it(headers: &mut HeaderMap, digest: &Digest) -> HeaderValue {
    let digest = digest.to_string();
    let etag = text(&format!("\"{digest}\""));
    headers.insert(DOCKER_CONTENT_DIGEST, text(&digest));
    headers.insert(ETAG, etag.clone());
    etag
}

/// The part of a blob that is asked for. Manifests have no parts, nor has what is still of unknown length.
fn part(request: &PullRequest, content: &Content, etag: &HeaderValue) -> Result<Option<Span>, PullError> {
    let Some(range) = request.range else { return Ok(None) };
    let Some(size) = content.size() else {
        // A whole body where a later part was asked for could be joined to what the client has.
        let whole =
            request.head_only || range.begins_at_zero() || !matches!(content, Content::Growing { .. });
        let unknown = UpstreamError::Unusable("it does not say how large the blob is");
        return if whole { Ok(None) } else { Err(unknown.into()) };
    };
    let blob = matches!(content, Content::File { .. } | Content::Growing { .. } | Content::Sized { .. });
    let same = request.if_range.as_ref().is_none_or(|condition| condition == etag);
    if !blob || !same || request.head_only {
        return Ok(None);
    }
    range.of(size).map(Some).ok_or(PullError::Range { size })
}

/// The body, and the headers that only its kind has.
fn bring(content: Content, span: Option<Span>, headers: &mut HeaderMap) -> body::Source {
    match content {
        Content::Base(proof) => {
            prove(headers, proof);
            typed(headers, "application/json");
            headers.insert(CONTENT_LENGTH, number(2));
            body::Source::Bytes(Bytes::from_static(b"{}"))
        }
        Content::Canary(proof) => {
            prove(headers, proof);
            typed(headers, "application/vnd.oci.image.index.v1+json");
            const CANARY: &[u8] = b"{\"schemaVersion\":2,\"manifests\":[]}";
            headers.insert(CONTENT_LENGTH, number(CANARY.len() as u64));
            body::Source::Bytes(Bytes::from_static(CANARY))
        }
        Content::Manifest(manifest) => {
            typed(headers, &manifest.media_type);
            body::Source::Bytes(manifest.bytes.clone())
        }
        Content::Described { media_type, .. } => {
            typed(headers, &media_type);
            body::Source::Empty
        }
        Content::Sized { .. } => {
            blob_headers(headers, OCTETS);
            body::Source::Empty
        }
        Content::File { blob, .. } => {
            blob_headers(headers, OCTETS);
            let span = span.unwrap_or(Span { from: 0, to: blob.size });
            body::Source::File { region: Arc::clone(&blob.region), at: span.from, end: span.to }
        }
        Content::Growing { follower, head, .. } => {
            blob_headers(headers, head.media_type.as_deref().unwrap_or(OCTETS));
            let follower = match span {
                Some(span) => follower.range(span.from, span.to),
                None => *follower,
            };
            body::Source::Follow(Box::new(follower))
        }
        Content::Passed { headers: passed, reply } => {
            headers.extend(passed);
            if let Some(length) = reply.length() {
                headers.insert(CONTENT_LENGTH, number(length));
            }
            body::Source::passed(reply.response.into_body(), PASSED_IDLE, reply.permit)
        }
    }
}

fn prove(headers: &mut HeaderMap, proof: Option<String>) {
    if let Some(proof) = proof {
        headers.insert(HeaderName::from_static(PROOF), text(&proof));
    }
}

fn typed(headers: &mut HeaderMap, media_type: &str) {
    headers.insert(CONTENT_TYPE, text(media_type));
}

fn blob_headers(headers: &mut HeaderMap, media_type: &str) {
    typed(headers, media_type);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=31536000, immutable"));
}

/// Whether an If-None-Match names this digest: quoted or not, weak or strong, one of a list, or `*`.
fn matches(value: &HeaderValue, digest: &Digest) -> bool {
    let digest = digest.to_string();
    let tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"'))
        .any(|tag| tag == "*" || tag == digest)
}

fn number(value: u64) -> HeaderValue {
    HeaderValue::from(value)
}

/// A header's value; what cannot be one becomes empty rather than an error.
pub(crate) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}
