//! Walking the blob tree for recovery, scrubbing and clean-up, one directory at a time. Must not follow links or judge
//! what it finds beyond its name.

use std::io;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::{BlobKey, Class, Identity, directory, open_beneath};

const YOUNG_SECONDS: u64 = 600;

/// One stored blob.
#[derive(Debug)]
pub(crate) struct Found {
    pub key: BlobKey,
    pub identity: Identity,
}

pub(super) fn blobs(root: &OwnedFd, visit: &mut dyn FnMut(Found) -> bool) -> io::Result<()> {
    let Some(all) = open(root, "blobs")? else { return Ok(()) };
    if let Some(public) = open(&all, "public")?
        && !class(&public, &Class::Public, visit)?
    {
        return Ok(());
    }
    let Some(shared) = open(&all, "shared")? else { return Ok(()) };
    for name in names(&shared)? {
        let (Ok(registry), Some(tree)) = (name.parse(), open(&shared, &name)?) else { continue };
        if !class(&tree, &Class::Shared(registry), visit)? {
            return Ok(());
        }
    }
    Ok(())
}

/// The names in a directory, without the two that every directory has.
pub(super) fn names(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

/// Empties a directory of our own tree, at most `depth` levels deep.
pub(super) fn remove_tree(tree: &OwnedFd, depth: usize) -> io::Result<()> {
    for name in names(tree)? {
        match rustix::fs::unlinkat(tree, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(below) = open(tree, &name)? {
            remove_tree(&below, depth - 1)?;
        }
        rustix::fs::unlinkat(tree, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Whether to go on.
fn class(tree: &OwnedFd, class: &Class, visit: &mut dyn FnMut(Found) -> bool) -> io::Result<bool> {
    for algorithm in names(tree)? {
        let Some(shards) = open(tree, &algorithm)? else { continue };
        for shard in names(&shards)? {
            let Some(shard) = open(&shards, &shard)? else { continue };
            for name in names(&shard)? {
                let Some(digest) = BlobKey::digest_of(&algorithm, &name) else {
                    drop_orphan(&shard, &name)?;
                    continue;
                };
                let stat = match rustix::fs::statat(&shard, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                };
                let Some(identity) = Identity::of(&stat) else { continue };
                if !visit(Found { key: BlobKey { class: class.clone(), digest }, identity }) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// A sidecar whose manifest never came (a crash between the two) is of no use to anyone. A young one may belong to a
/// commit that goes on right now.
fn drop_orphan(shard: &OwnedFd, name: &str) -> io::Result<()> {
    let Some(manifest) = name.strip_suffix(".meta") else { return Ok(()) };
    let Ok(meta) = rustix::fs::statat(shard, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let young = u64::try_from(meta.st_mtime).unwrap_or(0) + YOUNG_SECONDS > now;
    let alone =
        || rustix::fs::statat(shard, manifest, AtFlags::SYMLINK_NOFOLLOW).is_err_and(|e| e == Errno::NOENT);
    if !young && alone() {
        rustix::fs::unlinkat(shard, name, AtFlags::empty())?;
    }
    Ok(())
}

fn open(parent: &OwnedFd, name: &str) -> io::Result<Option<OwnedFd>> {
    super::absent(open_beneath(parent, name, directory()).map(Some))
}
