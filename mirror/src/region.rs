//! A file mapped into memory so that hyper can hold it as a buffer while the socket sends it with sendfile. The mapping
//! is never read on the fast path; a stray copy would still send the right bytes. The only file with `unsafe`.
//! Mapped files are only ever unlinked, never truncated, by us.
#![expect(unsafe_code, reason = "mmap has no safe form; the mapping lives and dies with its Region")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// A file of which the first `size` bytes can be sent. `size` may lie ahead of what is written so far.
pub(crate) struct Region {
    file: Arc<File>,
    size: u64,
    mapping: OnceLock<Option<Mapping>>,
    /// Its bytes could not be read: whoever keeps it must let it go.
    broken: AtomicBool,
}

/// The address is only ever made into shared slices of bytes that nobody writes through it.
struct Mapping {
    start: *mut core::ffi::c_void,
    length: usize,
}

// SAFETY: a mapping is plain memory that any thread may read, and it is unmapped once, by its owner.
unsafe impl Send for Mapping {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for Mapping {}

impl Region {
    pub(crate) fn of(file: Arc<File>, size: u64) -> Self {
        Self { file, size, mapping: OnceLock::new(), broken: AtomicBool::new(false) }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The mapped bytes of a range, or `None` where the file cannot be mapped. Reading beyond what is written so far
    /// is a bus error: the caller passes the slice on and does not look at it.
    pub(crate) fn slice(&self, from: u64, to: u64) -> Option<&[u8]> {
        let mapping = self.mapping.get_or_init(|| Mapping::of(&self.file, self.size)).as_ref()?;
        let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        if from > to || to > mapping.length {
            return None;
        }
        // SAFETY: the range lies within the mapping, which lives as long as `self`.
        Some(unsafe {
            std::slice::from_raw_parts(mapping.start.cast::<u8>().cast_const().add(from), to - from)
        })
    }

    /// Where in the file a slice made by [`Region::slice`] begins.
    pub(crate) fn offset_of(&self, slice: &[u8]) -> Option<u64> {
        let mapping = self.mapping.get()?.as_ref()?;
        let (start, at) = (mapping.start as usize, slice.as_ptr() as usize);
        let inside = at >= start && at - start + slice.len() <= mapping.length;
        inside.then(|| (at - start) as u64)
    }

    /// Reads bytes the ordinary way.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset).inspect_err(|error| self.note(error))
    }

    /// Remembers a failure of the file's; one of the socket's says nothing of it.
    pub(crate) fn note(&self, error: &io::Error) {
        let disk = error.raw_os_error().is_some_and(|code| Errno::from_raw_os_error(code) == Errno::IO);
        if disk || error.kind() == io::ErrorKind::UnexpectedEof {
            self.broken.store(true, Ordering::Release);
        }
    }

    pub(crate) fn broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

/// The mappings that a connection's bodies are made of. A buffer that hyper still holds keeps its region alive, so the
/// address in it can never have come to mean another file.
#[derive(Default)]
pub(crate) struct Regions(Mutex<Vec<Weak<Region>>>);

impl Regions {
    pub(crate) fn add(&self, region: &Arc<Region>) {
        let mut regions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        regions.retain(|one| one.strong_count() > 0);
        if !regions.iter().any(|one| std::ptr::eq(one.as_ptr(), Arc::as_ptr(region))) {
            regions.push(Arc::downgrade(region));
        }
    }

    /// The region that a buffer is a mapped part of, and where in its file the buffer begins.
    pub(crate) fn find(&self, slice: &[u8]) -> Option<(Arc<Region>, u64)> {
        let regions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        regions.iter().filter_map(Weak::upgrade).find_map(|region| {
            let offset = region.offset_of(slice)?;
            Some((region, offset))
        })
    }
}

impl Mapping {
    fn of(file: &File, size: u64) -> Option<Self> {
        let length = usize::try_from(size).ok().filter(|&length| length > 0)?;
        // SAFETY: a new shared, read-only mapping at an address of the kernel's choice touches no memory of ours.
        let mapped = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0)
        };
        mapped.ok().map(|start| Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the range that was mapped, and every slice of it borrowed the Region that owns it.
        let _ = unsafe { rustix::mm::munmap(self.start, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn slices_are_the_files_bytes_and_know_their_place() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let region = Region::of(Arc::new(file), 10);
        let slice = region.slice(3, 7).unwrap();
        assert_eq!(slice, b"3456");
        assert_eq!(region.offset_of(slice), Some(3));
        assert_eq!(region.offset_of(&slice[2..]), Some(5));
        assert_eq!(region.offset_of(b"3456"), None);
        assert!(region.slice(3, 11).is_none() && region.slice(7, 3).is_none());
    }

    #[test]
    fn an_empty_file_has_no_mapping() {
        assert!(Region::of(Arc::new(tempfile::tempfile().unwrap()), 0).slice(0, 0).is_none());
    }
}
