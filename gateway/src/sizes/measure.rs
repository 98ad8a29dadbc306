//! Weighs a manifest: what it names, by the sizes that the registry has, asked for where nobody has seen
//! them. Must not hold the result against a limit.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::try_join_all;
use http::StatusCode;
use larder_wire::digest::Digest;
use larder_wire::name::Repository;
use larder_wire::oci::Code;
use larder_wire::route::Reference;
use serde_json::json;
use tokio::sync::Semaphore;

use super::Sizes;
use crate::caller::Caller;
use crate::limits::{Limits, Scope};
use crate::manifest::{Descriptor, Kind, Manifest, Type};
use crate::refuse::{Reason, Refusal};
use crate::upstream::{Upstream, UpstreamError};

/// Questions to the registry at once, for one push.
const AT_ONCE: usize = 8;
/// And altogether: an index of indexes could ask for any number.
const QUESTIONS: usize = 8192;
/// Indexes within indexes.
const DEEPEST: usize = 3;

/// Why there is no size.
#[derive(Debug)]
pub(crate) enum Unmeasured {
    Refused(Refusal),
    /// The registry shows this client nothing.
    Unauthorized,
}

/// The size of a pushed image in bytes: config and distinct layers. Of an index the sum of its children,
/// where the limit is on that, else nothing.
///
/// # Errors
/// A refusal when something is missing, declared with a wrong size, or cannot be asked for.
pub(crate) async fn measure(
    (upstream, sizes): (&Upstream, &Sizes),
    (repository, caller): (&Repository, &Caller),
    limits: &Limits,
    (digest, manifest): (&Digest, &Manifest),
) -> Result<Option<u64>, Unmeasured> {
    let scale = Scale {
        upstream,
        sizes,
        repository,
        caller,
        manifest_bytes: usize::try_from(limits.manifest_bytes).unwrap_or(usize::MAX),
        turns: Semaphore::new(AT_ONCE),
        questions: AtomicUsize::new(QUESTIONS),
    };
    match manifest {
        Manifest::Index(_) if limits.scope == Scope::Manifest || limits.image_bytes.is_none() => Ok(None),
        _ => scale.weigh(digest, manifest, 0).await.map(Some),
    }
}

struct Scale<'a> {
    upstream: &'a Upstream,
    sizes: &'a Sizes,
    repository: &'a Repository,
    caller: &'a Caller,
    manifest_bytes: usize,
    turns: Semaphore,
    questions: AtomicUsize,
}

impl Scale<'_> {
    async fn weigh(&self, digest: &Digest, manifest: &Manifest, depth: usize) -> Result<u64, Unmeasured> {
        let parts = match manifest {
            Manifest::Image(blobs) => try_join_all(blobs.iter().map(|blob| self.blob(blob))).await?,
            Manifest::Index(_) if depth == DEEPEST => return Err(too_deep().into()),
            Manifest::Index(children) => {
                try_join_all(children.iter().map(|child| self.child(child, depth + 1))).await?
            }
        };
        let size = parts.into_iter().fold(0, u64::saturating_add);
        self.sizes.image_measured(digest, size);
        Ok(size)
    }

    async fn child(&self, child: &Descriptor, depth: usize) -> Result<u64, Unmeasured> {
        let Kind::Manifest(kind) = child.kind else { return self.blob(child).await };
        match self.sizes.image(&child.digest) {
            Some(size) => Ok(size),
            None => Box::pin(self.fetched_child(child, kind, depth)).await,
        }
    }

    async fn fetched_child(&self, child: &Descriptor, kind: Type, depth: usize) -> Result<u64, Unmeasured> {
        let reference = Reference::Digest(child.digest);
        let found = {
            let _turn = self.turn().await?;
            self.upstream.get_manifest(self.repository, &reference, self.manifest_bytes, self.caller).await
        };
        let Some((_, body)) = found.map_err(unmeasured)? else { return Err(self.missing(child).into()) };
        self.agree(child, body.len() as u64)?;
        let manifest = Manifest::child(kind, &body).map_err(Refusal::from)?;
        self.weigh(&child.digest, &manifest, depth).await
    }

    async fn blob(&self, blob: &Descriptor) -> Result<u64, Unmeasured> {
        let size = match self.sizes.known(&blob.digest) {
            Some(size) => Some(size),
            None => {
                let _turn = self.turn().await?;
                let size = self.upstream.head_blob(self.repository, &blob.digest, self.caller).await;
                size.map_err(unmeasured)?
            }
        };
        match size {
            Some(size) => {
                self.sizes.observed(&blob.digest, size);
                self.agree(blob, size).map_err(Unmeasured::from)
            }
            None if blob.kind == Kind::Foreign => Ok(blob.size),
            None => Err(self.missing(blob).into()),
        }
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Unmeasured> {
        let left =
            self.questions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match (left, self.turns.acquire().await) {
            (Ok(_), Ok(turn)) => Ok(turn),
            _ => Err(too_deep().into()),
        }
    }

    fn agree(&self, named: &Descriptor, size: u64) -> Result<u64, Refusal> {
        if named.size == size {
            return Ok(size);
        }
        let message = format!(
            "the manifest says that {} has {} bytes, but in {} it has {size}. \
             Push the image again with a client that writes the real size.",
            named.digest, named.size, self.repository
        );
        Err(Refusal::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, Reason::SizeMismatch, message)
            .detail(json!({"digest": named.digest.to_string(), "declared": named.size, "actual": size})))
    }

    fn missing(&self, named: &Descriptor) -> Refusal {
        let (what, code) = match named.kind {
            Kind::Manifest(_) => ("manifest", Code::ManifestUnknown),
            Kind::Blob | Kind::Foreign => ("blob", Code::ManifestBlobUnknown),
        };
        let message = format!(
            "the manifest names the {what} {}, which is not in {}. Push it first.",
            named.digest, self.repository
        );
        Refusal::new(StatusCode::BAD_REQUEST, code, Reason::ContentMissing, message)
            .detail(json!({"digest": named.digest.to_string()}))
    }
}

impl From<Refusal> for Unmeasured {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn unmeasured(error: UpstreamError) -> Unmeasured {
    match error {
        UpstreamError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Unmeasured::Unauthorized,
        error => Unmeasured::Refused(Refusal { reason: Reason::SizeUnknown, ..error.refusal() }),
    }
}

fn too_deep() -> Refusal {
    let message = "the index is nested too deep, or names too much, to be measured; push smaller indexes.";
    Refusal::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, Reason::ManifestInvalid, message)
}
