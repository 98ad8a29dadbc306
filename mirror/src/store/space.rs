//! Room on the data directory's file system, and the rule of who may still come in. Must not delete anything.

use std::io;
use std::path::Path;

use larder_wire::units::Size;

/// What the file system says of itself. Bytes and inodes; `free` is what an ordinary user may still take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    pub capacity: u64,
    pub free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Space {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self {
            capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes: stat.f_files,
            inodes_free: stat.f_favail,
        })
    }

    /// Whether a fill of that many bytes may be stored. The floor lies at four fifths of `min_free`: eviction starts
    /// above it, so that what is admitted need not be thrown out at once. A tenth of the inodes stays for others;
    /// some file systems count none.
    pub(crate) fn admits(&self, size: u64, min_free: Size) -> bool {
        let floor = min_free.of(self.capacity) / 5 * 4;
        let inodes = min_free == Size::Bytes(0) || self.inodes == 0 || self.inodes_free > self.inodes / 10;
        self.free >= floor.saturating_add(size) && inodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_ends_at_four_fifths_of_min_free() {
        let space = Space { capacity: 1000, free: 250, inodes: 100, inodes_free: 50 };
        assert!(space.admits(50, Size::Percent(25)));
        assert!(!space.admits(51, Size::Percent(25)));
        assert!(space.admits(250, Size::Bytes(0)));
        assert!(!space.admits(251, Size::Bytes(0)));
        assert!(!Space { inodes_free: 10, ..space }.admits(1, Size::Percent(25)));
        assert!(Space { inodes: 0, inodes_free: 0, ..space }.admits(1, Size::Percent(25)));
    }
}
