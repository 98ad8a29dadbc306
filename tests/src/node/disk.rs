//! Small file systems in memory for tests of full and read-only disks; needs root. Unmounted when dropped. Must not
//! touch any other mount.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use super::{is_root, temp_dir};

/// A mounted tmpfs with limits of its own.
pub struct SmallDisk {
    dir: TempDir,
    options: String,
}

impl SmallDisk {
    /// Mounts one, by tmpfs options like `size=8m` or `nr_inodes=64`. Nothing when not root, which is told in one line.
    #[must_use]
    pub fn mount(options: &str) -> Option<Self> {
        if !is_root(&format!("a test on a small disk ({options})")) {
            return None;
        }
        let disk = Self { dir: temp_dir(), options: format!("{options},mode=0700") };
        disk.remount(MsFlags::empty());
        Some(disk)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn make_read_only(&self) {
        self.remount(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
    }

    pub fn make_writable(&self) {
        self.remount(MsFlags::MS_REMOUNT);
    }

    fn remount(&self, flags: MsFlags) {
        let done = mount(Some("tmpfs"), self.path(), Some("tmpfs"), flags, Some(self.options.as_str()));
        assert!(done.is_ok(), "tmpfs at {} with {flags:?}: {done:?}", self.path().display());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}
