//! What goes to the registry and what comes back, streamed both ways: headers of the connection stay here,
//! addresses of the registry become the gateway's, everything else passes as it came. Must not hold a body,
//! and must not judge.

pub(crate) mod headers;

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use larder_wire::digest::Digest;
use larder_wire::oci::Code;
use tracing::{debug, warn};

use crate::admit::ManifestPut;
use crate::body::{self, Body, Flow, Passing};
use crate::refuse::{Reason, Refusal};
use crate::serve::{Asked, Gateway, Place};
use crate::upstream::UpstreamError;

/// Passes a request on and its answer back.
pub(crate) async fn through(gateway: &Gateway, asked: Asked) -> Response<Body> {
    let flow = Arc::new(Flow::default());
    match stream(gateway, asked, &flow, u64::MAX).await {
        Ok(answered) => answered.into_response(),
        Err(error) => failed(&error, &flow),
    }
}

/// The same for a blob, whose length the registry tells on the way.
pub(crate) async fn blob(gateway: &Gateway, digest: &Digest, asked: Asked) -> Response<Body> {
    let response = through(gateway, asked).await;
    if response.status() == StatusCode::OK
        && let Some(length) = length(response.headers())
    {
        gateway.sizes.observed(digest, length);
    }
    response
}

/// Passes a manifest on that is here as a whole.
///
/// # Errors
/// When the registry gave no answer.
pub(crate) async fn manifest(gateway: &Gateway, put: &ManifestPut) -> Result<Response<Body>, UpstreamError> {
    let mut request = Request::new(body::full(put.body.clone()));
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = Uri::from(put.target.clone());
    *request.headers_mut() = put.headers.clone();
    request.headers_mut().insert(CONTENT_LENGTH, put.body.len().into());
    let mut response = gateway.upstream.send(request).await?;
    headers::answered(response.headers_mut(), gateway.upstream.home());
    Ok(response.map(body::incoming))
}

/// An answer on its way, with the place of its request.
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    place: Place,
}

impl Answered {
    pub(crate) fn into_response(self) -> Response<Body> {
        let place = self.place;
        self.response.map(|body| Passing::new(body).keeping(place).boxed())
    }
}

/// Passes a request on and tells `flow` of its body, of which at most `most` bytes go on.
///
/// # Errors
/// When the registry gave no answer.
pub(crate) async fn stream(
    gateway: &Gateway,
    mut asked: Asked,
    flow: &Arc<Flow>,
    most: u64,
) -> Result<Answered, UpstreamError> {
    headers::forwarded(&mut asked);
    let Asked { mut request, place, .. } = asked;
    *request.version_mut() = Version::HTTP_11;
    let carries = !http_body::Body::is_end_stream(request.body());
    let sent = if carries {
        let request = request.map(|body| Passing::new(body).told(Arc::clone(flow), most).boxed());
        gateway.upstream.stream(request, flow).await
    } else {
        gateway.upstream.send(request.map(|_| body::empty())).await
    };
    let mut response = sent?;
    headers::answered(response.headers_mut(), gateway.upstream.home());
    Ok(Answered { response, place })
}

/// The answer to a request that could not be passed on.
pub(crate) fn failed(error: &UpstreamError, flow: &Flow) -> Response<Body> {
    if flow.broken() {
        debug!(error = chain(error), "a client stopped sending");
        let words = "the body stopped coming before its end; send it again.";
        return Refusal::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, Reason::Request, words)
            .into_closing_response();
    }
    warn!(error = chain(error), "a request could not be passed on");
    error.refusal().into_closing_response()
}

pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// An error and its sources, joined by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    std::iter::once(error.to_string()).chain(sources.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
