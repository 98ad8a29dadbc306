//! One installer a node: `run_dir/installer.lock`, held as long as the value lives. Must not wait.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Held until dropped, or until the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock; `None` when another process holds it.
///
/// # Errors
/// `NotFound` when there is no `run_dir` yet; whatever else the file system says.
pub(crate) fn take(run_dir: &Path) -> io::Result<Option<Lock>> {
    // Reading is enough to lock, so that agent and installer of different users can share the file.
    let flags = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let path = run_dir.join("installer.lock");
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).mode(0o664).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap().unwrap();
        assert!(take(dir.path()).unwrap().is_none());
        drop(first);
        assert!(take(dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_pipe_is_no_lock_and_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("installer.lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(take(dir.path()).is_err());
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("installer.lock")).unwrap();
        assert!(take(dir.path()).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
