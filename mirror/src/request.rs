//! HTTP request -> what is asked, parsed once, so that everything behind it can rely on it. Works on the raw path and
//! query. Must not look anything up but the configured upstreams.

mod range;

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_LENGTH, IF_NONE_MATCH, IF_RANGE, RANGE, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use larder_wire::name::{Registry, Repository};
use larder_wire::proof::{CANARY_PATH, CHALLENGE, is_challenge};
use larder_wire::route::{Reference, Route};

use crate::cache::Upstreams;
use crate::error::RequestError;
use crate::upstream::{Target, Upstream};

pub(crate) use range::{Range, Span};

/// One well-formed request.
pub(crate) struct PullRequest {
    pub what: What,
    pub head_only: bool,
    pub range: Option<Range>,
    pub if_range: Option<HeaderValue>,
    pub if_none_match: Vec<HeaderValue>,
    accept: Vec<HeaderValue>,
}

pub(crate) enum What {
    /// `/v2/`, and the probe's manifest, with the challenge to answer.
    Base(Option<String>),
    Canary(Option<String>),
    Pull(Pull),
}

/// Something of an upstream's.
pub(crate) struct Pull {
    pub upstream: Arc<Upstream>,
    pub repository: Repository,
    pub target: Target,
}

const LONGEST_PATH: usize = 8 << 10;

impl PullRequest {
    pub(crate) fn read<B>(request: &Request<B>, upstreams: &Upstreams) -> Result<Self, RequestError> {
        let uri = request.uri();
        if uri.path_and_query().map_or(0, |path| path.as_str().len()) > LONGEST_PATH {
            return Err(RequestError::TooLong);
        }
        let head_only = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Err(RequestError::Method),
        };
        let headers = request.headers();
        let sized = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        if sized || headers.contains_key(TRANSFER_ENCODING) || request.version() < Version::HTTP_10 {
            return Err(RequestError::Body);
        }
        if uri.authority().is_some() {
            return Err(RequestError::Absolute);
        }
        Ok(Self {
            what: What::read(uri.path(), uri.query().unwrap_or(""), headers, upstreams)?,
            head_only,
            range: headers.get(RANGE).and_then(|value| Range::parse(value.to_str().ok()?)),
            if_range: headers.get(IF_RANGE).cloned(),
            if_none_match: headers.get_all(IF_NONE_MATCH).iter().cloned().collect(),
            accept: headers.get_all(ACCEPT).iter().cloned().collect(),
        })
    }

    /// Whether the client takes a manifest of this type. Saying nothing is taking everything.
    pub(crate) fn accepts(&self, media_type: &str) -> bool {
        let texts: Vec<&str> = self.accept.iter().filter_map(|value| value.to_str().ok()).collect();
        let types = texts
            .iter()
            .flat_map(|text| text.split(','))
            .map(|one| one.split(';').next().unwrap_or("").trim());
        let mut named = types.filter(|one| !one.is_empty()).peekable();
        named.peek().is_none()
            || named.any(|one| matches!(one, "*/*" | "application/*") || one.eq_ignore_ascii_case(media_type))
    }
}

impl What {
    fn read(
        path: &str,
        query: &str,
        headers: &HeaderMap,
        upstreams: &Upstreams,
    ) -> Result<Self, RequestError> {
        let challenge =
            || headers.get(CHALLENGE)?.to_str().ok().filter(|text| is_challenge(text)).map(str::to_owned);
        if path == CANARY_PATH {
            return Ok(Self::Canary(challenge()));
        }
        let (repository, target): (Repository, fn(&str) -> Target) = match Route::parse(path)? {
            Route::Base => return Ok(Self::Base(challenge())),
            Route::Catalog => return Err(RequestError::Catalog),
            Route::Uploads(_) => return Err(RequestError::Method),
            Route::Manifest(name, reference) => {
                return Self::pull(query, headers, upstreams, name, |_| Target::Manifest(reference));
            }
            Route::Blob(name, digest) => {
                return Self::pull(query, headers, upstreams, name, |_| Target::Blob(digest));
            }
            Route::Referrers(name, digest) => {
                return Self::pull(query, headers, upstreams, name, |rest| Target::Referrers(digest, rest));
            }
            Route::Tags(name) => (name, |rest| Target::Tags(rest.to_owned())),
        };
        Self::pull(query, headers, upstreams, repository, |rest| target(&rest))
    }

    fn pull(
        query: &str,
        headers: &HeaderMap,
        upstreams: &Upstreams,
        repository: Repository,
        target: impl FnOnce(String) -> Target,
    ) -> Result<Self, RequestError> {
        let (ns, rest) = split_ns(query)?;
        let upstream = match ns {
            Some(ns) => upstreams.find(&ns).ok_or(RequestError::UnknownNs(ns))?,
            None => upstreams.default_upstream().ok_or(RequestError::NoNs)?,
        };
        if headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"containerd/")) {
            upstream.stats.containerd_seen.store(crate::store::now(), std::sync::atomic::Ordering::Relaxed);
        }
        let target = target(rest);
        if matches!(target, Target::Manifest(Reference::Tag(_))) && !upstream.resolves() {
            return Err(RequestError::TagsNotServed);
        }
        let repository = official(&upstream.settings.registry, repository);
        Ok(Self::Pull(Pull { upstream, repository, target }))
    }
}

/// Docker Hub's official images under their full name, for clients that do not expand it.
pub(crate) fn official(registry: &Registry, repository: Repository) -> Repository {
    if registry.as_str() != "docker.io" || repository.as_str().contains('/') {
        return repository;
    }
    format!("library/{repository}").parse().unwrap_or(repository)
}

/// The one `ns` of a query, decoded once, and the rest of the query as it stood.
fn split_ns(query: &str) -> Result<(Option<String>, String), RequestError> {
    let mut ns = None;
    let mut rest = String::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key) != "ns" {
            rest.push(if rest.is_empty() { '?' } else { '&' });
            rest.push_str(pair);
        } else if ns.replace(decode(value)).is_some() {
            return Err(RequestError::RepeatedNs);
        }
    }
    Ok((ns, rest))
}

/// Percent-decoding, once. What is no text afterwards equals no registry's name.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                bytes.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ns_is_taken_out_of_the_query_and_decoded_once() {
        let (ns, rest) = split_ns("n=5&ns=reg.test%3A5000&last=a%2Fb").unwrap();
        assert_eq!((ns.as_deref(), rest.as_str()), (Some("reg.test:5000"), "?n=5&last=a%2Fb"));
        assert_eq!(split_ns("ns=a&n%73=b"), Err(RequestError::RepeatedNs));
        assert_eq!(split_ns("ns=a%2541").unwrap().0.as_deref(), Some("a%41"), "once");
        assert_eq!(split_ns("").unwrap(), (None, String::new()));
    }

    #[test]
    fn accepting_nothing_in_particular_is_accepting_all() {
        let request = |accept: &[&str]| PullRequest {
            what: What::Base(None),
            head_only: false,
            range: None,
            if_range: None,
            if_none_match: Vec::new(),
            accept: accept.iter().map(|text| text.parse().unwrap()).collect(),
        };
        assert!(request(&[]).accepts("a/b"));
        assert!(request(&["x/y, */*;q=0.1"]).accepts("a/b"));
        assert!(request(&["x/y", "a/b;q=1"]).accepts("a/b"));
        assert!(!request(&["x/y, a/c"]).accepts("a/b"));
    }

    proptest! {
        #[test]
        fn no_query_makes_the_reader_panic(query in "\\PC{0,60}") {
            let _ = split_ns(&query);
        }
    }
}
