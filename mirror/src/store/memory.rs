//! What is answered without touching the disk: manifests (verified, bounded by bytes) and tags (bounded by number).
//! Must not be the only place where anything is known.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use larder_wire::digest::Digest;
use larder_wire::name::{Registry, Repository, Tag};
use lru::LruCache;

use super::blobs::{BlobKey, Class};
use super::ledger::TagRow;
use crate::verify::Verified;

/// A whole, verified manifest: upstream's bytes as they came.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub proof: Verified,
    pub media_type: String,
    pub bytes: Bytes,
}

pub(crate) type TagName = (Registry, Repository, Tag);

pub(crate) struct Memory {
    manifests: Mutex<Manifests>,
    tags: Mutex<LruCache<TagName, TagRow>>,
}

struct Manifests {
    kept: LruCache<BlobKey, Arc<Manifest>>,
    bytes: usize,
}

const MANIFEST_BYTES: usize = 8 << 20;
const TAGS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

impl Manifest {
    pub(crate) fn new(proof: Verified, media_type: String, bytes: Bytes) -> Self {
        Self { proof, media_type, bytes }
    }

    pub(crate) fn digest(&self) -> &Digest {
        self.proof.digest()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            manifests: Mutex::new(Manifests { kept: LruCache::unbounded(), bytes: 0 }),
            tags: Mutex::new(LruCache::new(TAGS)),
        }
    }
}

impl Memory {
    pub(crate) fn manifest(&self, key: &BlobKey) -> Option<Arc<Manifest>> {
        self.manifests().kept.get(key).map(Arc::clone)
    }

    pub(crate) fn keep(&self, key: &BlobKey, manifest: &Arc<Manifest>) {
        let mut manifests = self.manifests();
        manifests.bytes += manifest.bytes.len();
        if let Some(before) = manifests.kept.put(key.clone(), Arc::clone(manifest)) {
            manifests.bytes -= before.bytes.len();
        }
        while manifests.bytes > MANIFEST_BYTES {
            let Some((_, oldest)) = manifests.kept.pop_lru() else { break };
            manifests.bytes -= oldest.bytes.len();
        }
    }

    pub(crate) fn forget(&self, key: &BlobKey) {
        let mut manifests = self.manifests();
        if let Some(manifest) = manifests.kept.pop(key) {
            manifests.bytes -= manifest.bytes.len();
        }
    }

    pub(crate) fn forget_class(&self, class: &Class) {
        let of = |key: &&BlobKey| key.class == *class;
        let gone: Vec<BlobKey> =
            self.manifests().kept.iter().map(|(key, _)| key).filter(of).cloned().collect();
        gone.iter().for_each(|key| self.forget(key));
    }

    pub(crate) fn tag(&self, name: &TagName) -> Option<TagRow> {
        self.tags().get(name).cloned()
    }

    pub(crate) fn keep_tag(&self, name: TagName, row: Option<&TagRow>) {
        match row {
            Some(row) => drop(self.tags().put(name, row.clone())),
            None => drop(self.tags().pop(&name)),
        }
    }

    pub(crate) fn forget_tags(&self, registry: &Registry, repository: &Repository) {
        let mut tags = self.tags();
        let of = |name: &&TagName| name.0 == *registry && name.1 == *repository;
        let gone: Vec<TagName> = tags.iter().map(|(name, _)| name).filter(of).cloned().collect();
        gone.iter().for_each(|name| drop(tags.pop(name)));
    }

    fn manifests(&self) -> MutexGuard<'_, Manifests> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tags(&self) -> MutexGuard<'_, LruCache<TagName, TagRow>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
