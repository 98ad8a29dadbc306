//! How much of each upload the registry has, by its session. A client may send the next chunk to another
//! replica, so what is remembered is exact only for the very address that the registry gave out last. Must
//! not grow beyond its bound.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::uri::PathAndQuery;
use larder_wire::name::Repository;
use lru::LruCache;

/// Sessions in memory, under 100 bytes each.
const KEPT: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// Sessions by repository and name, the least recently used forgotten first.
pub struct Sessions(Mutex<LruCache<u64, Session>>);

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    offset: u64,
    /// Of the address at which the registry has so much.
    address: u64,
}

/// What is known about where a request's bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Exactly(u64),
    AtLeast(u64),
}

impl Default for Sessions {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl Sessions {
    pub(super) fn known(&self, name: &Repository, target: &PathAndQuery) -> Known {
        match self.lock().get(&session(name, target.path())) {
            Some(session) if session.address == address(target) => Known::Exactly(session.offset),
            Some(session) => Known::AtLeast(session.offset),
            None => Known::AtLeast(0),
        }
    }

    /// The registry has `offset` bytes, and the upload goes on at `location`.
    pub(super) fn keep(&self, name: &Repository, location: Option<PathAndQuery>, offset: Option<u64>) {
        let Some(location) = location else { return };
        let key = session(name, location.path());
        match offset {
            Some(offset) => drop(self.lock().put(key, Session { offset, address: address(&location) })),
            None => drop(self.lock().pop(&key)),
        }
    }

    pub(super) fn forget(&self, name: &Repository, path: &str) {
        self.lock().pop(&session(name, path));
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<u64, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The least that is there already.
    pub(super) fn hint(self) -> u64 {
        match self {
            Self::Exactly(offset) | Self::AtLeast(offset) => offset,
        }
    }

    pub(super) fn exact(self) -> Option<u64> {
        match self {
            Self::Exactly(offset) => Some(offset),
            Self::AtLeast(_) => None,
        }
    }

    /// What a client says about it can only add to what is not exact.
    pub(super) fn moved_to(self, start: Option<u64>) -> Self {
        match (self, start) {
            (Self::AtLeast(offset), Some(start)) => Self::AtLeast(offset.max(start)),
            (known, _) => known,
        }
    }
}

fn session(name: &Repository, path: &str) -> u64 {
    let last = path.rsplit_once('/').map_or(path, |(_, last)| last);
    hash(&(name.as_str(), last))
}

/// The same for an address and for what a client makes of it when it adds the digest.
fn address(target: &PathAndQuery) -> u64 {
    let query = url::form_urlencoded::parse(target.query().unwrap_or_default().as_bytes());
    let mut pairs: Vec<_> = query.filter(|(key, _)| key != "digest").collect();
    pairs.sort();
    hash(&(target.path(), pairs))
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
