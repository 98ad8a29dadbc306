//! The directories of a node's agent: made the agent's own before it starts, by a root that has nothing but CHOWN.
//! Must not follow a symbolic link, nor give away a directory that somebody uses.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use larder_wire::settings::Settings;
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, RawDir, Uid, fchmod, fchown, fstat, openat};
use rustix::io::Errno;

/// The agent's uid and gid: its own, not one that other images share.
const AGENT: u32 = 19500;

const DATA_DIR: u32 = 0o700;
/// The installer is of the group, and writes its state there.
const RUN_DIR: u32 = 0o775;

/// Why a directory was not made the agent's.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("{} cannot be used; it is mounted from the node", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} {what}: left as it is. Give the agent a directory of its own", path.display())]
    Refused { path: PathBuf, what: String },
}

/// Makes data_dir and run_dir the agent's. Doing it again changes nothing.
///
/// # Errors
/// A directory that is a symbolic link, somebody else's, or root's with something in it is refused and left alone.
pub fn prepare(settings: &Settings) -> Result<(), PrepareError> {
    give(&settings.data_dir, DATA_DIR)?;
    give(&settings.run_dir, RUN_DIR)
}

fn give(path: &Path, mode: u32) -> Result<(), PrepareError> {
    let failed = |source: Errno| PrepareError::Io { path: path.to_owned(), source: source.into() };
    let refused = |what: String| PrepareError::Refused { path: path.to_owned(), what };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => refused("is a symbolic link or no directory".to_owned()),
        error => failed(error),
    })?;
    let found = fstat(&directory).map_err(failed)?;
    debug_assert_eq!(FileType::from_raw_mode(found.st_mode), FileType::Directory);
    let is_so = (found.st_uid, found.st_gid) == (AGENT, AGENT) && found.st_mode & 0o7777 == mode;
    match found.st_uid {
        _ if is_so => return Ok(()),
        AGENT => {}
        0 if is_empty(&directory).map_err(failed)? => {}
        0 => return Err(refused("belongs to root and is not empty".to_owned())),
        other => return Err(refused(format!("belongs to uid {other}"))),
    }
    // Without CAP_FOWNER only an owner may change the mode: ours for that moment, then the agent's.
    let (uid, gid) = (Uid::from_raw, Gid::from_raw);
    fchown(&directory, Some(uid(0)), Some(gid(AGENT))).map_err(failed)?;
    fchmod(&directory, Mode::from_raw_mode(mode)).map_err(failed)?;
    fchown(&directory, Some(uid(AGENT)), Some(gid(AGENT))).map_err(failed)
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(directory.as_fd(), buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        // A volume of its own has this one from the start.
        if !matches!(entry?.file_name().to_bytes(), b"." | b".." | b"lost+found") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    /// Two empty directories, as the kubelet makes them; `None` without the root that may give them away.
    fn place() -> Option<(tempfile::TempDir, Settings)> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let (data_dir, run_dir) = (place.path().join("data"), place.path().join("run"));
        fs::create_dir(&data_dir).unwrap();
        fs::create_dir(&run_dir).unwrap();
        Some((place, Settings { data_dir, run_dir, ..Settings::default() }))
    }

    fn seen(path: &Path) -> (u32, u32, u32) {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.permissions().mode() & 0o7777)
    }

    #[test]
    fn empty_directories_become_the_agents_and_stay_so() {
        let Some((_place, settings)) = place() else { return };
        for _ in 0..2 {
            prepare(&settings).unwrap();
            assert_eq!(seen(&settings.data_dir), (AGENT, AGENT, 0o700));
            assert_eq!(seen(&settings.run_dir), (AGENT, AGENT, 0o775));
            fs::write(settings.data_dir.join("lock"), "").unwrap();
        }
        fs::set_permissions(&settings.data_dir, fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&settings).unwrap();
        assert_eq!(seen(&settings.data_dir), (AGENT, AGENT, 0o700), "its mode is put right");
    }

    #[test]
    fn what_somebody_uses_is_left_alone() {
        let Some((place, settings)) = place() else { return };
        let before = seen(&settings.data_dir);
        fs::write(settings.data_dir.join("precious"), "").unwrap();
        let error = prepare(&settings).unwrap_err().to_string();
        assert!(error.contains("belongs to root and is not empty"), "{error}");
        assert_eq!(seen(&settings.data_dir), before);

        chown(&settings.data_dir, Some(1000), Some(1000)).unwrap();
        assert!(prepare(&settings).unwrap_err().to_string().contains("belongs to uid 1000"));
        assert_eq!(seen(&settings.data_dir).0, 1000);

        let link = place.path().join("link");
        symlink(&settings.run_dir, &link).unwrap();
        let error = prepare(&Settings { data_dir: link, ..settings.clone() }).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(seen(&settings.run_dir).0, 0);
    }
}
