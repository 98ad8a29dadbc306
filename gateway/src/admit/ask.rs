//! The two questions of a push: whether there is a place, and whether the registry takes it. Must not answer
//! the client; what comes back goes through the story.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use larder_wire::oci::Code;
use tokio::time::timeout;

use super::ManifestPut;
use crate::audit::Record;
use crate::body::Body;
use crate::config::OnUnknown;
use crate::forward;
use crate::limits::{Limits, namespace};
use crate::refuse::{Reason, Refusal};
use crate::serve::Gateway;
use crate::sizes::Unmeasured;
use crate::tags::{NoPlace, Reservation};
use crate::upstream::UpstreamError;

/// The registry answers a manifest within this, or nobody knows what it did. Shorter than a place is held.
const PATIENCE: Duration = Duration::from_secs(45);
/// When a push whose counts were not known may be tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// No client gives one push more tags.
const MOST_TAGS: usize = 64;

/// Holds a place where limits count something. Not knowing is decided by `on_unknown`.
pub(super) async fn for_a_place(
    gateway: &Gateway,
    put: &ManifestPut,
    limits: &Limits,
    record: &mut Record,
) -> Result<Reservation, Unmeasured> {
    if put.all_tags().count() > MOST_TAGS {
        let message = format!("a push may name at most {MOST_TAGS} tags; push the others one by one.");
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, Code::TagInvalid, Reason::Request, message);
        return Err(refusal.into());
    }
    let push = put.push(limits);
    match gateway.tags.reserve(push.clone(), &put.caller).await {
        Ok(reservation) => Ok(reservation),
        Err(NoPlace::Full(used)) => Err(used.refusal(&put.name).into()),
        Err(NoPlace::Unauthorized) => Err(Unmeasured::Unauthorized),
        Err(NoPlace::Unknown) if gateway.config.on_unknown == OnUnknown::Allow => {
            record.unknown(&gateway.metrics);
            Ok(gateway.tags.uncounted(push, &put.caller))
        }
        Err(NoPlace::Unknown) => {
            let message = format!(
                "what {} already holds is still being counted, and pushes wait for that. Push again in a moment.",
                namespace(&put.name)
            );
            Err(Refusal::unavailable(Reason::CountUnknown, message, AGAIN).into())
        }
    }
}

/// Sends the push on, and ends the reservation by what became of it.
pub(super) async fn forward(
    gateway: &Gateway,
    put: &ManifestPut,
    reservation: Reservation,
) -> Result<Response<Body>, UpstreamError> {
    let answer = timeout(PATIENCE, forward::manifest(gateway, put)).await;
    let answer = answer.unwrap_or(Err(UpstreamError::Silent(PATIENCE)));
    match &answer {
        Ok(response) if response.status().is_success() => reservation.commit(),
        Ok(response) if response.status().is_server_error() => reservation.settle_later(),
        Ok(_) | Err(UpstreamError::Connect(_)) => reservation.release(),
        Err(_) => reservation.settle_later(),
    }
    answer
}

/// The registry's own refusal of a client that may not read: only that carries the challenge which a client
/// needs to get a better credential. It is asked with an empty body, which it looks at only after the
/// credential, and cannot take.
pub(super) async fn the_registry_itself(
    gateway: &Gateway,
    put: &ManifestPut,
) -> Result<Response<Body>, Refusal> {
    let bare = ManifestPut { body: Bytes::new(), ..put.clone() };
    match timeout(PATIENCE, forward::manifest(gateway, &bare)).await {
        Ok(Ok(response)) if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Ok(response)
        }
        Ok(Ok(_)) => {
            let message = format!(
                "this credential may push to {} but not read it, so limits cannot be checked. \
                 Use one that may do both.",
                put.name
            );
            Err(Refusal::denied(Reason::Unauthorized, message))
        }
        Ok(Err(error)) => Err(error.refusal()),
        Err(_) => Err(UpstreamError::Silent(PATIENCE).refusal()),
    }
}
