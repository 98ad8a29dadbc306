//! After an unclean end, or with a new index: the files tell the index what is there. Runs behind the service, which does
//! not wait for it. Also the slow scrub, and the removal of shared trees that are shared no longer. Must not delete a blob
//! that may be right.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use larder_wire::name::Registry;

use super::blobs::{BlobKey, Class, Found, Identity};
use super::ledger::Use;
use super::{Held, Store};
use crate::fill;
use crate::pull::manifest_links;

const BATCH: usize = 256;
/// What a scrub reads a second.
const SCRUB_RATE: u64 = 8 << 20;

/// Compares the index with the files, and adds what it lacks. Blocks; for a thread of its own.
pub(super) fn reconcile(store: &Arc<Store>, runtime: &tokio::runtime::Handle) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut found = 0_u64;
    let walked = store.blobs.walk(&mut |Found { key, identity }| {
        found += 1;
        relink(store, &key);
        let registry = match &key.class {
            Class::Public => None,
            Class::Shared(registry) => Some(registry.clone()),
        };
        batch.push(Use { key, registry, size: identity.size, at: identity.atime });
        batch.len() < BATCH || adopt(store, runtime, &mut batch)
    });
    match walked {
        Ok(()) => {
            adopt(store, runtime, &mut batch);
            tracing::info!(blobs = found, "the index was compared with the files");
        }
        Err(error) => store.stats.failed(&error),
    }
}

/// Whether the index still takes them.
fn adopt(store: &Arc<Store>, runtime: &tokio::runtime::Handle, batch: &mut Vec<Use>) -> bool {
    let found = std::mem::take(batch);
    runtime.block_on(store.keeper.ask(move |ledger| ledger.adopt(&found))).is_some()
}

/// A shared manifest's sidecar says which repositories may have what it names.
fn relink(store: &Store, key: &BlobKey) {
    let Class::Shared(registry) = &key.class else { return };
    let Ok(Some(meta)) = store.blobs.meta(key) else { return };
    let Some(manifest) = store.manifest(key) else { return };
    let digests: Vec<_> =
        manifest_links(&manifest.bytes, &meta.media_type).into_iter().chain([key.digest]).collect();
    for name in &meta.repositories {
        let repository = name.strip_prefix(&format!("{registry}/")).and_then(|name| name.parse().ok());
        if let Some(repository) = repository {
            store.link(registry, &repository, digests.clone());
        }
    }
}

/// Deletes the shared trees of registries that are not in the list.
pub(super) fn drop_unshared(store: &Store, shared: &[Registry]) {
    let trees = store.blobs.shared_registries().unwrap_or_default();
    for name in trees.into_iter().filter(|name| !shared.iter().any(|one| one.as_str() == name)) {
        match store.blobs.remove_shared(&name) {
            Ok(()) => tracing::info!(registry = name, "its cache is deleted: it is shared no longer"),
            Err(error) => store.stats.failed(&error),
        }
    }
}

/// Reads every blob once and puts away what is not what its name says. Blocks; `pause` is called with the bytes read
/// after each blob and answers whether to go on.
pub(super) fn scrub(store: &Store, pause: &mut dyn FnMut(u64) -> bool) -> io::Result<()> {
    store.blobs.walk(&mut |Found { key, identity }| {
        if let Held::Proven(blob) | Held::Unproven(blob) = store.blob(&key) {
            fill::hash_file(store, &key, &blob);
            forget_pages(&blob.region, identity);
        }
        pause(identity.size)
    })
}

/// A scrub must not push what pods need out of the page cache.
fn forget_pages(region: &crate::answer::region::Region, identity: Identity) {
    let length = std::num::NonZeroU64::new(identity.size);
    let _ = rustix::fs::fadvise(region.file(), 0, length, rustix::fs::Advice::DontNeed);
}

/// How long to wait after reading so many bytes.
pub(super) fn scrub_pause(bytes: u64) -> Duration {
    Duration::from_millis(10) + Duration::from_millis(bytes.saturating_mul(1000) / SCRUB_RATE)
}
