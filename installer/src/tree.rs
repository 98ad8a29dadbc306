//! certs.d as it lies on disk: opened by directory handles, below which no symbolic link is followed, and read into a
//! plain value. Must not write; [`crate::apply`] and [`crate::restore`] do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir as Listing, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, openat,
    openat2, statat, statx,
};
use rustix::io::Errno;

use crate::preflight::same_dir;
use crate::state::{Reason, Told};

pub(crate) const HOSTS: &str = "hosts.toml";
/// Directories of ours while they come and go.
pub(crate) const OWN_DIRS: &str = ".larder-";
/// Files of ours while they come and go.
pub(crate) const OWN_FILES: &str = ".hosts.toml.larder.";
/// A hosts.toml is a few hundred bytes.
const LONGEST: u64 = 1024 * 1024;

/// certs.d, opened.
#[derive(Debug)]
pub(crate) struct Tree {
    path: PathBuf,
    root: OwnedFd,
}

/// What lies in certs.d and beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: PathBuf,
    /// certs.d is there at all.
    pub(crate) exists: bool,
    /// By name, as containerd looks them up.
    pub(crate) dirs: BTreeMap<String, Dir>,
    /// The other directories that containerd looks in.
    pub(crate) others: Vec<Other>,
}

/// One registry's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dir {
    pub(crate) hosts: Hosts,
    /// Everything else in it but our own passing files.
    pub(crate) names: BTreeSet<String>,
    /// Those of `names` that containerd may load: all but directories.
    pub(crate) files: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    Absent,
    Text(Vec<u8>),
    /// It cannot be told what it says, and why.
    Unreadable(Told),
    /// Not to be touched, and why.
    Untouchable(Told),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) path: PathBuf,
    /// containerd looks there before it looks in ours.
    pub(crate) first: bool,
    /// `None` when it cannot be seen from here.
    pub(crate) names: Option<BTreeSet<String>>,
}

impl Tree {
    /// Opens certs.d; `None` when it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        match openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) => Ok(Some(Self { path: path.to_owned(), root })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes certs.d, not what it stands in.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Self::open(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens a directory of it.
    pub(crate) fn dir(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        open_dir(&self.root, name)
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> io::Result<BTreeSet<String>> {
        Ok(names(&self.root)?)
    }

    fn look(&self) -> io::Result<BTreeMap<String, Dir>> {
        let mut dirs = BTreeMap::new();
        for name in self.names()?.into_iter().filter(|name| !name.starts_with(OWN_DIRS)) {
            let shown = self.path.join(&name);
            let dir = match self.dir(&name) {
                Ok(dir) => look_into(dir, &shown).unwrap_or_else(|error| Dir::unreadable(&shown, &error)),
                Err(Errno::LOOP) => Dir::untouchable(Reason::Symlink.because(format!(
                    "{} is a symbolic link, which is not followed; make it a directory",
                    shown.display()
                ))),
                Err(Errno::NOTDIR) => Dir::untouchable(
                    Reason::Unparsable.because(format!("{} is no directory; take it away", shown.display())),
                ),
                Err(Errno::NOENT) => continue,
                Err(error) => Dir::unreadable(&shown, &error.into()),
            };
            dirs.insert(name, dir);
        }
        Ok(dirs)
    }
}

/// Reads certs.d and the names in containerd's other roots. What is not there is empty.
pub(crate) fn look(path: &Path, roots: &[PathBuf]) -> io::Result<Seen> {
    let tree = Tree::open(path)?;
    let dirs = tree.as_ref().map_or_else(|| Ok(BTreeMap::new()), Tree::look)?;
    let ours = roots.iter().position(|root| same_dir(root, path)).unwrap_or(0);
    let mounted = is_mount(path);
    let other = |(at, root): (usize, &PathBuf)| {
        let names = match fs::read_dir(root).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => {
                Some(entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !mounted => return None,
            Err(_) => None,
        };
        Some(Other { path: root.clone(), first: at < ours, names })
    };
    let others = roots.iter().enumerate().filter(|(at, root)| *at != ours && !same_dir(root, path));
    Ok(Seen {
        path: path.to_owned(),
        exists: tree.is_some(),
        dirs,
        others: others.filter_map(other).collect(),
    })
}

impl Dir {
    fn untouchable(why: Told) -> Self {
        Self { hosts: Hosts::Untouchable(why), names: BTreeSet::new(), files: BTreeSet::new() }
    }

    fn unreadable(shown: &Path, error: &io::Error) -> Self {
        Self { hosts: Hosts::unreadable(shown, error), names: BTreeSet::new(), files: BTreeSet::new() }
    }
}

impl Hosts {
    fn unreadable(shown: &Path, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => Reason::ForeignOwner,
            _ => Reason::Unparsable,
        };
        let us = nix::unistd::geteuid();
        Self::Unreadable(reason.because(format!(
            "{} cannot be read ({error}), so it is left alone; let uid {us} read it, or take it away",
            shown.display()
        )))
    }
}

/// Whether a directory is where something is mounted: what lies beside it on the node is not to be seen then.
fn is_mount(path: &Path) -> bool {
    statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn look_into(dir: OwnedFd, shown: &Path) -> io::Result<Dir> {
    let mut inside = names(&dir)?;
    let there = inside.remove(HOSTS);
    inside.retain(|name| !name.starts_with(OWN_FILES));
    let hosts = if let Some(told) = foreign(&File::from(dir.try_clone()?), shown)? {
        Hosts::Untouchable(told)
    } else if there {
        let shown = shown.join(HOSTS);
        read_hosts(&dir, &shown).unwrap_or_else(|error| Hosts::unreadable(&shown, &error))
    } else {
        Hosts::Absent
    };
    let files = inside.iter().filter(|name| !is_dir(&dir, name)).cloned().collect();
    Ok(Dir { hosts, names: inside, files })
}

/// A link to a directory is none, as containerd sees it.
fn is_dir(at: &OwnedFd, name: &str) -> bool {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn read_hosts(dir: &OwnedFd, shown: &Path) -> io::Result<Hosts> {
    let file = match open_file(dir, HOSTS) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Hosts::Absent),
        Err(Errno::LOOP) => {
            return Ok(Hosts::Untouchable(Reason::Symlink.because(format!(
                "{} is a symbolic link, which is not followed; make it a file",
                shown.display()
            ))));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(told) = foreign(&file, shown)? {
        return Ok(Hosts::Untouchable(told));
    }
    let length = file.metadata()?.len();
    if !file.metadata()?.is_file() || length > LONGEST {
        let words = format!("{} is no regular file of at most 1 MiB; correct it", shown.display());
        return Ok(Hosts::Untouchable(Reason::Unparsable.because(words)));
    }
    read_all(file).map(Hosts::Text)
}

/// Says so when something belongs to another user than us.
fn foreign(file: &File, shown: &Path) -> io::Result<Option<Told>> {
    let (owner, us) = (file.metadata()?.uid(), nix::unistd::geteuid().as_raw());
    Ok((owner != us).then(|| {
        Reason::ForeignOwner.because(format!(
            "{} belongs to uid {owner}, not to uid {us}; whoever that is may change what containerd reads: give it to \
             uid {us}",
            shown.display()
        ))
    }))
}

/// Opens a directory below another, following nothing.
pub(crate) fn open_dir(at: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(at, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Opens a file for reading, following nothing and waiting for nothing.
pub(crate) fn open_file(at: impl AsFd, name: &str) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat2(at, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).map(File::from)
}

pub(crate) fn read_all(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The names in a directory but `.` and `..`. One that is no UTF-8 shows that something is there, and opens nothing.
pub(crate) fn names(dir: impl AsFd) -> rustix::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in Listing::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if !matches!(&*name, "." | "..") {
            names.insert(name.into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
