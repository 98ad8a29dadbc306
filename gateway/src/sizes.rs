//! How large things really are: seen while they were uploaded, or asked of the registry. By digest, so that
//! what was seen once stays true. Must not believe what a manifest declares.

mod measure;

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_wire::digest::Digest;
use lru::LruCache;

pub(crate) use measure::{Unmeasured, measure};

/// Sizes in memory, about 150 bytes each.
const KEPT: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Sizes by digest, the least recently used forgotten first.
pub struct Sizes {
    blobs: Mutex<LruCache<Digest, u64>>,
    /// Of whole images, by the digest of their manifest.
    images: Mutex<LruCache<Digest, u64>>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { blobs: Mutex::new(LruCache::new(KEPT)), images: Mutex::new(LruCache::new(KEPT)) }
    }
}

impl Sizes {
    /// The registry has a blob of this size: it took an upload of so many bytes, or said so itself.
    pub fn observed(&self, digest: &Digest, size: u64) {
        lock(&self.blobs).put(*digest, size);
    }

    #[must_use]
    pub fn known(&self, digest: &Digest) -> Option<u64> {
        lock(&self.blobs).get(digest).copied()
    }

    fn image(&self, digest: &Digest) -> Option<u64> {
        lock(&self.images).get(digest).copied()
    }

    fn image_measured(&self, digest: &Digest, size: u64) {
        lock(&self.images).put(*digest, size);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
