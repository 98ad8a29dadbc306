//! The disk, as the stages see it: what is there and verified, where a fill may go, what was used. The truth about a blob
//! is its file name; the index only helps. No failure here may fail a pull: it becomes a miss and a count.

mod blobs;
mod index;
mod keeper;
mod ledger;
mod lock;
mod memory;
mod recover;
mod space;
mod tasks;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use larder_wire::digest::Digest;
use larder_wire::name::{Registry, Repository, Tag};
use lru::LruCache;

use crate::answer::region::Region;
use crate::evict::{Limits, Queue, Reason};
use crate::stats::StoreStats;
use crate::verify::Verified;
use blobs::{Blobs, Identity, Meta};
use keeper::Keeper;
use ledger::Use;
use memory::Memory;

pub(crate) use blobs::{BlobKey, Class, Temp};
pub(crate) use tasks::start as start_tasks;
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
        let Some(now) = self.blobs.identify(key)? else { return Ok(Held::Absent) };
        let proven = guard(&self.proven).get(key).copied();
        if proven.is_some_and(|proven| !proven.is(&now)) {
            tracing::error!(digest = %key.digest, "a stored file changed under us and is put away");
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
        guard(&self.proven).pop(key);
        match self.blobs.commit(temp, key.class.clone(), proof, None) {
            Ok(identity) => {
                guard(&self.proven).put(key.clone(), identity);
                self.note_use(key, registry, identity.size);
                self.flush_uses();
            }
            Err(error) => self.stats.failed(&error),
        }
        self.crowded.notify_one();
    }

    /// Puts a manifest on disk where there is room. Blocks as [`Store::commit`] does.
    pub(crate) fn commit_manifest(&self, key: &BlobKey, manifest: &Arc<Manifest>, registry: &Registry, repository: String) {
        let Some(temp) = self.begin(Some(manifest.bytes.len() as u64)) else { return };
        let meta = Meta { media_type: manifest.media_type.clone(), repositories: vec![repository] };
        let written = io::Write::write_all(&mut &*temp.file, &manifest.bytes);
        match written.and_then(|()| self.blobs.commit(&temp, key.class.clone(), &manifest.proof, Some(&meta))) {
            Ok(identity) => {
                self.note_use(key, registry, identity.size);
                self.flush_uses();
            }
            Err(error) => self.stats.failed(&error),
        }
        self.crowded.notify_one();
    }

    pub(crate) fn note_use(&self, key: &BlobKey, registry: &Registry, size: u64) {
        let one = Use { key: key.clone(), registry: Some(registry.clone()), size, at: now() };
        guard(&self.uses).insert(key.clone(), one);
    }

    pub(crate) async fn tag(&self, registry: &Registry, repository: &Repository, tag: &Tag) -> Option<TagRow> {
        let name = (registry.clone(), repository.clone(), tag.clone());
        if let Some(row) = self.memory.tag(&name) {
            return Some(row);
        }
        let asked = name.clone();
        let row = self.keeper.ask(move |ledger| ledger.tag(&asked.0, &asked.1, &asked.2)).await??;
        self.memory.keep_tag(name, Some(&row));
        Some(row)
    }

    /// `None` forgets the tag.
    pub(crate) fn set_tag(&self, registry: &Registry, repository: &Repository, tag: &Tag, row: Option<TagRow>) {
        let name = (registry.clone(), repository.clone(), tag.clone());
        self.memory.keep_tag(name.clone(), row.as_ref());
        self.keeper.tell(move |ledger| ledger.set_tag((&name.0, &name.1, &name.2), row.as_ref()));
    }

    pub(crate) async fn linked(&self, registry: &Registry, repository: &Repository, digest: Digest) -> bool {
        let (registry, repository) = (registry.clone(), repository.clone());
        self.keeper.ask(move |ledger| ledger.linked(&registry, &repository, &digest)).await.unwrap_or(false)
    }

    pub(crate) fn link(&self, registry: &Registry, repository: &Repository, digests: Vec<Digest>) {
        let (registry, repository) = (registry.clone(), repository.clone());
        self.keeper.tell(move |ledger| ledger.link(&registry, &repository, &digests));
    }

    /// Drops a repository's tags; the digests they stood for.
    pub(crate) async fn forget_tags(&self, registry: &Registry, repository: &Repository) -> Vec<Digest> {
        self.memory.forget_tags(registry, repository);
        let (registry, repository) = (registry.clone(), repository.clone());
        self.keeper.ask(move |ledger| ledger.forget_tags(&registry, &repository)).await.unwrap_or_default()
    }

    /// Removes a blob without counting it as evicted. Whether it was there.
    pub(crate) fn forget(&self, key: &BlobKey) -> bool {
        self.memory.forget(key);
        self.forget_open(key);
        let was = self.blobs.remove(key).is_ok_and(|size| size.is_some());
        let key = key.clone();
        self.keeper.tell(move |ledger| ledger.remove(&key));
        was
    }

    /// Removes a blob that a sweep chose: file first, then row.
    pub(crate) async fn evict(&self, key: &BlobKey, reason: Reason) {
        self.memory.forget(key);
        self.forget_open(key);
        guard(&self.uses).remove(key);
        match self.blobs.remove(key) {
            Ok(Some(size)) => self.stats.evicted(reason, size),
            Ok(None) => {}
            Err(error) => return self.stats.failed(&error),
        }
        let key = key.clone();
        self.keeper.ask(move |ledger| ledger.remove(&key)).await;
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
                    Ok(Queue { more: group.blobs > oldest.len() as u64 && oldest.len() == depth, group, oldest })
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

    /// Writes uses down: into the index, and as access times for a rebuild to order by.
    pub(crate) fn flush_uses(&self) {
        let uses: Vec<Use> = guard(&self.uses).drain().map(|(_, one)| one).collect();
        if uses.is_empty() {
            return;
        }
        for one in &uses {
            if let Err(error) = self.blobs.set_used(&one.key, SystemTime::UNIX_EPOCH + Duration::from_secs(one.at)) {
                self.stats.failed(&error);
            }
        }
        self.keeper.tell(move |ledger| ledger.used(&uses));
    }

    /// Bytes and blobs stored, as the index knows them.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.keeper.totals()
    }

    /// Deletes the shared trees of all other registries, in a thread of its own.
    pub(crate) fn keep_shared(self: &Arc<Self>, registries: Vec<Registry>) {
        let store = Arc::clone(self);
        std::thread::spawn(move || recover::drop_unshared(&store, &registries));
    }

    /// The shortest time after which anything goes by age.
    fn shortest_ttl(&self) -> Option<Duration> {
        let limits = self.limits();
        let all = limits.registries.values().filter_map(|registry| registry.ttl).chain([limits.ttl]);
        all.filter(|&ttl| ttl > 0).min().map(Duration::from_secs)
    }

    /// Reads every blob once. Blocks.
    #[cfg(test)]
    pub(crate) fn scrub(&self) -> io::Result<()> {
        recover::scrub(self, &mut |_| true)
    }

    pub(crate) async fn close(&self) {
        self.flush_uses();
        self.keeper.close().await;
    }

    fn forget_open(&self, key: &BlobKey) {
        guard(&self.proven).pop(key);
        guard(&self.open).pop(key);
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
