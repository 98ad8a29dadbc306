//! Where a fill's bytes go: the hash always, the file while it takes them. Blocking; called off the async threads. Must
//! not wait for the network.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use larder_wire::digest::Digest;

use crate::store::{Store, Temp};
use crate::verify::{Hasher, Verified};

pub(super) struct Sink {
    hasher: Hasher,
    temp: Option<Temp>,
    store: Arc<Store>,
    pub written: u64,
    /// Bytes that stand in the file, from the start without a gap.
    pub filed: u64,
}

impl Sink {
    pub(super) fn new(hasher: Hasher, temp: Option<Temp>, store: Arc<Store>) -> Self {
        Self { hasher, temp, store, written: 0, filed: 0 }
    }

    /// Hashes and writes a batch. Gives back what the file would not take.
    pub(super) fn take(mut self, batch: Vec<Bytes>) -> (Self, Vec<Bytes>) {
        let mut unfiled = Vec::new();
        for bytes in batch {
            self.hasher.update(&bytes);
            self.written += bytes.len() as u64;
            let left = self.file(bytes);
            if !left.is_empty() {
                unfiled.push(left);
            }
        }
        (self, unfiled)
    }

    /// Writes what it can and gives the rest back. A file that once failed is let go: its name goes now, its bytes when
    /// the last follower has read them.
    fn file(&mut self, mut bytes: Bytes) -> Bytes {
        let Some(temp) = &self.temp else { return bytes };
        while !bytes.is_empty() {
            match temp.file.write_at(&bytes, self.filed) {
                Ok(count) if count > 0 => {
                    self.filed += count as u64;
                    let _ = bytes.split_to(count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                failed => {
                    let error = failed.err().unwrap_or_else(|| std::io::ErrorKind::WriteZero.into());
                    self.store.stats.failed(&error);
                    self.store.look_for_room();
                    self.temp = None;
                    return bytes;
                }
            }
        }
        bytes
    }

    /// The proof, and the file where it is whole; or the digest that the bytes really have.
    pub(super) fn verify(self, expected: &Digest) -> Result<(Verified, Option<Temp>), Digest> {
        Ok((self.hasher.verify(expected)?, self.temp))
    }
}
