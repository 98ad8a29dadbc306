//! What is there: blobs whose files are still what they were when they were verified, and manifests, hashed as they are
//! read. What is no longer right is put away and counts as absent. Must not write a blob.

use std::io;
use std::sync::Arc;

use super::blobs::{BlobKey, Meta};
use super::{Held, Manifest, OpenBlob, Store, guard};
use crate::evict::Reason;
use crate::region::Region;
use crate::verify::Verified;

impl Store {
    /// What is there now. A file that changed since it was verified is put away and counts as absent.
    pub(crate) fn blob(&self, key: &BlobKey) -> Held {
        match self.look(key) {
            Ok(held) => held,
            Err(error) => {
                self.stats.failed(&error);
                Held::Absent
            }
        }
    }

    fn look(&self, key: &BlobKey) -> io::Result<Held> {
        let Some(now) = self.blobs.identify(key)? else {
            // Somebody else removed it: an open file would keep its room taken.
            self.forget_open(key);
            return Ok(Held::Absent);
        };
        let proven = guard(&self.proven).get(key).copied();
        if proven.is_some_and(|proven| !proven.is(&now)) {
            tracing::error!(digest = %key.digest, "a stored file changed under us and is put away");
            self.quarantine(key);
            return Ok(Held::Absent);
        }
        if guard(&self.open).peek(key).is_some_and(|blob| blob.region.broken()) {
            tracing::error!(digest = %key.digest, "a stored file cannot be read and is put away");
            self.quarantine(key);
            return Ok(Held::Absent);
        }
        let cached = guard(&self.open).get(key).filter(|blob| blob.identity.is(&now)).map(Arc::clone);
        let blob = match cached {
            Some(blob) => blob,
            None => {
                let Some((file, identity)) = self.blobs.read(key)? else { return Ok(Held::Absent) };
                let region = Arc::new(Region::of(Arc::new(file), identity.size));
                Arc::new(OpenBlob { region, size: identity.size, identity })
            }
        };
        if proven.is_some_and(|proven| proven.is(&blob.identity)) {
            guard(&self.open).put(key.clone(), Arc::clone(&blob));
            return Ok(Held::Proven(blob));
        }
        Ok(Held::Unproven(blob))
    }

    /// Remembers that an open blob was hashed and is what its name says.
    pub(crate) fn prove(&self, key: &BlobKey, blob: &OpenBlob, _proof: &Verified) {
        guard(&self.proven).put(key.clone(), blob.identity);
    }

    /// Takes a file that is not what its name says out of the way.
    pub(crate) fn quarantine(&self, key: &BlobKey) {
        self.forget_open(key);
        guard(&self.uses).remove(key);
        match self.blobs.remove(key) {
            Ok(size) => self.stats.evicted(Reason::Corrupt, size.unwrap_or(0)),
            Err(error) => self.stats.failed(&error),
        }
        let key = key.clone();
        self.keeper.tell(move |ledger| ledger.remove(&key));
    }

    pub(crate) fn manifest_in_memory(&self, key: &BlobKey) -> Option<Arc<Manifest>> {
        self.memory.manifest(key)
    }

    pub(crate) fn remember(&self, key: &BlobKey, manifest: &Arc<Manifest>) {
        self.memory.keep(key, manifest);
    }

    /// A manifest from its file, hashed on the way in. Blocks for as long as the disk takes.
    pub(crate) fn manifest(&self, key: &BlobKey) -> Option<Arc<Manifest>> {
        let read = || -> io::Result<Option<(Vec<u8>, Meta)>> {
            let Some((file, identity)) = self.blobs.read(key)? else { return Ok(None) };
            let Some(meta) = self.blobs.meta(key)? else { return Ok(None) };
            let mut bytes = Vec::with_capacity(usize::try_from(identity.size).unwrap_or(0).min(5 << 20));
            io::Read::read_to_end(&mut io::Read::take(file, 5 << 20), &mut bytes)?;
            Ok(Some((bytes, meta)))
        };
        let (bytes, meta) = match read() {
            Ok(found) => found?,
            Err(error) => {
                self.stats.failed(&error);
                return None;
            }
        };
        let Ok(proof) = Verified::check(&bytes, &key.digest) else {
            tracing::error!(digest = %key.digest, "a stored manifest changed under us and is put away");
            self.quarantine(key);
            return None;
        };
        let manifest = Arc::new(Manifest::new(proof, meta.media_type, bytes.into()));
        self.memory.keep(key, &manifest);
        Some(manifest)
    }

    pub(super) fn forget_open(&self, key: &BlobKey) {
        guard(&self.proven).pop(key);
        guard(&self.open).pop(key);
    }
}
