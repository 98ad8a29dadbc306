//! Taking a data directory: that it is ours, safe, and used by nobody else. Must not change anything but to make the
//! directory and its lock file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} is in use by another agent (its lock is held)")]
    InUse { path: PathBuf },
    #[error("{path} is refused: {reason}")]
    Refused { path: PathBuf, reason: String },
    #[error("{path} cannot be opened")]
    Io { path: PathBuf, source: io::Error },
}

/// Makes the directory (0700) where it is missing, looks at it, and locks it for this process.
pub(super) fn take(data_dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io { path: data_dir.to_owned(), source };
    let refused = |reason: &str| OpenError::Refused { path: data_dir.to_owned(), reason: reason.to_owned() };
    match std::fs::symlink_metadata(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
        Ok(_) => {}
    }
    let found = std::fs::symlink_metadata(data_dir).map_err(failed)?;
    let us = rustix::process::geteuid().as_raw();
    if found.file_type().is_symlink() {
        return Err(refused("it is a symbolic link; name the directory itself"));
    }
    if !found.is_dir() {
        return Err(refused("it is not a directory"));
    }
    if found.uid() != us {
        return Err(refused(&format!(
            "it belongs to uid {}, and the agent runs as uid {us}; chown it",
            found.uid()
        )));
    }
    if found.mode() & 0o002 != 0 {
        return Err(refused("everybody may write to it; chmod it to 0700"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let lock = options.custom_flags(nofollow()).open(data_dir.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn nofollow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).expect("O_NOFOLLOW is a small flag")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_agent_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = take(&path).unwrap();
        assert!(matches!(take(&path), Err(OpenError::InUse { .. })));
        drop(held);
        assert!(take(&path).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_is_not_safely_ours_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (path, words) in [(open, "chmod"), (link, "symbolic link"), (file, "not a directory")] {
            let Err(OpenError::Refused { reason, .. }) = take(&path) else {
                panic!("{} is taken", path.display())
            };
            assert!(reason.contains(words), "{reason}");
            assert!(!path.join("lock").exists());
        }
    }
}
