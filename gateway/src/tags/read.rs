//! Reads from the registry what a repository holds: its tags page by page, its images tag by tag. Must not
//! keep anything: what was read is handed over.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http::StatusCode;
use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};
use larder_wire::route::Reference;
use tokio::time::timeout;

use crate::caller::Caller;
use crate::limits::Excluded;
use crate::upstream::{Upstream, UpstreamError};

/// As many as registries give at most at once.
const PAGE: usize = 1000;
/// A whole reading takes no longer.
const PATIENCE: Duration = Duration::from_secs(300);
/// HEAD requests at once, for what nobody waits for.
const SLOWLY: usize = 4;

/// What a reading found.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) items: HashSet<T>,
    /// It was broken off: there are more.
    pub(crate) more: bool,
}

/// Why there is nothing to find.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("the registry answered {0}")]
    Unauthorized(StatusCode),
    #[error("the registry gave no usable answer: {0}")]
    Upstream(String),
    #[error("reading took longer than {}s", PATIENCE.as_secs())]
    TooLong,
}

impl From<UpstreamError> for Trouble {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Status(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => {
                Self::Unauthorized(status)
            }
            other => Self::Upstream(other.to_string()),
        }
    }
}

/// The tags of a repository that count, broken off beyond `most`. No such repository: no tags.
pub(super) async fn tags(
    upstream: &Upstream,
    repository: &Repository,
    caller: &Caller,
    excluded: &Excluded,
    most: usize,
) -> Result<Found<Tag>, Trouble> {
    let reading = async {
        let mut items = HashSet::new();
        let mut last: Option<String> = None;
        loop {
            let page =
                upstream.tags_page(repository, PAGE, last.as_deref(), caller.authorization.as_ref()).await?;
            let Some(page) = page else { break };
            items.extend(page.tags.into_iter().filter(|tag| excluded.counts(tag)));
            // A page that leads back to itself would never end.
            match page.next.filter(|next| last.as_ref() != Some(next)) {
                Some(_) if items.len() > most => return Ok(Found { items, more: true }),
                Some(next) => last = Some(next),
                None => break,
            }
        }
        Ok(Found { items, more: false })
    };
    timeout(PATIENCE, reading).await.unwrap_or(Err(Trouble::TooLong))
}

/// The digests that tags point at, and those of `pushed` that are still there.
pub(super) async fn images(
    upstream: &Upstream,
    repository: &Repository,
    caller: &Caller,
    tags: Vec<Tag>,
    pushed: Vec<Digest>,
) -> Result<Found<Digest>, Trouble> {
    let named = tags.into_iter().map(Reference::Tag).chain(pushed.into_iter().map(Reference::Digest));
    let asked = stream::iter(named).map(|reference| async move {
        upstream
            .head_manifest(repository, &reference, caller)
            .await
            .map(|found| found.and_then(|found| found.digest))
    });
    let mut answers = asked.buffer_unordered(SLOWLY);
    let mut items = HashSet::new();
    while let Some(answer) = answers.next().await {
        items.extend(answer?);
    }
    Ok(Found { items, more: false })
}

/// Whether every one of these tags is there.
pub(super) async fn are_there(
    upstream: &Upstream,
    repository: &Repository,
    caller: &Caller,
    tags: &[Tag],
) -> Result<bool, Trouble> {
    for tag in tags {
        let reference = Reference::Tag(tag.clone());
        if upstream.head_manifest(repository, &reference, caller).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
