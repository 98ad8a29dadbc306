//! From a request to the one that answers it: what is not of the distribution API, or breaks its grammar, is
//! refused here with words, and nothing of it reaches the registry. Must not decide about limits.

mod places;
mod put;
mod request;

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use larder_wire::name::Repository;
use larder_wire::route::{Reference, Route};

use crate::body::Body;
use crate::caller::Caller;
use crate::config::Config;
use crate::forward;
use crate::metrics::Metrics;
use crate::policy::PolicyWatch;
use crate::refuse::Refusal;
use crate::sizes::Sizes;
use crate::tags::Tags;
use crate::uploads::{self, Sessions};
use crate::upstream::Upstream;
pub use places::{Place, Places};

/// Everything that a request may need.
pub struct Gateway {
    pub config: Config,
    pub upstream: Arc<Upstream>,
    pub policy: PolicyWatch,
    pub sizes: Arc<Sizes>,
    pub tags: Tags,
    pub metrics: Arc<Metrics>,
    pub sessions: Sessions,
    pub places: Places,
}

/// The connection that a request came by.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub remote: IpAddr,
    /// `http` or `https`
    pub scheme: &'static str,
}

/// A request that may go on: its route is known, its headers are the client's own and none is left of the
/// connection's.
pub struct Asked {
    pub request: Request<Incoming>,
    pub caller: Caller,
    pub origin: Origin,
    /// Held until the answer's last byte.
    pub place: Place,
}

/// Answers one request.
pub async fn answer(
    gateway: &Arc<Gateway>,
    origin: Origin,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let route = match request::check(&request) {
        Ok(route) => route,
        Err(refusal) => return refused(&request, refusal),
    };
    let place = match gateway.places.take(&gateway.metrics, request.method()).await {
        Ok(place) => place,
        Err(refusal) => return refused(&request, refusal),
    };
    forward::headers::strip(request.headers_mut());
    let caller = Caller::new(request.headers(), origin.remote);
    let asked = Asked { request, caller, origin, place };
    match (route, asked.request.method()) {
        (Route::Manifest(name, reference), &Method::PUT) => {
            put::manifest(gateway, name, reference, asked).await
        }
        (Route::Manifest(name, reference), _) => manifest(gateway, &name, &reference, asked).await,
        (Route::Uploads(name), _) => uploads::answer(gateway, name, asked).await,
        (Route::Blob(_, digest), _) => forward::blob(gateway, &digest, asked).await,
        (Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..), _) => {
            forward::through(gateway, asked).await
        }
    }
}

/// Reads and deletions of manifests, of which the counts should know.
async fn manifest(
    gateway: &Gateway,
    name: &Repository,
    reference: &Reference,
    asked: Asked,
) -> Response<Body> {
    let (method, caller) = (asked.request.method().clone(), asked.caller.clone());
    if method == Method::HEAD {
        gateway.tags.touch(name, &caller);
    }
    let response = forward::through(gateway, asked).await;
    if method == Method::DELETE && response.status().is_success() {
        match reference {
            Reference::Tag(tag) => gateway.tags.deleted_tag(name, tag, &caller),
            Reference::Digest(digest) => gateway.tags.deleted_digest(name, digest, &caller),
        }
    }
    response
}

/// A refusal of a request whose body, where there is one, stays unread.
fn refused(request: &Request<Incoming>, refusal: Refusal) -> Response<Body> {
    if http_body::Body::is_end_stream(request.body()) {
        refusal.into_response()
    } else {
        refusal.into_closing_response()
    }
}

#[cfg(test)]
pub(crate) mod tests;
