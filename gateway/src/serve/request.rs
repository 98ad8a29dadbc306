//! What must be right about a request before anything is done with it. Must not look into its body.

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use larder_wire::name::NameError;
use larder_wire::oci::Code;
use larder_wire::route::{Route, RouteError};

use crate::refuse::{Reason, Refusal};

/// The route of a request that may go on.
pub(super) fn check<B: Body>(request: &Request<B>) -> Result<Route, Refusal> {
    one_of(request.headers(), HOST.as_str())?;
    one_of(request.headers(), CONTENT_LENGTH.as_str())?;
    let route = Route::parse(request.uri().path()).map_err(|error| no_route(&error))?;
    let session = session(request.uri().path());
    if matches!(route, Route::Uploads(_)) && !session.is_none_or(is_session) {
        return Err(bad(Code::BlobUploadInvalid, "this is no upload's address; begin a new upload."));
    }
    let allowed = allowed(&route, session.is_some());
    if !allowed.contains(request.method()) {
        let words = format!("{} cannot be done here, only {}.", request.method(), listed(allowed));
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, Reason::Request, words));
    }
    let carries = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if !carries && !request.body().is_end_stream() {
        let words = format!("a {} carries no body here.", request.method());
        return Err(bad(Code::Unsupported, words));
    }
    Ok(route)
}

/// The part of an upload's path behind `/blobs/uploads/`; `None` where a new upload begins.
pub(crate) fn session(path: &str) -> Option<&str> {
    let (_, rest) = path.rsplit_once("/blobs/uploads")?;
    rest.strip_prefix('/').filter(|session| !session.is_empty())
}

/// One word as registries make them, and no step up or down the path.
fn is_session(session: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=');
    session.len() <= 256 && session.bytes().all(good) && session.bytes().any(|b| b != b'.')
}

fn allowed(route: &Route, session: bool) -> &'static [Method] {
    match route {
        Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => &[Method::GET, Method::HEAD],
        Route::Manifest(..) => &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE],
        Route::Blob(..) => &[Method::GET, Method::HEAD, Method::DELETE],
        Route::Uploads(_) if session => {
            &[Method::GET, Method::HEAD, Method::PATCH, Method::PUT, Method::DELETE]
        }
        Route::Uploads(_) => &[Method::POST],
    }
}

fn listed(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

fn no_route(error: &RouteError) -> Refusal {
    match error {
        RouteError::Unknown => {
            let words = "this is no address of the distribution API.";
            Refusal::new(StatusCode::NOT_FOUND, Code::Unsupported, Reason::Request, words)
        }
        RouteError::Name(NameError::Tag) => bad(Code::TagInvalid, format!("{error}.")),
        RouteError::Name(_) => bad(Code::NameInvalid, format!("{error}.")),
        RouteError::Digest(_) => bad(Code::DigestInvalid, format!("{error}.")),
    }
}

/// Two of these could mean one thing here and another thing behind.
fn one_of(headers: &HeaderMap, name: &str) -> Result<(), Refusal> {
    match headers.get_all(name).iter().count() {
        0 | 1 => Ok(()),
        _ => Err(bad(Code::Unsupported, format!("there is more than one {name} header."))),
    }
}

fn bad(code: Code, words: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, Reason::Request, words)
}
