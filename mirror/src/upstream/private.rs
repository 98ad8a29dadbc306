//! What was learnt about repositories, for a while. Bounded; must not outlive the process.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_wire::name::Repository;
use lru::LruCache;
use tokio::time::Instant;

pub(super) struct Remembered {
    life: Duration,
    known: Mutex<LruCache<Repository, (Instant, u16)>>,
}

const MOST: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

impl Remembered {
    pub(super) fn new(life: Duration) -> Self {
        Self { life, known: Mutex::new(LruCache::new(MOST)) }
    }

    pub(super) fn remember(&self, repository: Repository, status: u16) {
        let until = Instant::now() + self.life;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(repository, (until, status));
    }

    /// The status that was remembered, while it is remembered.
    pub(super) fn recall(&self, repository: &Repository) -> Option<u16> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.peek(repository).filter(|(until, _)| *until > Instant::now()).map(|(_, status)| *status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_ends() {
        let remembered = Remembered::new(Duration::from_secs(60));
        let name: Repository = "a/b".parse().unwrap();
        remembered.remember(name.clone(), 401);
        assert_eq!(remembered.recall(&name), Some(401));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(remembered.recall(&name), None);
    }
}
