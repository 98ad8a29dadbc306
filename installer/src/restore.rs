//! Takes our entries out and leaves what is not ours byte for byte: the block, the owned file, the directory if we made
//! it. Also clears up what a crash left. Needs no proof of anything and is never delayed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, fsync, unlinkat};
use rustix::io::Errno;

use crate::apply::open;
use crate::entry::{find, left_behind, random_name};
use crate::plan::{self, Removal};
use crate::swap::{self, Done};
use crate::tree::{HOSTS, Hosts, OWN_DIRS, OWN_FILES, Seen, Tree, look, names, open_file, read_all};

/// A directory being made.
pub(crate) const NEW_DIR: &str = ".larder-new.";
/// A directory being taken away: `.larder-trash.<name>.<random>`.
const TRASH: &str = ".larder-trash.";
/// An uninstall looks again as often as somebody else may write in between.
const ROUNDS: usize = 3;

/// Carries one removal out.
///
/// # Errors
/// Whatever the file system says; what is not ours is there still.
pub(crate) fn remove(seen: &Seen, removal: &Removal) -> io::Result<Done> {
    match removal {
        Removal::Change { dir, old, new } => match open(seen, dir)? {
            Some(dir) => swap::exchange(&dir, old, new),
            None => Ok(Done::Lost),
        },
        Removal::File { dir, old } => match open(seen, dir)? {
            Some(dir) => swap::take_away(&dir, old),
            None => Ok(Done::Lost),
        },
        Removal::Dir { dir, old, root } => {
            let Some(tree) = Tree::open(&seen.path)? else { return Ok(Done::Lost) };
            let done = drop_dir(&tree, dir, old)?;
            if *root && done == Done::Written {
                drop_root(&seen.path)?;
            }
            Ok(done)
        }
    }
}

/// Takes everything of ours out of certs.d; what could not be is returned, each with the reason.
pub fn withdraw_all(certs_dir: &Path) -> Vec<(PathBuf, String)> {
    let mut left = Vec::new();
    for _ in 0..ROUNDS {
        left = match withdraw(certs_dir) {
            Ok(left) => left,
            Err(error) => vec![(certs_dir.to_owned(), error.to_string())],
        };
        if left.is_empty() {
            break;
        }
    }
    left
}

fn withdraw(certs_dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    tidy(certs_dir)?;
    let seen = look(certs_dir, &[])?;
    let mut left = Vec::new();
    for removal in plan::removals(&seen) {
        let why = match remove(&seen, &removal) {
            Ok(Done::Written) => continue,
            Ok(Done::Lost) => "somebody else wrote at the same time".to_owned(),
            Err(error) => error.to_string(),
        };
        left.push((certs_dir.join(removal.dir()).join(HOSTS), why));
    }
    left.extend(untouchable(&seen));
    Ok(left)
}

/// Files that hold our lines and are not to be touched, and passing names that could not be cleared up.
fn untouchable(seen: &Seen) -> Vec<(PathBuf, String)> {
    let mut left = Vec::new();
    for (name, dir) in &seen.dirs {
        let path = seen.path.join(name).join(HOSTS);
        if let Hosts::Untouchable(told) = &dir.hosts
            && fs::read(&path).is_ok_and(|bytes| find(&bytes).is_some())
        {
            left.push((path, told.words.clone()));
        }
    }
    let passing =
        Tree::open(&seen.path).ok().flatten().and_then(|tree| tree.names().ok()).unwrap_or_default();
    for name in passing.into_iter().filter(|name| name.starts_with(OWN_DIRS)) {
        left.push((seen.path.join(name), "holds files that are not Larder's".to_owned()));
    }
    left
}

/// Clears up what a crash left anywhere in certs.d.
pub(crate) fn tidy(certs_dir: &Path) -> io::Result<()> {
    let Some(tree) = Tree::open(certs_dir)? else { return Ok(()) };
    for name in tree.names()? {
        let dir = match tree.dir(&name) {
            Ok(dir) => dir,
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        if name.starts_with(NEW_DIR) {
            empty(&dir)?;
            drop_if_empty(&tree, &name)?;
        } else if let Some(was) = name.strip_prefix(TRASH).and_then(|rest| rest.rsplit_once('.')) {
            tidy_trash(&tree, &name, was.0, &dir)?;
        } else {
            swap::tidy(&dir)?;
        }
    }
    Ok(())
}

/// A directory on its way out: it goes if it holds nothing but our file, else it gets its name back.
fn tidy_trash(tree: &Tree, trash: &str, name: &str, dir: &std::os::fd::OwnedFd) -> io::Result<()> {
    let ours = match open_file(dir, HOSTS) {
        Ok(file) => left_behind_nothing(&read_all(file)?),
        Err(Errno::NOENT) => true,
        Err(error) => return Err(error.into()),
    };
    if ours && names(dir)?.iter().all(|name| name == HOSTS || name.starts_with(OWN_FILES)) {
        empty(dir)?;
        return drop_if_empty(tree, trash);
    }
    match swap::rename_new(tree.root(), trash, name) {
        // Somebody made a new one; theirs stays, and `uninstall` tells of this one.
        Ok(()) | Err(Errno::EXIST) => Ok(fsync(tree.root())?),
        Err(error) => Err(error.into()),
    }
}

fn left_behind_nothing(file: &[u8]) -> bool {
    find(file).is_some() && left_behind(file).is_none()
}

/// Out of containerd's sight in one step, then away, if it is still what we looked at.
fn drop_dir(tree: &Tree, name: &str, old: &[u8]) -> io::Result<Done> {
    let trash = format!("{TRASH}{name}.{}", random_name());
    match swap::rename_new(tree.root(), name, &trash) {
        Err(Errno::NOENT) => return Ok(Done::Lost),
        other => other?,
    }
    let dir = tree.dir(&trash)?;
    let unchanged = swap::holds(&dir, old)? && names(&dir)?.iter().all(|name| name == HOSTS);
    if !unchanged {
        tidy_trash(tree, &trash, name, &dir)?;
        return Ok(Done::Lost);
    }
    swap::remove(&dir, HOSTS)?;
    drop_if_empty(tree, &trash)?;
    fsync(tree.root())?;
    Ok(Done::Written)
}

/// Removes our own kinds of files.
fn empty(dir: &std::os::fd::OwnedFd) -> io::Result<()> {
    for name in names(dir)?.iter().filter(|name| *name == HOSTS || name.starts_with(OWN_FILES)) {
        swap::remove(dir, name)?;
    }
    Ok(())
}

fn drop_if_empty(tree: &Tree, name: &str) -> io::Result<()> {
    match unlinkat(tree.root(), name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// certs.d itself, which we made, once nothing is in it.
fn drop_root(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        // A mount point stays.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
