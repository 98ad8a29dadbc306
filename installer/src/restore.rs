//! Takes our entries out and leaves what is not ours byte for byte: the block, the owned file, the directory if we made
//! it. Also clears up what a crash left. Needs no proof of anything and is never delayed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, fsync, unlinkat};
use rustix::io::Errno;

use crate::apply::open;
use crate::entry::{find, random_name};
use crate::plan::{self, Removal};
use crate::small_file::{self, SETTINGS};
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
                drop_root(&seen.path);
            }
            Ok(done)
        }
    }
}

/// Takes everything of ours out of certs.d; what could not be is returned, each with the reason.
pub(crate) fn withdraw_all(certs_dir: &Path) -> Vec<(PathBuf, String)> {
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
    let mut left = tidy(certs_dir)?;
    let seen = look(certs_dir, &[])?;
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

/// Files that hold our lines and are not to be touched, or that may, and passing names that could not be cleared up.
fn untouchable(seen: &Seen) -> Vec<(PathBuf, String)> {
    let mut left = Vec::new();
    for (name, dir) in &seen.dirs {
        let path = seen.path.join(name).join(HOSTS);
        match &dir.hosts {
            Hosts::Unreadable(told) => left.push((path, told.words.clone())),
            // Through a link, as containerd reads it.
            Hosts::Untouchable(told)
                if small_file::linked(&path, SETTINGS).is_ok_and(|bytes| find(&bytes).is_some()) =>
            {
                left.push((path, told.words.clone()));
            }
            Hosts::Untouchable(_) | Hosts::Text(_) | Hosts::Absent => {}
        }
    }
    let passing =
        Tree::open(&seen.path).ok().flatten().and_then(|tree| tree.names().ok()).unwrap_or_default();
    for name in passing.into_iter().filter(|name| name.starts_with(OWN_DIRS)) {
        left.push((seen.path.join(name), "holds files that are not Larder's".to_owned()));
    }
    left
}

/// Clears up what a crash left anywhere in certs.d; where that could not be done is returned, each with the reason.
pub(crate) fn tidy(certs_dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let Some(tree) = Tree::open(certs_dir)? else { return Ok(Vec::new()) };
    let mut left = Vec::new();
    for name in tree.names()? {
        let tidied = match tree.dir(&name) {
            Ok(dir) => tidy_dir(&tree, &name, &dir),
            // What it may hold of ours is told by whoever looks at it next.
            Err(_) => continue,
        };
        if let Err(error) = tidied {
            left.push((certs_dir.join(name), format!("cannot clear up after an earlier run: {error}")));
        }
    }
    Ok(left)
}

fn tidy_dir(tree: &Tree, name: &str, dir: &OwnedFd) -> io::Result<()> {
    if name.starts_with(NEW_DIR) {
        empty(dir)?;
        drop_if_empty(tree, name).map(drop)
    } else if let Some((was, _)) = name.strip_prefix(TRASH).and_then(|rest| rest.rsplit_once('.')) {
        tidy_trash(tree, name, was, dir)
    } else {
        swap::tidy(dir)
    }
}

/// A directory on its way out: it goes if it holds nothing but our file, else it gets its name back.
fn tidy_trash(tree: &Tree, trash: &str, name: &str, dir: &OwnedFd) -> io::Result<()> {
    // What stays is not ours, and then the directory is not either.
    let ours = swap::tidy(dir).is_ok()
        && names(dir).is_ok_and(|names| names.iter().all(|name| name == HOSTS))
        && match open_file(dir, HOSTS) {
            Ok(file) => read_all(file).is_ok_and(|text| find(&text).is_some_and(|held| held.whole)),
            Err(error) => error == Errno::NOENT,
        };
    if ours {
        empty(dir)?;
        if drop_if_empty(tree, trash)? {
            return Ok(());
        }
    }
    give_back(tree, trash, name)
}

/// A directory on its way out gets its name back.
fn give_back(tree: &Tree, trash: &str, name: &str) -> io::Result<()> {
    match swap::rename_new(tree.root(), trash, name) {
        // Somebody made a new one; theirs stays, and `uninstall` tells of this one.
        Ok(()) | Err(Errno::EXIST) => Ok(fsync(tree.root())?),
        Err(error) => Err(error.into()),
    }
}

/// Out of containerd's sight in one step, then away, if it is still what we looked at.
fn drop_dir(tree: &Tree, name: &str, old: &[u8]) -> io::Result<Done> {
    let trash = format!("{TRASH}{name}.{}", random_name());
    match swap::rename_new(tree.root(), name, &trash) {
        Err(Errno::NOENT) => return Ok(Done::Lost),
        other => other?,
    }
    // What cannot be read is not what we looked at.
    let dir = tree.dir(&trash).ok().filter(|dir| {
        swap::holds(dir, old).unwrap_or(false)
            && names(dir).is_ok_and(|names| names.iter().all(|name| name == HOSTS))
    });
    let Some(dir) = dir else {
        give_back(tree, &trash, name)?;
        return Ok(Done::Lost);
    };
    if let Err(error) = swap::remove(&dir, HOSTS) {
        give_back(tree, &trash, name)?;
        return Err(error.into());
    }
    if !drop_if_empty(tree, &trash)? {
        // Somebody put something in at the last moment.
        give_back(tree, &trash, name)?;
    }
    fsync(tree.root())?;
    Ok(Done::Written)
}

/// Removes our own kinds of files.
fn empty(dir: &OwnedFd) -> io::Result<()> {
    for name in names(dir)?.iter().filter(|name| *name == HOSTS || name.starts_with(OWN_FILES)) {
        swap::remove(dir, name)?;
    }
    Ok(())
}

/// Whether it is gone.
fn drop_if_empty(tree: &Tree, name: &str) -> io::Result<bool> {
    match unlinkat(tree.root(), name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// certs.d itself, which we made, once nothing is in it. The entry is out already, whatever comes of this.
fn drop_root(path: &Path) {
    // A mount point stays.
    let expected = [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::ResourceBusy];
    if let Err(error) = fs::remove_dir(path)
        && !expected.contains(&error.kind())
    {
        tracing::warn!(certs_dir = %path.display(), %error, "cannot take away the empty directory that we made");
    }
}

#[cfg(test)]
mod tests;
