//! The gateway's own questions to the registry, each made for one client with that client's credential, or
//! with the gateway's own. Must not follow a redirect with a credential, and must not keep an answer.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LINK, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};
use larder_wire::route::Reference;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use url::Url;

use super::{HEAD_WAIT, Upstream, UpstreamError};
use crate::body;
use crate::caller::Caller;

/// What a registry says it stored something as.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// Registries before 3.1 answer with every tag that there is, however few are asked for.
const LONGEST_LIST: usize = 16 << 20;
/// Every kind of manifest, so that none is converted on the way.
const MANIFESTS: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, */*",
);

/// A manifest that the registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Absent when the registry does not say.
    pub digest: Option<Digest>,
    /// Bytes; absent when the registry does not say.
    pub size: Option<u64>,
    /// Without parameters; empty when the registry does not say.
    pub media_type: String,
}

/// Tags as a registry lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagsPage {
    pub tags: Vec<Tag>,
    /// The `last` of the next page, when there is one.
    pub next: Option<String>,
}

/// Repositories as a registry lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub repositories: Vec<Repository>,
    /// The `last` of the next page, when there is one.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct TagsJson {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CatalogJson {
    repositories: Option<Vec<String>>,
}

impl Upstream {
    /// The size of a blob in a repository, in bytes; `None` when it is not there.
    ///
    /// # Errors
    /// When the registry gives no usable answer to this client, a refusal among them.
    pub async fn head_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        caller: &Caller,
    ) -> Result<Option<u64>, UpstreamError> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let reply = self.ask(Method::HEAD, &path, caller.authorization.as_ref(), None).await?;
        let reply = match redirected(&reply) {
            Some(storage) => self.head_storage(storage).await?,
            None => reply,
        };
        match reply.status() {
            StatusCode::OK => match length(reply.headers()) {
                Some(size) => Ok(Some(size)),
                None => Err(UpstreamError::Unusable("it does not say how long a blob is")),
            },
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(UpstreamError::Status(status)),
        }
    }

    /// What a tag or digest stands for; `None` when it is not there.
    ///
    /// # Errors
    /// When the registry gives no usable answer to this client.
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        caller: &Caller,
    ) -> Result<Option<Found>, UpstreamError> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let reply = self.ask(Method::HEAD, &path, caller.authorization.as_ref(), Some(MANIFESTS)).await?;
        match reply.status() {
            StatusCode::OK => Ok(Some(found(reply.headers()))),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(UpstreamError::Status(status)),
        }
    }

    /// A manifest of at most `max` bytes; `None` when it is not there.
    ///
    /// # Errors
    /// When the registry gives no usable answer to this client, or a longer one.
    pub async fn get_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        max: usize,
        caller: &Caller,
    ) -> Result<Option<(Found, Bytes)>, UpstreamError> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let reply = self.ask(Method::GET, &path, caller.authorization.as_ref(), Some(MANIFESTS)).await?;
        match reply.status() {
            StatusCode::OK => {
                let found = found(reply.headers());
                Ok(Some((found, body::whole(reply.into_body(), max).await?)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(UpstreamError::Status(status)),
        }
    }

    /// A page of a repository's tags, of `n` if the registry knows pages, after `last`; `None` when there is
    /// no such repository.
    ///
    /// # Errors
    /// When the registry gives no usable answer for this credential.
    pub async fn tags_page(
        &self,
        repository: &Repository,
        n: usize,
        last: Option<&str>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Option<TagsPage>, UpstreamError> {
        let path = format!("/v2/{repository}/tags/list?{}", page(n, last));
        let Some((TagsJson { tags }, next)) = self.list(&path, authorization).await? else { return Ok(None) };
        let tags = tags.unwrap_or_default().iter().filter_map(|tag| tag.parse().ok()).collect();
        Ok(Some(TagsPage { tags, next }))
    }

    /// A page of the registry's repositories, after `last`.
    ///
    /// # Errors
    /// When the registry gives no usable answer for this credential, or has no catalog.
    pub async fn catalog_page(
        &self,
        n: usize,
        last: Option<&str>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Listing, UpstreamError> {
        let path = format!("/v2/_catalog?{}", page(n, last));
        let listed = self.list(&path, authorization).await?;
        let (CatalogJson { repositories }, next) =
            listed.ok_or(UpstreamError::Status(StatusCode::NOT_FOUND))?;
        let repositories =
            repositories.unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Listing { repositories, next })
    }

    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Option<(T, Option<String>)>, UpstreamError> {
        let reply = self.ask(Method::GET, path, authorization, None).await?;
        match reply.status() {
            StatusCode::OK => {
                let next = next_page(reply.headers());
                let body = body::whole(reply.into_body(), LONGEST_LIST).await?;
                let list = serde_json::from_slice(&body);
                Ok(Some((list.map_err(|_| UpstreamError::Unusable("its list is no JSON list"))?, next)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(UpstreamError::Status(status)),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&HeaderValue>,
        accept: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut request = request(method, path)?;
        let headers = request.headers_mut();
        headers.extend(accept.map(|accept| (ACCEPT, accept)));
        headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
        self.send(request).await
    }

    /// Object storage knows as well how long a blob is, and needs no credential for an address that was
    /// signed for us.
    async fn head_storage(&self, storage: Url) -> Result<Response<Incoming>, UpstreamError> {
        let sending = self.pool().request(request(Method::HEAD, storage.as_str())?);
        let sent = timeout(HEAD_WAIT, sending).await;
        sent.map_err(|_| UpstreamError::Silent(HEAD_WAIT))?.map_err(UpstreamError::from)
    }
}

fn request(method: Method, uri: &str) -> Result<Request<body::Body>, UpstreamError> {
    let mut request = Request::new(body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(uri).map_err(|_| UpstreamError::Unusable("it leads to no address"))?;
    let agent = HeaderValue::from_static(concat!("larder-gateway/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(USER_AGENT, agent);
    Ok(request)
}

/// Where a redirect to another host leads.
fn redirected<B>(reply: &Response<B>) -> Option<Url> {
    let redirect = matches!(reply.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = reply.headers().get(LOCATION).filter(|_| redirect)?;
    let storage = Url::parse(location.to_str().ok()?).ok()?;
    matches!(storage.scheme(), "http" | "https").then_some(storage)
}

fn found(headers: &HeaderMap) -> Found {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let media_type =
        text(CONTENT_TYPE.as_str()).and_then(|value| value.split(';').next()).unwrap_or_default();
    Found {
        digest: text(CONTENT_DIGEST).and_then(|digest| digest.parse().ok()),
        size: length(headers),
        media_type: media_type.trim().to_owned(),
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn page(n: usize, last: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("n", &n.to_string());
    if let Some(last) = last {
        query.append_pair("last", last);
    }
    query.finish()
}

/// The `last` of `Link: </v2/…?last=…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    let (_, query) = target.split_once('?')?;
    let last = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "last");
    last.map(|(_, last)| last.into_owned())
}
