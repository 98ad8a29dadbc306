//! Tag -> digest: from memory while it is fresh, else by one HEAD upstream that everybody waits for. A tag that upstream
//! cannot say anything about is served stale for a while; one that it denies is not. Must not fetch manifests but where
//! a registry answers HEAD with nothing to use.

use std::sync::Arc;
use std::time::Duration;

use larder_wire::name::{Repository, Tag};
use larder_wire::route::Reference;

use super::deadline::Deadline;
use crate::cache::Cache;
use crate::document::check_type;
use crate::error::{PullError, UpstreamError};
use crate::flight::Role;
use crate::lookup::{Standing, standing};
use crate::request::Pull;
use crate::stats::Source;
use crate::store::{TagRow, now};
use crate::upstream::{Ask, Target, Upstream};

/// What a tag stands for now.
pub(super) struct Resolved {
    pub row: TagRow,
    pub source: Source,
    /// How old it is, where upstream could not be asked.
    pub stale: Option<Duration>,
}

pub(super) async fn resolve(
    cache: &Arc<Cache>,
    pull: &Pull,
    tag: &Tag,
    deadline: Deadline,
) -> Result<Resolved, PullError> {
    let upstream = &pull.upstream;
    let registry = &upstream.settings.registry;
    let known = cache.store.tag(registry, &pull.repository, tag).await;
    let life = cache.tag_life(upstream);
    let age = match known.as_ref().map(|row| standing(row.checked, now(), life)) {
        Some(Standing::Fresh) => None,
        Some(Standing::Stale(age)) => Some(Some(age)),
        Some(Standing::Expired) | None => Some(None),
    };
    let (row, age) = match (known, age) {
        (Some(row), None) => return Ok(Resolved { row, source: Source::Cache, stale: None }),
        (row, age) => (row, age.flatten()),
    };
    let key = (registry.clone(), pull.repository.clone(), tag.clone());
    let (role, checked) = cache
        .flights
        .tags
        .join(key, || check(Arc::clone(cache), Arc::clone(upstream), pull.repository.clone(), tag.clone()));
    let answered = async { checked.value().await.unwrap_or(Err(UpstreamError::Abandoned)) };
    match deadline.for_heads(pull).wait(answered).await {
        Ok(row) => {
            let source = if role == Role::Leader { Source::Upstream } else { Source::Follow };
            Ok(Resolved { row, source, stale: None })
        }
        Err(error) => match (row, age) {
            (Some(row), Some(age)) if leaves_standing(&error) => {
                Ok(Resolved { row, source: Source::Stale, stale: Some(age) })
            }
            _ => Err(error),
        },
    }
}

fn leaves_standing(error: &PullError) -> bool {
    match error {
        PullError::Upstream(error) => error.leaves_tag_standing(),
        PullError::Deadline(_) => true,
        PullError::Request(_) | PullError::Bypass | PullError::Range { .. } => false,
    }
}

/// Asks upstream what a tag stands for, and remembers it.
async fn check(
    cache: Arc<Cache>,
    upstream: Arc<Upstream>,
    repository: Repository,
    tag: Tag,
) -> Result<TagRow, UpstreamError> {
    let registry = &upstream.settings.registry;
    // The check before this one may have ended since we looked.
    if let Some(row) = cache.store.tag(registry, &repository, &tag).await
        && standing(row.checked, now(), cache.tag_life(&upstream)) == Standing::Fresh
    {
        return Ok(row);
    }
    let reference = Reference::Tag(tag.clone());
    let headed = upstream.ask(&Ask::head(&repository, Target::Manifest(reference.clone()))).await;
    let row = match headed {
        Ok(reply) => reply.digest.zip(reply.length().filter(|&size| size > 0)).zip(reply.media_type()),
        Err(UpstreamError::Status(400 | 405 | 501)) => None,
        Err(error) => {
            if matches!(error, UpstreamError::NotFound) {
                cache.store.set_tag(registry, &repository, &tag, None);
            }
            return Err(error);
        }
    };
    let row = match row {
        Some(((digest, size), media_type)) => TagRow { digest, checked: now(), size, media_type },
        None => {
            let manifest = super::fetch_manifest(
                Arc::clone(&cache),
                Arc::clone(&upstream),
                repository.clone(),
                reference,
            );
            let manifest = manifest.await?;
            TagRow {
                digest: *manifest.digest(),
                checked: now(),
                size: manifest.bytes.len() as u64,
                media_type: manifest.media_type.clone(),
            }
        }
    };
    check_type(&row.media_type)?;
    cache.store.set_tag(registry, &repository, &tag, Some(row.clone()));
    if upstream.is_shared() {
        cache.store.link(registry, &repository, vec![row.digest]);
    }
    Ok(row)
}
