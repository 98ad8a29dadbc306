//! One request to an upstream: its address, its challenge, its redirects, and whether the reply can be used at all.
//! Must not retry but for a fresh token.

use std::sync::{Arc, PoisonError};

use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    IF_RANGE, LOCATION, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use larder_wire::digest::Digest;
use larder_wire::name::Repository;
use larder_wire::route::Reference;
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use super::Upstream;
use super::auth::{Challenge, Credential, Fetched, Identity, TokenKey, bearer, parse};
use super::breaker::Lane;
use crate::error::UpstreamError;
use crate::flight::Role;
use crate::stats::Kind;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Manifest(Reference),
    Blob(Digest),
    /// The query to pass on, `?` included, without `ns`.
    Tags(String),
    Referrers(Digest, String),
}

#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub repository: Repository,
    pub target: Target,
    pub method: Method,
    /// Go on at this byte, of the thing with this entity tag where there is one.
    pub resume: Option<(u64, Option<HeaderValue>)>,
    /// Ask for one byte: it is only looked whether the thing is there.
    pub first_byte: bool,
}

/// A reply that can be used. Whoever reads the body holds the permit as long.
pub(crate) struct Reply {
    pub response: Response<Incoming>,
    pub permit: Option<OwnedSemaphorePermit>,
    /// Of the registry's own reply, where a redirect's target does not say.
    pub digest: Option<Digest>,
}

/// What a request showed of our rights.
enum Shown {
    Nothing,
    Credential,
    /// Which token, and whether it was fetched for this request.
    Token(TokenKey, u64, Fetched),
}

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const REDIRECTS: usize = 5;
/// One fixed list, so that a registry never converts for us; what a client accepts is looked at afterwards.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

impl Target {
    pub(crate) fn lane(&self) -> Lane {
        match self {
            Self::Blob(_) => Lane::Blob,
            Self::Manifest(_) | Self::Tags(_) | Self::Referrers(..) => Lane::Manifest,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Manifest(Reference::Tag(_)) => Kind::Tag,
            Self::Manifest(Reference::Digest(_)) => Kind::Manifest,
            Self::Blob(_) => Kind::Blob,
            Self::Tags(_) | Self::Referrers(..) => Kind::List,
        }
    }

    /// What stands in the log.
    pub(crate) fn reference(&self) -> String {
        match self {
            Self::Manifest(reference) => reference.to_string(),
            Self::Blob(digest) | Self::Referrers(digest, _) => digest.to_string(),
            Self::Tags(_) => "tags/list".to_owned(),
        }
    }

    /// The digest that the bytes must have, where it is known.
    fn digest(&self) -> Option<Digest> {
        match self {
            Self::Blob(digest) | Self::Manifest(Reference::Digest(digest)) => Some(*digest),
            Self::Manifest(Reference::Tag(_)) | Self::Tags(_) | Self::Referrers(..) => None,
        }
    }

    fn path(&self, repository: &Repository) -> String {
        match self {
            Self::Manifest(reference) => format!("{repository}/manifests/{reference}"),
            Self::Blob(digest) => format!("{repository}/blobs/{digest}"),
            Self::Tags(query) => format!("{repository}/tags/list{query}"),
            Self::Referrers(digest, query) => format!("{repository}/referrers/{digest}{query}"),
        }
    }
}

impl Ask {
    pub(crate) fn get(repository: &Repository, target: Target) -> Self {
        Self { repository: repository.clone(), target, method: Method::GET, resume: None, first_byte: false }
    }

    pub(crate) fn head(repository: &Repository, target: Target) -> Self {
        Self { method: Method::HEAD, ..Self::get(repository, target) }
    }
}

impl Reply {
    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    pub(crate) fn media_type(&self) -> Option<String> {
        let text = self.headers().get(CONTENT_TYPE)?.to_str().ok()?;
        Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// A strong entity tag, which alone may stand in If-Range.
    pub(crate) fn etag(&self) -> Option<HeaderValue> {
        self.headers().get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned()
    }

    /// Start and total of a 206.
    pub(crate) fn content_range(&self) -> Option<(u64, Option<u64>)> {
        let text = self.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
        let (range, total) = text.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
    }
}

impl Upstream {
    /// Sends with a token or credential; a 401 is answered once, by what its challenge asks for, unless nothing could be
    /// sent that was not sent already.
    pub(super) async fn authorized(
        self: &Arc<Self>,
        ask: &Ask,
        identity: Identity,
    ) -> Result<Reply, UpstreamError> {
        let scope = format!("repository:{}{}:pull", self.prefix(), ask.repository);
        let known = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let credential = self.credential(identity).await?;
        let mut shown = Shown::Nothing;
        let mut header = None;
        if let Some(challenge) = &known {
            (header, shown) = self.answer(challenge, &scope, credential.clone()).await?;
        }
        let reply = self.redirected(ask, header).await?;
        if reply.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        let Some(challenge) = parse(reply.headers()) else { return Ok(reply) };
        drop(reply);
        if let Shown::Token(key, serial, _) = &shown {
            self.tokens.drop_token(key, *serial);
        }
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge.clone());
        let renewed = self.credential(identity).await?;
        let fingerprint = |credential: &Option<Credential>| credential.as_ref().map(Credential::fingerprint);
        let same = known.as_ref().is_some_and(|known| known.same_realm(&challenge))
            && fingerprint(&credential) == fingerprint(&renewed);
        let exhausted = match shown {
            Shown::Nothing => challenge == Challenge::Basic && renewed.is_none(),
            Shown::Token(_, _, Fetched::Before) => false,
            Shown::Token(_, _, Fetched::Now) | Shown::Credential => same,
        };
        if exhausted {
            return Err(UpstreamError::Private(401));
        }
        let (header, _) = self.answer(&challenge, &scope, renewed).await?;
        self.redirected(ask, header).await
    }

    /// Whether the upstream says anything at all.
    pub(super) async fn ping(&self) -> bool {
        let Ok(uri) = format!("{}/v2/", self.origin()).parse() else { return false };
        let reply = self.client.send(self.client.request(Method::GET, uri)).await;
        reply.is_ok_and(|reply| !reply.status().is_server_error())
    }

    /// The Authorization header, and what it shows.
    async fn answer(
        self: &Arc<Self>,
        challenge: &Challenge,
        scope: &str,
        credential: Option<Credential>,
    ) -> Result<(Option<HeaderValue>, Shown), UpstreamError> {
        let Some(key) = TokenKey::new(challenge, scope, credential.as_ref()) else {
            let header = credential.map(|credential| credential.basic());
            let shown = if header.is_some() { Shown::Credential } else { Shown::Nothing };
            return Ok((header, shown));
        };
        self.allowed(Lane::Token)?;
        let (token, fetched) = match self.tokens.token(key.clone(), &self.client, credential).await {
            Ok(token) => token,
            Err((role, error)) if error.is_failure() => {
                if role == Role::Leader {
                    self.failed(Lane::Token);
                }
                return Err(UpstreamError::TokenServer(Arc::new(error)));
            }
            Err((_, error)) => return Err(error),
        };
        self.breakers.succeeded(Lane::Token);
        Ok((Some(bearer(&token.secret)), Shown::Token(key, token.serial, fetched)))
    }

    /// The node's credential, read anew: it may be rotated at any time, and misses are rare.
    async fn credential(&self, identity: Identity) -> Result<Option<Credential>, UpstreamError> {
        match identity {
            Identity::Anonymous => Ok(None),
            Identity::Node => {
                self.files.read().await.map_err(|error| UpstreamError::Credential(Arc::new(error)))
            }
        }
    }

    /// Follows redirects, without Authorization once the host changes.
    async fn redirected(
        &self,
        ask: &Ask,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, UpstreamError> {
        let text = format!("{}{}/{}", self.origin(), self.root(), ask.target.path(&ask.repository));
        let mut url =
            Url::parse(&text).map_err(|_| UpstreamError::Unusable("its configured url is no URL"))?;
        let mut authorization = authorization;
        let mut digest = None;
        for _ in 0..=REDIRECTS {
            let response = self.once(ask, &url, authorization.clone()).await?;
            digest = digest.or_else(|| told_digest(response.headers()));
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Reply { response, permit: None, digest });
            }
            let next = next_hop(&url, response.headers(), self.settings.url.tls)?;
            if (next.host(), next.port_or_known_default()) != (url.host(), url.port_or_known_default()) {
                authorization = None;
            }
            url = next;
        }
        Err(UpstreamError::Unusable("it redirects more than 5 times"))
    }

    async fn once(
        &self,
        ask: &Ask,
        url: &Url,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let uri =
            url.as_str().parse().map_err(|_| UpstreamError::Unusable("it redirects to what is no URI"))?;
        let mut request = self.client.request(ask.method.clone(), uri);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if matches!(ask.target, Target::Manifest(_)) {
            request = request.header(ACCEPT, MANIFEST_TYPES);
        }
        if ask.first_byte {
            request = request.header(RANGE, "bytes=0-0");
        }
        if let Some((from, etag)) = &ask.resume {
            request = request.header(RANGE, format!("bytes={from}-"));
            if let Some(etag) = etag {
                request = request.header(IF_RANGE, etag.clone());
            }
        }
        let reply = self.client.send(request).await;
        self.stats.asked(ask.target.kind(), reply.as_ref().ok().map(|reply| reply.status()));
        reply
    }

    fn origin(&self) -> String {
        let url = &self.settings.url;
        let port = url.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", url.scheme(), url.host)
    }

    /// Where the API begins: a configured path is the whole of it, as containerd's `override_path` has it.
    fn root(&self) -> &str {
        if self.settings.url.path.is_empty() { "/v2" } else { &self.settings.url.path }
    }

    /// What a path below `/v2/` puts before every repository's name, in token scopes too.
    fn prefix(&self) -> String {
        let below = self.settings.url.path.strip_prefix("/v2/");
        below.map(|prefix| format!("{prefix}/")).unwrap_or_default()
    }
}

/// What a reply says its bytes are. What is no digest we can verify says nothing; the bytes are hashed in any case.
fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

fn next_hop(from: &Url, headers: &HeaderMap, https_only: bool) -> Result<Url, UpstreamError> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or(UpstreamError::Unusable("it redirects without saying where"))?;
    let next = from.join(location).map_err(|_| UpstreamError::Unusable("it redirects to what is no URL"))?;
    let good = match next.scheme() {
        "https" => true,
        "http" => !https_only && from.scheme() == "http",
        _ => false,
    };
    if !good || !next.username().is_empty() || next.password().is_some() {
        return Err(UpstreamError::Unusable("it redirects away from https"));
    }
    Ok(next)
}

/// Sorts replies: what can be used, and why the others cannot.
pub(super) fn check(ask: &Ask, reply: Reply) -> Result<Reply, UpstreamError> {
    let status = reply.response.status().as_u16();
    match status {
        200 => {}
        206 if ask.resume.is_some() || ask.first_byte => {}
        401 | 403 => return Err(UpstreamError::Private(status)),
        404 | 410 => return Err(UpstreamError::NotFound),
        429 => return Err(UpstreamError::Limited(super::retry_after(reply.headers()))),
        503 if reply.headers().contains_key(http::header::RETRY_AFTER) => {
            return Err(UpstreamError::Limited(super::retry_after(reply.headers())));
        }
        other => return Err(UpstreamError::Status(other)),
    }
    let encoding = reply.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(UpstreamError::Unusable("it sent an encoded body though none was asked for"));
    }
    if reply.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html")) {
        return Err(UpstreamError::Unusable("it sent a web page"));
    }
    let told = ask.target.digest().zip(reply.digest);
    if told.is_some_and(|(asked, told)| asked.algorithm() == told.algorithm() && asked != told) {
        return Err(UpstreamError::Unusable("it names another digest than was asked for"));
    }
    Ok(reply)
}
