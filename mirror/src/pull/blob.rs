//! Blobs: from a verified file, from a file that is hashed while it is sent, or from a fill that everybody follows. A
//! shared blob is only served for repositories that are known to have it. Must not fetch: the fill does.

use std::sync::Arc;

use larder_wire::digest::Digest;

use super::deadline::Deadline;
use crate::answer::{Content, Found};
use crate::cache::{Cache, FlightKey};
use crate::error::{PullError, UpstreamError};
use crate::fill::{self, Job};
use crate::flight::Role;
use crate::request::{Pull, PullRequest};
use crate::stats::Source;
use crate::store::{BlobKey, Held, OpenBlob};
use crate::upstream::{Ask, Target};

/// A follower of somebody else's failed fill tries for itself so often.
const TRIES: usize = 3;

pub(super) async fn find(
    cache: &Arc<Cache>,
    pull: &Pull,
    request: &PullRequest,
    digest: Digest,
    deadline: Deadline,
) -> Result<Found, PullError> {
    let key = BlobKey { class: pull.upstream.class.clone(), digest };
    if let Some(found) = stored(cache, pull, &key, deadline).await? {
        return Ok(found);
    }
    cache.check_ban(&pull.upstream, &digest)?;
    pull.upstream.known_private(&pull.repository)?;
    if request.head_only {
        return stat(cache, pull, digest, deadline).await;
    }
    for _ in 1..TRIES {
        match follow(cache, pull, digest, deadline).await {
            // It may have failed for the repository of whoever started it only.
            Err((
                Role::Follower,
                PullError::Upstream(
                    UpstreamError::NotFound | UpstreamError::Private(_) | UpstreamError::Abandoned,
                ),
            )) => {}
            done => return done.map_err(|(_, error)| error),
        }
    }
    follow(cache, pull, digest, deadline).await.map_err(|(_, error)| error)
}

/// What the store has, if this repository may have it.
async fn stored(
    cache: &Arc<Cache>,
    pull: &Pull,
    key: &BlobKey,
    deadline: Deadline,
) -> Result<Option<Found>, PullError> {
    let held = cache.store.blob(key);
    if matches!(held, Held::Absent) {
        return Ok(None);
    }
    if pull.upstream.is_shared() {
        prove_access(cache, pull, key.digest, deadline).await?;
    }
    let found = match held {
        Held::Absent => return Ok(None),
        Held::Proven(blob) => Content::File { digest: key.digest, blob },
        Held::Unproven(blob) if blob.size <= fill::HASHED_FIRST => match hash_first(cache, key, blob).await {
            Some(blob) => Content::File { digest: key.digest, blob },
            None => return Ok(None),
        },
        Held::Unproven(blob) => {
            let (_, mut follower) = cache.flights.hashing.join(key, |stream| {
                fill::start_hashing(Arc::clone(cache), key.clone(), blob, stream);
            });
            let head = deadline.wait(follower.head()).await?;
            Content::Growing { digest: key.digest, follower: Box::new(follower), head }
        }
    };
    let size = found.size().unwrap_or(0);
    cache.store.note_use(key, &pull.upstream.settings.registry, size);
    Ok(Some(Found::new(found, Source::Cache)))
}

/// Hashes a small file before anything is said. `None` when it is not what its name says: then it is gone.
async fn hash_first(cache: &Arc<Cache>, key: &BlobKey, blob: Arc<OpenBlob>) -> Option<Arc<OpenBlob>> {
    let (store, key, hashed) = (Arc::clone(&cache.store), key.clone(), Arc::clone(&blob));
    let right = tokio::task::spawn_blocking(move || store.hash(&key, &hashed, |_| {})).await;
    right.unwrap_or(false).then_some(blob)
}

/// A shared blob's link to this repository; where none is known, upstream's word in this repository's scope.
async fn prove_access(
    cache: &Arc<Cache>,
    pull: &Pull,
    digest: Digest,
    deadline: Deadline,
) -> Result<(), PullError> {
    let registry = &pull.upstream.settings.registry;
    if cache.store.linked(registry, &pull.repository, digest).await {
        return Ok(());
    }
    stat(cache, pull, digest, deadline).await?;
    cache.store.link(registry, &pull.repository, vec![digest]);
    Ok(())
}

/// Upstream's word that the blob is there, and its size. Everybody who asks at once waits for one.
async fn stat(
    cache: &Arc<Cache>,
    pull: &Pull,
    digest: Digest,
    deadline: Deadline,
) -> Result<Found, PullError> {
    let filling = cache.flights.blobs.find(&FlightKey::of(&pull.upstream, &pull.repository, digest));
    if let Some(size) = filling.and_then(|stream| stream.size()) {
        return Ok(Found::new(Content::Sized { digest, size }, Source::Follow));
    }
    let flight = FlightKey::in_repository(&pull.upstream, &pull.repository, digest);
    let (role, landed) = cache.flights.stats.join(flight, || {
        let (upstream, ask) = (Arc::clone(&pull.upstream), Ask::head(&pull.repository, Target::Blob(digest)));
        async move {
            let reply = upstream.stat_blob(&ask).await?;
            let size = reply.content_range().map_or_else(|| reply.length(), |(_, total)| total);
            size.ok_or(UpstreamError::Unusable("it does not say how large the blob is"))
        }
    });
    let size = deadline.wait(async { landed.value().await.unwrap_or(Err(UpstreamError::Abandoned)) }).await?;
    let source = if role == Role::Leader { Source::Upstream } else { Source::Follow };
    Ok(Found::new(Content::Sized { digest, size }, source))
}

async fn follow(
    cache: &Arc<Cache>,
    pull: &Pull,
    digest: Digest,
    deadline: Deadline,
) -> Result<Found, (Role, PullError)> {
    let flight = FlightKey::of(&pull.upstream, &pull.repository, digest);
    let (role, mut follower) = cache.flights.blobs.join(&flight, |stream| {
        let job = Job {
            upstream: Arc::clone(&pull.upstream),
            repository: pull.repository.clone(),
            target: Target::Blob(digest),
            flight: flight.clone(),
        };
        fill::start(Arc::clone(cache), job, stream);
    });
    let head = deadline.wait(follower.head()).await.map_err(|error| {
        if matches!(error, PullError::Deadline(_)) {
            follower.turn_away();
        }
        (role, error)
    })?;
    let source = if role == Role::Leader { Source::Upstream } else { Source::Follow };
    Ok(Found::new(Content::Growing { digest, follower: Box::new(follower), head }, source))
}
