//! Ends an upload that can be part of no image within the limit: the client is told why, and the registry rid
//! of what it has. Must not wait for the registry before it answers the client.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Upload;
use crate::body::{self, Body};
use crate::caller::Caller;
use crate::forward::chain;
use crate::metrics::Decision;
use crate::refuse::{Reason, Refusal};
use crate::serve::Gateway;

/// A registry that still reads the last bytes may not let go of a session at once.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(5)];

/// The answer to an upload that is not taken, and its line in the log.
pub(super) fn refused(
    gateway: &Gateway,
    upload: &Upload,
    caller: &Caller,
    refusal: Refusal,
) -> Response<Body> {
    if refusal.reason == Reason::UploadSize {
        gateway.metrics.decision(Decision::Refused, refusal.reason);
    }
    info!(
        target: "audit",
        actor = caller.actor,
        repository = %upload.name,
        decision = Decision::Refused.label(),
        reason = refusal.reason.label(),
        words = refusal.message,
        "upload stopped"
    );
    refusal.into_closing_response()
}

/// Deletes the session beside the answer, with the credential of its client: at `location`, or where the
/// request went.
pub(super) fn delete_session(
    gateway: &Arc<Gateway>,
    upload: &Upload,
    location: Option<PathAndQuery>,
    caller: &Caller,
) {
    gateway.sessions.forget(&upload.name, upload.target.path());
    let target = match location {
        Some(location) => location,
        None if upload.method == Method::POST => return,
        None => upload.target.clone(),
    };
    let (gateway, caller) = (Arc::clone(gateway), caller.clone());
    tokio::spawn(async move {
        for pause in PAUSES {
            sleep(pause).await;
            if deleted(&gateway, &target, &caller).await {
                return;
            }
        }
        warn!("the session of a stopped upload is left to the registry's own purge");
    });
}

async fn deleted(gateway: &Gateway, target: &PathAndQuery, caller: &Caller) -> bool {
    let mut request = Request::new(body::empty());
    *request.method_mut() = Method::DELETE;
    *request.uri_mut() = Uri::from(target.clone());
    let authorization = caller.authorization.clone();
    request.headers_mut().extend(authorization.map(|value| (AUTHORIZATION, value)));
    match gateway.upstream.send(request).await {
        Ok(reply) => reply.status().is_success() || reply.status() == StatusCode::NOT_FOUND,
        Err(error) => {
            debug!(error = chain(&error), "a session is not deleted yet");
            false
        }
    }
}
