//! Puts our entries in. Every write here needs a [`Reachable`]; taking out ([`crate::restore`]) never does.
//! Must not decide what is written: that is [`crate::plan`].

use std::io;
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, fsync, mkdirat, unlinkat};
use rustix::io::Errno;

use crate::entry::random_name;
use crate::plan::Install;
use crate::probe::Reachable;
use crate::restore::NEW_DIR;
use crate::swap::{self, Done};
use crate::tree::{HOSTS, Seen, Tree};

/// Carries one write out.
///
/// # Errors
/// `TimedOut` when the proof is too old by now, else whatever the file system says; what was there is there still.
pub(crate) fn install(seen: &Seen, install: &Install, proof: &Reachable) -> io::Result<Done> {
    if !proof.is_fresh(Instant::now()) {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the agent's proof is too old by now; asking again",
        ));
    }
    match install {
        Install::NewDir { dir, file } => new_dir(&Tree::make(&seen.path)?, dir, file),
        Install::NewFile { dir, file } => match open(seen, dir)? {
            Some(dir) => swap::create(&dir, file),
            None => Ok(Done::Lost),
        },
        Install::Change { dir, old, new } => match open(seen, dir)? {
            Some(dir) => swap::exchange(&dir, old, new),
            None => Ok(Done::Lost),
        },
    }
}

/// Opens a directory that was there when we looked.
pub(crate) fn open(seen: &Seen, dir: &str) -> io::Result<Option<std::os::fd::OwnedFd>> {
    let Some(tree) = Tree::open(&seen.path)? else { return Ok(None) };
    match tree.dir(dir) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory and its file under a name of ours, then gives both their name at once: an empty directory would
/// hide `_default`, and nobody would know that it is ours.
fn new_dir(tree: &Tree, dir: &str, file: &[u8]) -> io::Result<Done> {
    let temp = format!("{NEW_DIR}{}", random_name());
    mkdirat(tree.root(), &temp, Mode::from_raw_mode(0o755))?;
    let made = tree.dir(&temp).map_err(io::Error::from).and_then(|inside| {
        swap::write_new(&inside, HOSTS, file, None)?;
        fsync(&inside)?;
        match swap::rename_new(tree.root(), &temp, dir) {
            Ok(()) => Ok(Done::Written),
            Err(Errno::EXIST) => {
                swap::remove(&inside, HOSTS)?;
                Ok(Done::Lost)
            }
            Err(error) => {
                swap::remove(&inside, HOSTS)?;
                Err(error.into())
            }
        }
    });
    if !matches!(made, Ok(Done::Written)) {
        unlinkat(tree.root(), &temp, AtFlags::REMOVEDIR)?;
    }
    fsync(tree.root())?;
    made
}

#[cfg(test)]
mod tests;
