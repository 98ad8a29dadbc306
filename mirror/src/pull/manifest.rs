//! Manifests: up to 4 MiB they are fetched whole, verified, answered from memory and kept; larger ones are passed through.
//! Upstream's bytes are never re-serialised; they are read only to see what they link to. Must not resolve tags.

use std::sync::Arc;

use http_body_util::BodyExt;
use larder_wire::digest::Digest;
use larder_wire::name::Repository;
use larder_wire::route::Reference;

use super::deadline::Deadline;
use super::tag::Resolved;
use crate::answer::{Content, Found};
use crate::cache::{Cache, FlightKey};
use crate::document::Document;
use crate::error::{PullError, RequestError, UpstreamError};
use crate::fill::{self, Job};
use crate::flight::Role;
use crate::request::{Pull, PullRequest};
use crate::stats::Source;
use crate::store::{BlobKey, Manifest};
use crate::upstream::{Ask, Reply, Target, Upstream};
use crate::verify::Verified;

/// Larger manifests are passed through.
const LARGEST: usize = 4 << 20;

/// The manifest that a tag stands for. A HEAD needs no more than the tag's row.
pub(super) async fn of_tag(
    cache: &Arc<Cache>,
    pull: &Pull,
    request: &PullRequest,
    tag: Resolved,
    deadline: Deadline,
) -> Result<Found, PullError> {
    let Resolved { row, source, stale } = tag;
    if request.head_only {
        accepted(request, &row.media_type)?;
        let content = Content::Described { digest: row.digest, size: row.size, media_type: row.media_type };
        return Ok(Found { content, source, stale });
    }
    let found = find(cache, pull, request, row.digest, deadline).await?;
    // Stale is said even where the bytes came from elsewhere; they are right, but perhaps no longer the tag's.
    Ok(Found { source: if stale.is_some() { Source::Stale } else { found.source }, stale, ..found })
}

pub(super) async fn find(
    cache: &Arc<Cache>,
    pull: &Pull,
    request: &PullRequest,
    digest: Digest,
    deadline: Deadline,
) -> Result<Found, PullError> {
    let upstream = &pull.upstream;
    let key = BlobKey { class: upstream.class.clone(), digest };
    let linked = !upstream.is_shared()
        || cache.store.linked(&upstream.settings.registry, &pull.repository, digest).await;
    if linked && let Some(manifest) = stored(cache, &key).await {
        accepted(request, &manifest.media_type)?;
        cache.store.note_use(&key, &upstream.settings.registry, manifest.bytes.len() as u64);
        return Ok(Found::new(Content::Manifest(manifest), Source::Cache));
    }
    cache.check_ban(upstream, &digest)?;
    upstream.known_private(&pull.repository)?;
    // By repository: what one may not see, or does not have, says nothing of another.
    let flight = FlightKey::in_repository(upstream, &pull.repository, digest);
    let (role, landed) = cache.flights.manifests.join(flight, || {
        let (cache, upstream, repository) =
            (Arc::clone(cache), Arc::clone(upstream), pull.repository.clone());
        async move {
            // The flight before this one may have landed since we looked.
            let landed = cache.store.manifest_in_memory(&key).filter(|_| !upstream.is_shared());
            match landed {
                Some(manifest) => Ok(manifest),
                None => fetch(cache, upstream, repository, Reference::Digest(digest)).await,
            }
        }
    });
    let source = if role == Role::Leader { Source::Upstream } else { Source::Follow };
    let answered = async { landed.value().await.unwrap_or(Err(UpstreamError::Abandoned)) };
    match deadline.wait(answered).await {
        Ok(manifest) => {
            accepted(request, &manifest.media_type)?;
            Ok(Found::new(Content::Manifest(manifest), source))
        }
        Err(PullError::Upstream(UpstreamError::TooLarge)) => {
            pass_through(cache, pull, digest, deadline).await
        }
        Err(error) => Err(error),
    }
}

/// Fetches and verifies a manifest, remembers it, and puts it on disk behind the reply's back.
pub(crate) async fn fetch(
    cache: Arc<Cache>,
    upstream: Arc<Upstream>,
    repository: Repository,
    reference: Reference,
) -> Result<Arc<Manifest>, UpstreamError> {
    let reply = upstream.ask(&Ask::get(&repository, Target::Manifest(reference.clone()))).await?;
    if reply.length().is_some_and(|length| length > LARGEST as u64) {
        return Err(UpstreamError::TooLarge);
    }
    let media_type = reply.media_type();
    let told = reply.digest;
    let bytes = whole(&cache, &upstream, reply).await?;
    let document = Document::read(&bytes, media_type)?;
    let expected = match &reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => told,
    };
    let proof = match expected {
        Some(expected) => {
            Verified::check(&bytes, &expected).map_err(|found| cache.ban(&upstream, &expected, found))?
        }
        None => Verified::name(&bytes),
    };
    let key = BlobKey { class: upstream.class.clone(), digest: *proof.digest() };
    let manifest = Arc::new(Manifest::new(proof, document.media_type, bytes.into()));
    if upstream.is_shared() {
        let digests = document.digests.into_iter().chain([key.digest]).collect();
        cache.store.link(&upstream.settings.registry, &repository, digests);
    }
    cache.store.remember(&key, &manifest);
    let (store, kept) = (Arc::clone(&cache.store), Arc::clone(&manifest));
    let keep = move || {
        let name = format!("{}/{repository}", upstream.settings.registry);
        store.commit_manifest(&key, &kept, &upstream.settings.registry, name);
    };
    tokio::task::spawn_blocking(keep);
    Ok(manifest)
}

fn accepted(request: &PullRequest, media_type: &str) -> Result<(), RequestError> {
    if request.accepts(media_type) { Ok(()) } else { Err(RequestError::NotAccepted(media_type.to_owned())) }
}

async fn stored(cache: &Arc<Cache>, key: &BlobKey) -> Option<Arc<Manifest>> {
    if let Some(manifest) = cache.store.manifest_in_memory(key) {
        return Some(manifest);
    }
    let (store, key) = (Arc::clone(&cache.store), key.clone());
    tokio::task::spawn_blocking(move || store.manifest(&key)).await.ok().flatten()
}

/// Streams a manifest that is too large to keep.
async fn pass_through(
    cache: &Arc<Cache>,
    pull: &Pull,
    digest: Digest,
    deadline: Deadline,
) -> Result<Found, PullError> {
    let flight = FlightKey::of(&pull.upstream, &pull.repository, digest).for_manifest();
    let (_, mut follower) = cache.flights.blobs.join(&flight, |stream| {
        let job = Job {
            upstream: Arc::clone(&pull.upstream),
            repository: pull.repository.clone(),
            target: Target::Manifest(Reference::Digest(digest)),
            flight: flight.clone(),
        };
        fill::start(Arc::clone(cache), job, stream);
    });
    let head = deadline.wait(follower.head()).await?;
    Ok(Found::new(Content::Growing { digest, follower: Box::new(follower), head }, Source::Bypass))
}

/// Reads a small body, counting it.
async fn whole(cache: &Cache, upstream: &Upstream, reply: Reply) -> Result<Vec<u8>, UpstreamError> {
    let idle = cache.tuning.idle;
    let mut bytes =
        Vec::with_capacity(reply.length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0));
    let mut body = reply.response.into_body();
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| UpstreamError::Idle(idle))?;
        let Some(frame) = frame else { return Ok(bytes) };
        let frame = frame.map_err(|error| UpstreamError::Broken(Arc::new(error)))?;
        if let Some(data) = frame.data_ref() {
            upstream.stats.fetched_bytes.inc_by(data.len() as u64);
            if bytes.len() + data.len() > LARGEST {
                return Err(UpstreamError::TooLarge);
            }
            bytes.extend_from_slice(data);
        }
    }
}
