//! After an unclean end, or with a new index: the files tell the index what is there. Runs behind the service, which does
//! not wait for it. Also the slow scrub, and the removal of shared trees that are shared no longer. Must not delete a blob
//! that may be right.

use std::sync::Arc;
use std::time::Duration;

use larder_wire::name::Registry;

use super::blobs::{BlobKey, Class, Found, Identity};
use super::ledger::Use;
use super::{Held, Store, guard};
use crate::document::Document;

const BATCH: usize = 256;
/// How long the index may take for a batch.
const ADOPTION: Duration = Duration::from_secs(30);
impl Store {
    /// Compares the index with the files where it must be, and adds what it lacks. What is not finished is begun again
    /// the next time. Blocks; for a thread of its own.
    pub(crate) fn reconcile(self: &Arc<Self>, runtime: &tokio::runtime::Handle) {
        let Some(generation) = self.keeper.unsure() else { return };
        let mut batch = Vec::with_capacity(BATCH);
        let (mut found, mut whole) = (0_u64, true);
        let walked = self.blobs.walk(&mut |Found { key, identity }| {
            found += 1;
            relink(self, &key);
            let registry = match &key.class {
                Class::Public => None,
                Class::Shared(registry) => Some(registry.clone()),
            };
            batch.push(Use { key, registry, size: identity.size, at: identity.atime });
            whole = batch.len() < BATCH || adopt(self, runtime, &mut batch);
            whole
        });
        match walked {
            Ok(()) if whole && adopt(self, runtime, &mut batch) => {
                self.keeper.compared(generation);
                tracing::info!(blobs = found, "the index was compared with the files");
            }
            Ok(()) => tracing::warn!("the index could not be compared with the files yet"),
            Err(error) => self.stats.failed(&error),
        }
    }

    /// Reads every blob once and puts away what is not what its name says. Blocks; `pause` is called with the bytes read
    /// each time and answers whether to go on.
    pub(crate) fn scrub(&self, pause: &mut dyn FnMut(u64) -> bool) {
        let walked = self.blobs.walk(&mut |Found { key, identity }| {
            let mut wanted = pause(0);
            if let (true, Held::Proven(blob) | Held::Unproven(blob)) = (wanted, self.blob(&key)) {
                let mut read = 0;
                self.hash(&key, &blob, |hashed| {
                    wanted = pause(hashed - std::mem::replace(&mut read, hashed));
                });
                if guard(&self.open).peek(&key).is_none() {
                    forget_pages(&blob.region, identity);
                }
            }
            wanted
        });
        if let Err(error) = walked {
            self.stats.failed(&error);
        }
    }

    /// Deletes the shared trees of all other registries, in a thread of its own.
    pub(crate) fn keep_shared(self: &Arc<Self>, registries: Vec<Registry>) {
        let store = Arc::clone(self);
        std::thread::spawn(move || drop_unshared(&store, &registries));
    }
}

/// Whether the index still takes them.
fn adopt(store: &Arc<Store>, runtime: &tokio::runtime::Handle, batch: &mut Vec<Use>) -> bool {
    let found = std::mem::take(batch);
    runtime.block_on(store.keeper.ask_within(ADOPTION, move |ledger| ledger.adopt(&found))).is_some()
}

/// A shared manifest's sidecar says which repositories may have what it names.
fn relink(store: &Store, key: &BlobKey) {
    let Class::Shared(registry) = &key.class else { return };
    let Ok(Some(meta)) = store.blobs.meta(key) else { return };
    let Some(manifest) = store.manifest(key) else { return };
    let links = Document::read(&manifest.bytes, Some(meta.media_type)).map(|document| document.digests);
    let digests: Vec<_> = links.unwrap_or_default().into_iter().chain([key.digest]).collect();
    for name in &meta.repositories {
        let repository = name.strip_prefix(&format!("{registry}/")).and_then(|name| name.parse().ok());
        if let Some(repository) = repository {
            store.link(registry, &repository, digests.clone());
        }
    }
}

/// Deletes the shared trees of registries that are not in the list.
fn drop_unshared(store: &Store, shared: &[Registry]) {
    let trees = store.blobs.shared_registries().unwrap_or_default();
    for name in trees.into_iter().filter(|name| !shared.iter().any(|one| one.as_str() == name)) {
        match store.blobs.remove_shared(&name) {
            Ok(()) => {
                tracing::info!(registry = name, "its cache is deleted: it is shared no longer");
                if let Ok(registry) = name.parse() {
                    store.forget_class(&Class::Shared(registry));
                }
            }
            Err(error) => store.stats.failed(&error),
        }
    }
}

/// A scrub must not push what pods need out of the page cache.
fn forget_pages(region: &crate::region::Region, identity: Identity) {
    let length = std::num::NonZeroU64::new(identity.size);
    let _ = rustix::fs::fadvise(region.file(), 0, length, rustix::fs::Advice::DontNeed);
}
