//! One fetch for a thing that many ask for at once. The fetch is a task of its own: nobody who asked can slow or stop it.
//! [`Once`] is for what fits in memory (tags, manifests, tokens); [`Stream`] is for blobs, which everybody follows in
//! the growing file. Must not know what is fetched or how.

mod follow;
mod relay;
mod stream;

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub(crate) use follow::Follower;
pub(crate) use stream::{Head, SMALL_BODY, Stream, Streams};

/// Whether the caller's own request made the fetch start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
}

type Landing<V> = watch::Receiver<Option<V>>;

/// Flights that end in a value.
pub(crate) struct Once<K, V> {
    under_way: Arc<Mutex<HashMap<K, Landing<V>>>>,
}

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self { under_way: Arc::default() }
    }
}

impl<K, V> Once<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the flight for a key, starting it where there is none. What lands is `None` only if the fetch panicked.
    pub(crate) fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> (Role, Landed<V>)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = lock(&self.under_way);
        if let Some(landing) = under_way.get(&key) {
            return (Role::Follower, Landed(landing.clone()));
        }
        let (land, landing) = watch::channel(None);
        under_way.insert(key.clone(), landing.clone());
        drop(under_way);
        let ending = Ending { under_way: Arc::clone(&self.under_way), key: Some(key) };
        let fetch = start();
        tokio::spawn(async move {
            let value = fetch.await;
            // Out of the map first: who comes after the value is there starts anew.
            drop(ending);
            land.send_replace(Some(value));
        });
        (Role::Leader, Landed(landing))
    }
}

/// Takes a flight out of the map however its task ends.
struct Ending<K: Eq + Hash, V> {
    under_way: Arc<Mutex<HashMap<K, Landing<V>>>>,
    key: Option<K>,
}

impl<K: Eq + Hash, V> Drop for Ending<K, V> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            lock(&self.under_way).remove(&key);
        }
    }
}

/// A flight's end, waited for.
pub(crate) struct Landed<V>(Landing<V>);

impl<V: Clone> Landed<V> {
    pub(crate) async fn value(mut self) -> Option<V> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|value| value.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn many_ask_and_one_fetches() {
        let (flights, fetched) = (Once::default(), Arc::new(AtomicUsize::new(0)));
        let (release, held) = watch::channel(false);
        let mut roles = Vec::new();
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let (fetched, mut held) = (Arc::clone(&fetched), held.clone());
            let (role, landed) = flights.join("key", || async move {
                let _ = held.wait_for(|released| *released).await;
                fetched.fetch_add(1, Ordering::SeqCst)
            });
            roles.push(role);
            waiting.push(landed);
        }
        // The one that started it goes away.
        drop(waiting.remove(0));
        release.send_replace(true);
        for landed in waiting {
            assert_eq!(landed.value().await, Some(0));
        }
        assert_eq!(roles.iter().filter(|role| **role == Role::Leader).count(), 1);
        assert_eq!(flights.join("key", || async { 7 }).1.value().await, Some(7), "the next one starts anew");
    }

    #[tokio::test]
    async fn a_fetch_that_panics_wakes_everybody() {
        let flights: Once<&str, u8> = Once::default();
        let (_, landed) = flights.join("key", || async { panic!("as a bug might") });
        assert_eq!(landed.value().await, None);
        assert_eq!(flights.join("key", || async { 1 }).1.value().await, Some(1));
    }
}
