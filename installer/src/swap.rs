//! One file of one directory changed, made or taken away so that a reader and a crash see all of the old or all of the
//! new, and so that what somebody else wrote in between is put back. Must not know what the files say.
//!
//! Temporary names carry the hashes of what was read and of what is written, so that [`tidy`] knows after a crash whose
//! content lies under them: `.hosts.toml.larder.<old>-<new>.<random>`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, fchmod, fchown, fstat, fsync, openat2,
    renameat_with, unlinkat,
};
use rustix::io::Errno;

use crate::entry::{random_name, short_digest};
use crate::tree::{HOSTS, OWN_FILES, names, open_file, read_all};

/// In a temporary name: no file was or will be there.
const NONE: &str = "none";
/// Others' writes within one exchange that are followed: a writer without a pause would keep us for ever.
const MOST_TURNS: usize = 10_000;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Done {
    Written,
    /// Somebody else wrote since we looked; theirs is in place.
    Lost,
}

/// Makes hosts.toml where there is none.
pub(crate) fn create(dir: &OwnedFd, file: &[u8]) -> io::Result<Done> {
    let temp = temp_name(NONE, &short_digest(file));
    write_new(dir, &temp, file, None)?;
    match rename_new(dir, &temp, HOSTS) {
        Ok(()) => {
            fsync(dir)?;
            Ok(Done::Written)
        }
        Err(error) => {
            remove(dir, &temp)?;
            if error == Errno::EXIST { Ok(Done::Lost) } else { Err(error.into()) }
        }
    }
}

/// Changes hosts.toml from what was read.
pub(crate) fn exchange(dir: &OwnedFd, old: &[u8], new: &[u8]) -> io::Result<Done> {
    let Some((there, like)) = read(dir, HOSTS)? else { return Ok(Done::Lost) };
    if there != old {
        return Ok(Done::Lost);
    }
    let temp = temp_name(&short_digest(old), &short_digest(new));
    write_new(dir, &temp, new, Some(&like))?;
    if let Err(error) = swap(dir, &temp) {
        remove(dir, &temp)?;
        return if error == Errno::NOENT { Ok(Done::Lost) } else { Err(error.into()) };
    }
    let done = settle(dir, &temp, old, new)?;
    // What cannot be read is not ours to remove; something newer stands in its place.
    if text(dir, &temp).is_some() {
        remove(dir, &temp)?;
    }
    fsync(dir)?;
    Ok(done)
}

/// Takes hosts.toml away if it is what was read.
pub(crate) fn take_away(dir: &OwnedFd, old: &[u8]) -> io::Result<Done> {
    let temp = temp_name(&short_digest(old), NONE);
    match rename_new(dir, HOSTS, &temp) {
        Err(Errno::NOENT) => return Ok(Done::Lost),
        other => other?,
    }
    if text(dir, &temp).is_none_or(|taken| taken != old) {
        put_back(dir, &temp)?;
        return Ok(Done::Lost);
    }
    remove(dir, &temp)?;
    fsync(dir)?;
    Ok(Done::Written)
}

/// Clears up what a crash left in a directory. What somebody else wrote goes back to its place.
pub(crate) fn tidy(dir: &OwnedFd) -> io::Result<()> {
    for temp in names(dir)?.into_iter().filter(|name| name.starts_with(OWN_FILES)) {
        let hashes = temp[OWN_FILES.len()..].split(['.', '-']).collect::<Vec<_>>();
        let [old, new, _random] = hashes[..] else { continue };
        let hash = |name: &str| text(dir, name).map(|bytes| short_digest(&bytes));
        let (held, in_place) = (hash(&temp), hash(HOSTS));
        let theirs = held.as_deref().is_none_or(|held| held != old && held != new);
        if theirs && in_place.as_deref() == Some(new) {
            swap(dir, &temp)?;
        } else if theirs && (new == NONE || held.is_none()) {
            put_back(dir, &temp)?;
            continue;
        }
        remove(dir, &temp)?;
        fsync(dir)?;
    }
    Ok(())
}

/// Whether hosts.toml is there and says what is expected.
pub(crate) fn holds(dir: &OwnedFd, expected: &[u8]) -> io::Result<bool> {
    Ok(read(dir, HOSTS)?.is_some_and(|(there, _)| there == expected))
}

/// After an exchange: looks at what came out, and while it is not what should have, puts it back.
fn settle(dir: &OwnedFd, temp: &str, old: &[u8], new: &[u8]) -> io::Result<Done> {
    let mut theirs = text(dir, temp);
    if theirs.as_deref() == Some(old) {
        return Ok(Done::Written);
    }
    let mut expected = Some(new.to_vec());
    for _ in 0..MOST_TURNS {
        swap(dir, temp)?;
        let newer = text(dir, temp);
        if newer == expected {
            break;
        }
        expected = std::mem::replace(&mut theirs, newer);
    }
    Ok(Done::Lost)
}

/// Writes a file under a new name, synced, with the mode and the owner of another.
pub(crate) fn write_new(dir: &OwnedFd, name: &str, bytes: &[u8], like: Option<&Stat>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut file = File::from(openat2(dir, name, flags, Mode::from_raw_mode(0o600), resolve)?);
    let written = file.write_all(bytes).and_then(|()| dress(&file, like)).and_then(|()| file.sync_all());
    if written.is_err() {
        remove(dir, name)?;
    }
    written
}

/// A new file is for everyone to read. One that replaces another keeps its mode and group; where the group cannot be
/// kept, the new group may do no more than everyone may.
fn dress(file: &File, like: Option<&Stat>) -> io::Result<()> {
    let Some(like) = like else { return Ok(fchmod(file, Mode::from_raw_mode(0o644))?) };
    let mut mode = like.st_mode & 0o7777;
    if fstat(file)?.st_gid != like.st_gid && fchown(file, None, Some(Gid::from_raw(like.st_gid))).is_err() {
        mode &= !0o070 | (mode & 0o007) << 3;
    }
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

fn read(dir: &OwnedFd, name: &str) -> io::Result<Option<(Vec<u8>, Stat)>> {
    match open_file(dir, name) {
        Ok(file) => {
            let stat = fstat(&file)?;
            Ok(Some((read_all(file)?, stat)))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a file says; `None` when it is not there or cannot be read, which nothing of ours is.
fn text(dir: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    read(dir, name).ok().flatten().map(|(bytes, _)| bytes)
}

/// Gives somebody else's file its place again. Where a newer one stands, this one would be gone without us, too. On any
/// other error it stays where it is, and so it does when nobody can tell what it is.
fn put_back(dir: &OwnedFd, temp: &str) -> io::Result<()> {
    match rename_new(dir, temp, HOSTS) {
        Ok(()) => {}
        Err(Errno::EXIST) if text(dir, temp).is_some() => remove(dir, temp)?,
        Err(Errno::EXIST | Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    Ok(fsync(dir)?)
}

fn temp_name(old: &str, new: &str) -> String {
    format!("{OWN_FILES}{old}-{new}.{}", random_name())
}

fn swap(dir: impl AsFd + Copy, temp: &str) -> rustix::io::Result<()> {
    renameat_with(dir, temp, dir, HOSTS, RenameFlags::EXCHANGE)
}

pub(crate) fn rename_new(dir: impl AsFd + Copy, from: &str, to: &str) -> rustix::io::Result<()> {
    renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)
}

pub(crate) fn remove(dir: impl AsFd, name: &str) -> rustix::io::Result<()> {
    unlinkat(dir, name, AtFlags::empty())
}

#[cfg(test)]
mod tests;
