//! What comes in and what goes: room for a fill, publishing what is verified, and removal. Blocks for as long as the disk
//! does; no failure here may fail a pull.

use std::io;
use std::sync::Arc;

use larder_wire::name::Registry;

use super::blobs::{BlobKey, Class, Identity, Meta, Temp};
use super::{Manifest, Store, guard};
use crate::evict::Reason;
use crate::verify::Verified;

impl Store {
    /// A file to fill, unless there is no room. `size` is `None` where upstream does not say.
    pub(crate) fn begin(&self, size: Option<u64>) -> Option<Temp> {
        let space = self.look_at_space();
        if !space.admits(size.unwrap_or(0), self.limits().min_free) {
            self.crowded.notify_one();
            return None;
        }
        match self.blobs.create(size) {
            Ok(temp) => Some(temp),
            Err(error) => {
                self.stats.failed(&error);
                self.crowded.notify_one();
                None
            }
        }
    }

    /// Publishes a verified fill. Blocks for as long as the disk takes to sync.
    pub(crate) fn commit(&self, temp: &Temp, key: &BlobKey, proof: &Verified, registry: &Registry) {
        // Between the rename and the next line the file must not look like one that changed under us.
        self.forget_open(key);
        self.settle(key, registry, self.blobs.commit(temp, key.class.clone(), proof, None));
    }

    /// Puts a manifest on disk where there is room. Blocks as [`Store::commit`] does.
    pub(crate) fn commit_manifest(
        &self,
        key: &BlobKey,
        manifest: &Arc<Manifest>,
        registry: &Registry,
        repository: String,
    ) {
        let Some(temp) = self.begin(Some(manifest.bytes.len() as u64)) else { return };
        let meta = Meta { media_type: manifest.media_type.clone(), repositories: vec![repository] };
        self.forget_open(key);
        let written = io::Write::write_all(&mut &*temp.file, &manifest.bytes);
        let committed =
            written.and_then(|()| self.blobs.commit(&temp, key.class.clone(), &manifest.proof, Some(&meta)));
        self.settle(key, registry, committed);
    }

    /// Notes what a commit made, or that it failed.
    fn settle(&self, key: &BlobKey, registry: &Registry, committed: io::Result<Identity>) {
        match committed {
            Ok(identity) => {
                guard(&self.proven).put(key.clone(), identity);
                self.note_use(key, registry, identity.size);
                self.flush_uses();
            }
            Err(error) => self.stats.failed(&error),
        }
        self.crowded.notify_one();
    }

    /// Removes a blob without counting it as evicted. Whether it was there.
    pub(crate) fn forget(&self, key: &BlobKey) -> bool {
        // A manifest may be known before its file is there.
        let remembered = self.memory.manifest(key).is_some();
        self.memory.forget(key);
        self.forget_open(key);
        guard(&self.uses).remove(key);
        let was = remembered | self.blobs.remove(key).is_ok_and(|size| size.is_some());
        let key = key.clone();
        self.keeper.tell(move |ledger| ledger.remove(&key));
        was
    }

    /// Lets go of all that is held of a class whose files are gone.
    pub(super) fn forget_class(&self, class: &Class) {
        self.memory.forget_class(class);
        let of = |key: &BlobKey| key.class == *class;
        let proven: Vec<BlobKey> =
            guard(&self.proven).iter().map(|(key, _)| key).filter(|key| of(key)).cloned().collect();
        let open: Vec<BlobKey> =
            guard(&self.open).iter().map(|(key, _)| key).filter(|key| of(key)).cloned().collect();
        proven.iter().chain(&open).for_each(|key| self.forget_open(key));
        guard(&self.uses).retain(|key, _| !of(key));
        if let Class::Shared(registry) = class.clone() {
            self.keeper.tell(move |ledger| ledger.unlink(&registry));
        }
    }

    /// Removes a blob that a sweep chose: file first, then row.
    /// Whether it is gone.
    pub(crate) async fn evict(&self, key: &BlobKey, reason: Reason) -> bool {
        self.memory.forget(key);
        self.forget_open(key);
        guard(&self.uses).remove(key);
        match self.blobs.remove(key) {
            Ok(Some(size)) => self.stats.evicted(reason, size),
            Ok(None) => {}
            Err(error) => {
                self.stats.failed(&error);
                return false;
            }
        }
        let key = key.clone();
        self.keeper.ask(move |ledger| ledger.remove(&key)).await.is_some()
    }
}
