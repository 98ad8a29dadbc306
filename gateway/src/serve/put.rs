//! Takes a manifest as a whole, which is the only body that is ever held, and hands it to the story of a
//! push. Must not judge it.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{Response, StatusCode};
use larder_wire::name::{Repository, Tag};
use larder_wire::oci::Code;
use larder_wire::route::Reference;
use tokio::time::timeout;

use super::{Asked, Gateway};
use crate::admit::{self, ManifestPut};
use crate::body::{self, Body, WholeError};
use crate::forward;
use crate::limits;
use crate::metrics::Decision;
use crate::refuse::{Reason, Refusal};

/// The longest time that a manifest may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(60);

pub(super) async fn manifest(
    gateway: &Arc<Gateway>,
    name: Repository,
    reference: Reference,
    mut asked: Asked,
) -> Response<Body> {
    forward::headers::forwarded(&mut asked);
    let Asked { request, caller, place, .. } = asked;
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let tags = match tags(&target) {
        Ok(tags) => tags,
        Err(refusal) => return refusal.into_closing_response(),
    };
    let most = gateway.policy.current().limits(&name).manifest_bytes;
    let declared =
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most) {
        return too_large(gateway, &name, most);
    }
    let memory = match gateway.places.memory(declared.unwrap_or(most)).await {
        Ok(memory) => memory,
        Err(refusal) => return refusal.into_closing_response(),
    };
    let max = usize::try_from(most).unwrap_or(usize::MAX);
    let body = match timeout(ARRIVAL, body::whole(body, max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(WholeError::TooLong(_))) => return too_large(gateway, &name, most),
        Ok(Err(WholeError::Broken(_))) | Err(_) => return cut_short().into_closing_response(),
    };
    let put = ManifestPut { name, reference, tags, target, headers: head.headers, body, caller };
    // The push goes on where its client is gone: what the registry took must be counted.
    let gateway = Arc::clone(gateway);
    let pushing = tokio::spawn(async move {
        let response = admit::put_manifest(&gateway, put).await;
        drop((place, memory));
        response
    });
    pushing.await.unwrap_or_else(|_| {
        let words = "the gateway failed at this push; its log says why.";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, Reason::Upstream, words)
            .into_response()
    })
}

fn too_large(gateway: &Gateway, name: &Repository, most: u64) -> Response<Body> {
    gateway.metrics.decision(Decision::Refused, Reason::ManifestSize);
    limits::manifest_too_large(name, most).into_closing_response()
}

fn cut_short() -> Refusal {
    let words = "the manifest did not arrive as a whole.";
    Refusal::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, Reason::Request, words)
}

/// The tags that the query gives the manifest besides its reference.
fn tags(target: &PathAndQuery) -> Result<Vec<Tag>, Refusal> {
    let query = url::form_urlencoded::parse(target.query().unwrap_or_default().as_bytes());
    let named = query.filter(|(key, _)| key == "tag");
    let read = named.map(|(_, tag)| tag.parse::<Tag>()).collect::<Result<_, _>>();
    read.map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, Code::TagInvalid, Reason::Request, format!("?tag=: {error}."))
    })
}
