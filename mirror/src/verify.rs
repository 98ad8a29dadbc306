//! Hashing, and the proof that it came out right. [`Verified`] can only be made here, and the store publishes nothing
//! without one. Must not read or write files.

use larder_wire::digest::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha512};

/// A running hash of the algorithm that the expected digest names.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// Proof that the bytes hashed are those the digest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verified(Digest);

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::Sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::Sha512(hash.finalize().into()),
        }
    }

    /// The proof, or the digest that the bytes really have.
    pub(crate) fn verify(self, expected: &Digest) -> Result<Verified, Digest> {
        let found = self.finish();
        if found == *expected { Ok(Verified(found)) } else { Err(found) }
    }
}

impl Verified {
    pub(crate) fn digest(&self) -> &Digest {
        &self.0
    }

    /// Names and proves bytes whose digest nobody told beforehand.
    pub(crate) fn name(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        Self(hasher.finish())
    }

    /// Proves bytes in memory.
    pub(crate) fn check(bytes: &[u8], expected: &Digest) -> Result<Self, Digest> {
        let mut hasher = Hasher::new(expected.algorithm());
        hasher.update(bytes);
        hasher.verify(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_bytes_are_verified() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"abc");
            let digest = hasher.finish();
            assert_eq!(Verified::check(b"abc", &digest).unwrap().digest(), &digest);
            assert!(Verified::check(b"abd", &digest).is_err());
        }
    }
}
