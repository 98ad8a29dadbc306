//! Reading a stored file to see whether it is what its name says. Blocks; what is wrong is put away. Must not serve.

use super::blobs::BlobKey;
use super::{OpenBlob, Store};
use crate::verify::Hasher;

/// What is read at a time.
const PIECE: usize = 1 << 20;

impl Store {
    /// Whether an open file is right; a wrong one is put away. `progress` is told how far it is, in bytes.
    pub(crate) fn hash(&self, key: &BlobKey, blob: &OpenBlob, mut progress: impl FnMut(u64)) -> bool {
        let mut hasher = Hasher::new(key.digest.algorithm());
        let mut buffer = vec![0; PIECE.min(usize::try_from(blob.size).unwrap_or(PIECE))];
        let mut at = 0;
        while at < blob.size {
            let length = buffer.len().min(usize::try_from(blob.size - at).unwrap_or(usize::MAX));
            if let Err(error) = blob.region.read_at(&mut buffer[..length], at) {
                self.stats.failed(&error);
                break;
            }
            hasher.update(&buffer[..length]);
            at += length as u64;
            progress(at);
        }
        match hasher.verify(&key.digest) {
            Ok(proof) => {
                self.prove(key, blob, &proof);
                true
            }
            Err(found) => {
                tracing::error!(digest = %key.digest, %found, "a stored file is not what its name says and is put away");
                self.quarantine(key);
                false
            }
        }
    }
}
