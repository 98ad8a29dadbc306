//! The disk, as the stages see it: what is there and verified, where a fill may go, what was used. The truth about a blob
//! is its file name; the index only helps. No failure here may fail a pull: it becomes a miss and a count.

mod blobs;
mod hash;
mod index;
mod keep;
mod keeper;
mod ledger;
mod lock;
mod look;
mod memory;
mod notes;
mod recover;
mod space;

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use lru::LruCache;

use crate::evict::{Limits, Queue};
use crate::region::Region;
use crate::stats::StoreStats;
use blobs::{Blobs, Identity};
use keeper::Keeper;
use ledger::Use;
use memory::Memory;

pub(crate) use blobs::{BlobKey, Class, Temp};
pub(crate) use ledger::{Aged, Group, TagRow};
pub use lock::OpenError;
pub(crate) use memory::Manifest;
pub(crate) use space::Space;

pub(crate) struct Store {
    data_dir: PathBuf,
    /// Held for the life of the store: one agent a data directory.
    _lock: File,
    blobs: Blobs,
    keeper: Keeper,
    memory: Memory,
    /// What each verified file was when it was verified.
    proven: Mutex<LruCache<BlobKey, Identity>>,
    open: Mutex<LruCache<BlobKey, Arc<OpenBlob>>>,
    uses: Mutex<HashMap<BlobKey, Use>>,
    limits: RwLock<Arc<Limits>>,
    space: Mutex<Space>,
    /// Woken when a commit may have filled the disk.
    crowded: tokio::sync::Notify,
    pub(crate) stats: Arc<StoreStats>,
}

/// A stored blob that is open and may be sent as it is.
pub(crate) struct OpenBlob {
    pub region: Arc<Region>,
    pub size: u64,
    identity: Identity,
}

/// What the store has of a blob.
pub(crate) enum Held {
    Absent,
    /// Verified since the start, and still the same file.
    Proven(Arc<OpenBlob>),
    /// There, but not yet hashed by this process.
    Unproven(Arc<OpenBlob>),
}

const PROVEN: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
const OPEN: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

impl Store {
    /// Takes the data directory, which is made where it is missing.
    pub(crate) fn open(data_dir: &Path, limits: Limits, stats: Arc<StoreStats>) -> Result<Self, OpenError> {
        let lock = lock::take(data_dir)?;
        let failed = |source| OpenError::Io { path: data_dir.to_owned(), source };
        let blobs = Blobs::open(data_dir).map_err(failed)?;
        blobs.empty_tmp().map_err(failed)?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            _lock: lock,
            blobs,
            keeper: Keeper::start(data_dir),
            memory: Memory::default(),
            proven: Mutex::new(LruCache::new(PROVEN)),
            open: Mutex::new(LruCache::new(OPEN)),
            uses: Mutex::default(),
            limits: RwLock::new(Arc::new(limits)),
            space: Mutex::new(Space::of(data_dir).unwrap_or_default()),
            crowded: tokio::sync::Notify::new(),
            stats,
        })
    }

    pub(crate) async fn usage(&self) -> Option<Vec<Group>> {
        self.keeper.ask(|ledger| ledger.groups()).await
    }

    /// The groups with their oldest blobs, for a plan.
    pub(crate) async fn queues(&self, depth: usize) -> Option<Vec<Queue>> {
        let queue = move |ledger: &mut ledger::Ledger| {
            let groups = ledger.groups()?.into_iter();
            groups
                .map(|group| {
                    let oldest = ledger.oldest(group.id, depth)?;
                    Ok(Queue {
                        more: group.blobs > oldest.len() as u64 && oldest.len() == depth,
                        group,
                        oldest,
                    })
                })
                .collect()
        };
        self.keeper.ask(queue).await
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
        self.crowded.notify_one();
    }

    pub(crate) fn look_at_space(&self) -> Space {
        match Space::of(&self.data_dir) {
            Ok(space) => {
                *guard(&self.space) = space;
                space
            }
            Err(_) => *guard(&self.space),
        }
    }

    /// Asks for a sweep when too little is free.
    pub(crate) fn look_for_room(&self) {
        let space = self.look_at_space();
        if space.free < self.limits().min_free.of(space.capacity) {
            self.crowded.notify_one();
        }
    }

    pub(crate) fn space(&self) -> Space {
        *guard(&self.space)
    }

    pub(crate) fn index_degraded(&self) -> bool {
        self.keeper.degraded()
    }

    pub(crate) fn index_rebuilds(&self) -> u64 {
        self.keeper.rebuilt()
    }

    /// Whether a person made the file that turns the cache off.
    pub(crate) fn bypassed(&self) -> bool {
        self.data_dir.join("BYPASS").symlink_metadata().is_ok()
    }

    /// Bytes and blobs stored, as the index knows them.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.keeper.totals()
    }

    /// The shortest time after which anything goes by age.
    pub(crate) fn shortest_ttl(&self) -> Option<Duration> {
        let limits = self.limits();
        let all = limits.registries.values().filter_map(|registry| registry.ttl).chain([limits.ttl]);
        all.filter(|&ttl| ttl > 0).min().map(Duration::from_millis)
    }

    /// Whether the index is known to have failed, after looking.
    pub(crate) fn index_failed(&self) -> bool {
        self.keeper.look()
    }

    pub(crate) fn renew_index(&self) {
        self.keeper.renew();
    }

    /// Lets the index prove that it still works.
    pub(crate) fn probe_index(&self) {
        self.keeper.tell(|ledger| ledger.probe(now()));
    }

    /// Forgets tags older than any setting would serve them, and links that point nowhere.
    pub(crate) fn prune_index(&self, oldest_tag: u64) {
        self.keeper.tell(move |ledger| ledger.prune(oldest_tag));
    }

    /// Waits until a commit may have filled the disk.
    pub(crate) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    pub(crate) async fn close(&self) {
        self.flush_uses();
        self.keeper.close().await;
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Milliseconds since 1970: the unit of last uses.
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
