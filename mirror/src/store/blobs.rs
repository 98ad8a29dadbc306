//! The only door to blob files. A file under `blobs/` exists only complete, verified and synced; everything unfinished
//! lies in `tmp/`. Paths are made from typed digests alone and opened beneath the data directory without following a
//! link. Must not know the index, upstreams or HTTP.

mod walk;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use larder_wire::digest::{Algorithm, Digest};
use larder_wire::name::Registry;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::verify::Verified;

pub(crate) use walk::Found;

/// Whose bytes these are: the class is part of a blob's path, so that no lost index can mix them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Public,
    /// Fetched with this registry's credential.
    Shared(Registry),
}

/// What names a stored blob.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlobKey {
    pub class: Class,
    pub digest: Digest,
}

/// What a stored file was when it was last looked at; any difference makes it another file. Times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    dev: u64,
    inode: u64,
    pub size: u64,
    mtime: (i64, u64),
    /// When a rebuild should think it was last used, in milliseconds since 1970.
    pub atime: u64,
}

/// What a manifest's file cannot say: `<hex>.meta`, JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub media_type: String,
    /// `REGISTRY/NAME` of each repository that served it to us.
    pub repositories: Vec<String>,
}

/// A file being filled. Its name goes when it is dropped; the open file lives as long as its readers.
pub(crate) struct Temp {
    pub file: Arc<File>,
    name: String,
    dir: Arc<OwnedFd>,
}

pub(crate) struct Blobs {
    root: OwnedFd,
    tmp: Arc<OwnedFd>,
    made: AtomicU64,
}

/// At most so many repositories are kept beside a manifest.
const MOST_REPOSITORIES: usize = 64;

impl Blobs {
    /// Opens the store below a directory that exists, and makes `blobs/` and `tmp/` there.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(data_dir, directory() | OFlags::NOFOLLOW, Mode::empty())?;
        for name in ["blobs", "tmp"] {
            make_directory(&root, name)?;
        }
        let tmp = Arc::new(open_beneath(&root, "tmp", directory())?);
        Ok(Self { root, tmp, made: AtomicU64::new(0) })
    }

    /// What lies at a blob's place now, without opening it. Anything but a plain file counts as nothing.
    pub(crate) fn identify(&self, key: &BlobKey) -> io::Result<Option<Identity>> {
        absent(
            rustix::fs::statat(&self.root, key.path(), AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| Identity::of(&stat)),
        )
    }

    pub(crate) fn read(&self, key: &BlobKey) -> io::Result<Option<(File, Identity)>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(file) = absent(open_beneath(&self.root, &key.path(), flags).map(Some))? else {
            return Ok(None);
        };
        let identity = Identity::of(&rustix::fs::fstat(&file)?);
        Ok(identity.map(|identity| (File::from(file), identity)))
    }

    /// Makes a file to fill, with `size` bytes reserved where the file system can.
    pub(crate) fn create(&self, size: Option<u64>) -> io::Result<Temp> {
        let name = format!("{:016x}", self.made.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.tmp, &name, flags, Mode::RUSR | Mode::WUSR)?;
        let temp = Temp { file: Arc::new(File::from(file)), name, dir: Arc::clone(&self.tmp) };
        if let Some(size) = size.filter(|&size| size > 0) {
            match rustix::fs::fallocate(&temp.file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, size) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(temp)
    }

    /// Publishes a verified file under its name: sync, rename, sync the directory. A manifest's sidecar goes first, so
    /// that a manifest without one cannot exist.
    pub(crate) fn commit(
        &self,
        temp: &Temp,
        class: Class,
        proof: &Verified,
        meta: Option<&Meta>,
    ) -> io::Result<Identity> {
        let key = BlobKey { class, digest: *proof.digest() };
        temp.file.sync_all()?;
        rustix::fs::fchmod(&temp.file, Mode::RUSR | Mode::RGRP)?;
        let shard = self.shard(&key)?;
        if let Some(meta) = meta {
            self.place_meta(&shard, &key, meta)?;
        }
        rustix::fs::renameat(&self.tmp, &temp.name, &shard, key.file_name())?;
        rustix::fs::fsync(&shard)?;
        Identity::of(&rustix::fs::fstat(&temp.file)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Takes a blob and its sidecar away; its readers keep what they have open. How many bytes it had, if it was there.
    pub(crate) fn remove(&self, key: &BlobKey) -> io::Result<Option<u64>> {
        let size = self.identify(key)?.map(|identity| identity.size);
        let Some(shard) = absent(open_beneath(&self.root, &key.directory(), directory()).map(Some))? else {
            return Ok(None);
        };
        let unlink = |name: &str| absent(rustix::fs::unlinkat(&shard, name, AtFlags::empty()).map(Some));
        unlink(&key.file_name())?;
        unlink(&key.meta_name())?;
        Ok(size)
    }

    /// Remembers a use in the file's access time, for a rebuild to order by. Never touches the modification time.
    pub(crate) fn set_used(&self, key: &BlobKey, used: SystemTime) -> io::Result<()> {
        let since = used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: seconds, tv_nsec: since.subsec_nanos().into() },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        };
        let done = rustix::fs::utimensat(&self.root, key.path(), &times, AtFlags::SYMLINK_NOFOLLOW);
        absent(done.map(Some)).map(drop)
    }

    pub(crate) fn meta(&self, key: &BlobKey) -> io::Result<Option<Meta>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = format!("{}/{}", key.directory(), key.meta_name());
        let Some(file) = absent(open_beneath(&self.root, &path, flags).map(Some))? else { return Ok(None) };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(File::from(file), 64 << 10), &mut text)?;
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Empties `tmp/`: what lay there before this process is nobody's.
    pub(crate) fn empty_tmp(&self) -> io::Result<()> {
        for name in walk::names(&self.tmp)? {
            match rustix::fs::unlinkat(&self.tmp, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Every stored blob, in no order. `visit` answers whether to go on.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(Found) -> bool) -> io::Result<()> {
        walk::blobs(&self.root, visit)
    }

    /// The registries that have a shared tree.
    pub(crate) fn shared_registries(&self) -> io::Result<Vec<String>> {
        absent(open_beneath(&self.root, "blobs/shared", directory()).map(Some))?
            .map_or_else(|| Ok(Vec::new()), |shared| walk::names(&shared))
    }

    /// Deletes a shared tree: its registry is shared no longer.
    pub(crate) fn remove_shared(&self, registry: &str) -> io::Result<()> {
        let path = format!("blobs/shared/{registry}");
        let tree = open_beneath(&self.root, &path, directory())?;
        walk::remove_tree(&tree, 3)?;
        Ok(rustix::fs::unlinkat(&self.root, &path, AtFlags::REMOVEDIR)?)
    }

    /// Repositories that stand there already stay.
    fn place_meta(&self, shard: &OwnedFd, key: &BlobKey, meta: &Meta) -> io::Result<()> {
        let mut meta = meta.clone();
        for known in self.meta(key)?.map(|before| before.repositories).unwrap_or_default() {
            if !meta.repositories.contains(&known) && meta.repositories.len() < MOST_REPOSITORIES {
                meta.repositories.push(known);
            }
        }
        let temp = self.create(None)?;
        let text = serde_json::to_vec(&meta).map_err(io::Error::other)?;
        io::Write::write_all(&mut &*temp.file, &text)?;
        temp.file.sync_all()?;
        rustix::fs::renameat_with(&self.tmp, &temp.name, shard, key.meta_name(), RenameFlags::empty())?;
        Ok(rustix::fs::fsync(shard)?)
    }

    /// The directory a blob lies in, made where it is missing, each step synced into its parent.
    fn shard(&self, key: &BlobKey) -> io::Result<OwnedFd> {
        let path = key.directory();
        if let Some(shard) = absent(open_beneath(&self.root, &path, directory()).map(Some))? {
            return Ok(shard);
        }
        let mut parent = self.root.try_clone()?;
        for name in path.split('/') {
            if make_directory(&parent, name)? {
                rustix::fs::fsync(&parent)?;
            }
            parent = open_beneath(&parent, name, directory())?;
        }
        Ok(parent)
    }
}

impl BlobKey {
    fn directory(&self) -> String {
        let (algorithm, hex) = (self.digest.algorithm().name(), self.digest.hex());
        match &self.class {
            Class::Public => format!("blobs/public/{algorithm}/{}", &hex[..2]),
            Class::Shared(registry) => format!("blobs/shared/{registry}/{algorithm}/{}", &hex[..2]),
        }
    }

    fn file_name(&self) -> String {
        self.digest.hex()
    }

    fn meta_name(&self) -> String {
        format!("{}.meta", self.digest.hex())
    }

    fn path(&self) -> String {
        format!("{}/{}", self.directory(), self.file_name())
    }

    /// The digest that a file's place in the tree stands for.
    fn digest_of(algorithm: &str, hex: &str) -> Option<Digest> {
        Digest::from_parts(algorithm.parse::<Algorithm>().ok()?, hex).ok()
    }
}

impl Identity {
    /// `None` for anything that is not a plain file.
    fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| Self {
            dev: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            atime: u64::try_from(stat.st_atime).unwrap_or(0) * 1000 + stat.st_atime_nsec / 1_000_000,
        })
    }

    /// Whether this is still the file that it was.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.dev, self.inode, self.size, self.mtime) == (other.dev, other.inode, other.size, other.mtime)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // After a commit there is no such name any more, which is as it should be.
        let _ = rustix::fs::unlinkat(self.dir.as_fd(), &self.name, AtFlags::empty());
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn open_beneath(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Whether it was made now.
fn make_directory(parent: &OwnedFd, name: &str) -> io::Result<bool> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What is not there, or is in the way of our own tree, is nothing rather than an error.
fn absent<T>(result: Result<Option<T>, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(value),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
