//! THE STORY of an upload's request: what is announced is held against the limit before a byte is read, what
//! comes is counted while it passes, and what outgrows the limit is stopped there and its session deleted.
//! Must not hold bytes.

mod chunk;
mod sessions;
mod stop;

use std::sync::Arc;

use http::header::LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode};
use larder_wire::digest::Digest;
use larder_wire::name::Repository;

use crate::body::{Body, Flow};
use crate::forward::{self, Answered};
use crate::limits::{self, Bound};
use crate::metrics::Decision;
use crate::policy::Action;
use crate::refuse::{Reason, Refusal};
use crate::serve::{Asked, Gateway};
use chunk::{Announced, range_end};
use sessions::Known;
pub use sessions::Sessions;

/// One request of an upload, before it is sent on.
struct Upload {
    name: Repository,
    method: Method,
    target: PathAndQuery,
    announced: Announced,
    known: Known,
    /// The image limit, where it is enforced.
    limit: Option<Bound>,
    /// The same where the policy only audits.
    audited: Option<Bound>,
}

/// Answers `POST /v2/NAME/blobs/uploads/` and everything under the address that it leads to.
pub(crate) async fn answer(gateway: &Arc<Gateway>, name: Repository, asked: Asked) -> Response<Body> {
    let caller = asked.caller.clone();
    let upload = match Upload::read(gateway, name, &asked) {
        Ok(upload) => upload,
        Err(refusal) => return refusal.into_closing_response(),
    };
    if upload.method == Method::POST {
        gateway.tags.touch(&upload.name, &caller);
    }
    if let Err(refusal) = upload.fits() {
        stop::delete_session(gateway, &upload, None, &caller);
        return stop::refused(gateway, &upload, &caller, refusal);
    }
    let flow = Arc::new(Flow::default());
    let answer = forward::stream(gateway, asked, &flow, upload.most()).await;
    let total = upload.known.hint().saturating_add(flow.bytes());
    if flow.outgrown() {
        let refusal = upload.outgrown();
        let location = answer.ok().and_then(|answered| location(answered.response.headers()));
        stop::delete_session(gateway, &upload, location, &caller);
        return stop::refused(gateway, &upload, &caller, refusal);
    }
    match answer {
        Ok(answered) => {
            let total = upload.learn(gateway, &answered, flow.bytes()).unwrap_or(total);
            if let (StatusCode::ACCEPTED, Err(refusal)) = (answered.response.status(), upload.within(total)) {
                stop::delete_session(gateway, &upload, location(answered.response.headers()), &caller);
                return stop::refused(gateway, &upload, &caller, refusal);
            }
            upload.audit(gateway, total);
            answered.into_response()
        }
        Err(error) => {
            gateway.sessions.forget(&upload.name, upload.target.path());
            forward::failed(&error, &flow)
        }
    }
}

impl Upload {
    fn read(gateway: &Gateway, name: Repository, asked: &Asked) -> Result<Self, Refusal> {
        let request = &asked.request;
        let target =
            request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let known = gateway.sessions.known(&name, &target);
        let announced = Announced::read(request.headers(), known)?;
        let known = known.moved_to(announced.start);
        let policy = gateway.policy.current();
        let bound = policy.limits(&name).image_bytes;
        let (limit, audited) = match policy.action {
            Action::Enforce => (bound, None),
            Action::Audit => (None, bound),
        };
        Ok(Self { name, method: request.method().clone(), target, announced, known, limit, audited })
    }

    /// Whether what is announced is within the limit.
    fn fits(&self) -> Result<(), Refusal> {
        self.within(self.known.hint().saturating_add(self.announced.length.unwrap_or(0)))
    }

    fn within(&self, total: u64) -> Result<(), Refusal> {
        match &self.limit {
            Some(bound) if total > bound.max => Err(limits::upload_too_large(&self.name, bound, total)),
            _ => Ok(()),
        }
    }

    /// How many bytes may pass now.
    fn most(&self) -> u64 {
        let left = self.limit.as_ref().map_or(u64::MAX, |bound| bound.max.saturating_sub(self.known.hint()));
        left.min(self.announced.length.unwrap_or(u64::MAX))
    }

    /// Why a body was stopped: what is announced is within the limit, so it was either longer than that or
    /// too large.
    fn outgrown(&self) -> Refusal {
        match (self.announced.length, &self.limit) {
            (None, Some(bound)) => limits::upload_too_large(&self.name, bound, bound.max.saturating_add(1)),
            (length, _) => chunk::longer_than_announced(length.unwrap_or(0)),
        }
    }

    /// Keeps what the registry's answer says about the session or the blob, and returns how much of it there
    /// is.
    fn learn(&self, gateway: &Gateway, answered: &Answered, passed: u64) -> Option<u64> {
        let (status, headers) = (answered.response.status(), answered.response.headers());
        match (&self.method, status) {
            (&Method::POST | &Method::PATCH, StatusCode::ACCEPTED) => {
                let before = if self.method == Method::POST {
                    Some(0)
                } else {
                    self.known.exact().map(|at| at + passed)
                };
                let offset = offset(headers, before);
                gateway.sessions.keep(&self.name, location(headers), offset);
                offset
            }
            (&Method::PUT | &Method::POST, StatusCode::CREATED) => {
                gateway.sessions.forget(&self.name, self.target.path());
                let start = if self.method == Method::POST { Some(0) } else { self.known.exact() };
                let (total, digest) = (start? + passed, self.digest(headers)?);
                gateway.sizes.observed(&digest, total);
                Some(total)
            }
            (&Method::DELETE, _) => {
                gateway.sessions.forget(&self.name, self.target.path());
                None
            }
            _ => None,
        }
    }

    /// What a finished blob is called. A mount says nothing about sizes.
    fn digest(&self, headers: &HeaderMap) -> Option<Digest> {
        let query = self.target.query().unwrap_or_default();
        let pairs = || url::form_urlencoded::parse(query.as_bytes());
        if pairs().any(|(key, _)| key == "mount") {
            return None;
        }
        let asked: Digest = pairs().find(|(key, _)| key == "digest")?.1.parse().ok()?;
        match headers.get("docker-content-digest") {
            Some(stored) => stored.to_str().ok()?.parse().ok().filter(|stored| *stored == asked),
            None => Some(asked),
        }
    }

    /// Counts what would have been refused if the policy did more than look.
    fn audit(&self, gateway: &Gateway, total: u64) {
        if self.audited.as_ref().is_some_and(|bound| total > bound.max) {
            gateway.metrics.decision(Decision::Audited, Reason::UploadSize);
        }
    }
}

/// Where the session goes on.
fn location(headers: &HeaderMap) -> Option<PathAndQuery> {
    let location: http::Uri = headers.get(LOCATION)?.to_str().ok()?.parse().ok()?;
    location.path_and_query().cloned()
}

/// How much the registry has. `0-0` may mean nothing or one byte: there `counted` knows better.
fn offset(headers: &HeaderMap, counted: Option<u64>) -> Option<u64> {
    match range_end(headers) {
        Some(end) if end > 0 => Some(end + 1),
        Some(_) => counted.filter(|counted| *counted <= 1),
        None => counted,
    }
}

#[cfg(test)]
mod tests;
