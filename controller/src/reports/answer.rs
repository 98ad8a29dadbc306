//! Bodies of answers: our own JSON, or the leader's answer as it comes. Must not decide what is answered.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use serde::Serialize;

/// The body of an answer.
pub(super) type Answer = Either<Full<Bytes>, Incoming>;

/// A page of JSON.
pub(super) fn json(status: StatusCode, page: &impl Serialize) -> Response<Answer> {
    // Maps with keys that are no text are what cannot be written, and there are none.
    let body = serde_json::to_vec(page).unwrap_or_default();
    let mut answer = Response::new(Either::Left(Full::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
