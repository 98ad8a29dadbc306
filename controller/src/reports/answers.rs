//! Answers that cost a question to the API server: remembered for a time, good and bad ones apart so that a
//! flood of bad ones pushes no good one out, and asked once however many wait for the same. Must not know
//! what is asked.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::watch;
use tokio::time::Instant;

use super::refuse::Refusal;
use super::token::Key;

/// Good answers that are remembered: three times the nodes of a large cluster.
const GOOD: NonZeroUsize = NonZeroUsize::new(16_384).expect("it is not zero");
const BAD: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// An answer, and for how long it holds.
pub(super) struct Verdict<T> {
    pub(super) answer: Result<T, Refusal>,
    pub(super) keep: Duration,
    /// For how much longer a good one holds while it cannot be asked again for want of a turn.
    pub(super) grace: Duration,
}

/// A good answer in its time.
struct Good<T> {
    answer: T,
    /// Asked again from then on.
    until: Instant,
    /// Not believed any more from then on.
    end: Instant,
}

/// Answers of one kind.
pub(super) struct Answers<T>(Arc<Mutex<Book<T>>>);

struct Book<T> {
    good: LruCache<Key, Good<T>>,
    bad: LruCache<Key, (Refusal, Instant)>,
    /// Questions under way.
    asked: HashMap<Key, watch::Receiver<Option<Result<T, Refusal>>>>,
}

impl<T: Clone + Send + Sync + 'static> Answers<T> {
    pub(super) fn new() -> Self {
        let book = Book { good: LruCache::sparse(GOOD), bad: LruCache::sparse(BAD), asked: HashMap::new() };
        Self(Arc::new(Mutex::new(book)))
    }

    /// Whether it was answered well before, and that is not long ago.
    pub(super) fn is_known(&self, key: &Key) -> bool {
        lock(&self.0).late(key, Instant::now()).is_some()
    }

    /// The remembered answer, or that of `question`, which is asked to its end even if nobody waits any more.
    pub(super) async fn of(
        &self,
        key: Key,
        question: impl Future<Output = Verdict<T>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let mut waiting = {
            let mut book = lock(&self.0);
            if let Some(answer) = book.remembered(&key, Instant::now()) {
                return answer;
            }
            match book.asked.get(&key) {
                Some(waiting) => waiting.clone(),
                None => {
                    let (tell, waiting) = watch::channel(None);
                    book.asked.insert(key, waiting.clone());
                    tokio::spawn(ask(Arc::clone(&self.0), key, question, tell));
                    waiting
                }
            }
        };
        match waiting.wait_for(Option::is_some).await.map(|answer| answer.clone()) {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(Refusal::Unreviewed { again: Duration::from_secs(5) }),
        }
    }
}

async fn ask<T: Clone>(
    book: Arc<Mutex<Book<T>>>,
    key: Key,
    question: impl Future<Output = Verdict<T>>,
    tell: watch::Sender<Option<Result<T, Refusal>>>,
) {
    let place = Place { book: Arc::clone(&book), key };
    let answer = question.await;
    let answer = lock(&book).take(key, answer, Instant::now());
    drop(place);
    tell.send_replace(Some(answer));
}

/// A question's place among those under way; given up even if the question panics.
struct Place<T> {
    book: Arc<Mutex<Book<T>>>,
    key: Key,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        lock(&self.book).asked.remove(&self.key);
    }
}

impl<T: Clone> Book<T> {
    fn remembered(&mut self, key: &Key, now: Instant) -> Option<Result<T, Refusal>> {
        if let Some(good) = self.good.get(key) {
            if now < good.until {
                return Some(Ok(good.answer.clone()));
            }
            if now >= good.end {
                self.good.pop(key);
            }
        }
        self.bad.get(key).filter(|(_, until)| now < *until).map(|(refusal, _)| Err(refusal.clone()))
    }

    /// A good answer, though it is time to ask again.
    fn late(&self, key: &Key, now: Instant) -> Option<T> {
        self.good.peek(key).filter(|good| now < good.end).map(|good| good.answer.clone())
    }

    /// Remembers an answer. One who was not even heard is answered as before, for a time.
    fn take(&mut self, key: Key, verdict: Verdict<T>, now: Instant) -> Result<T, Refusal> {
        let Verdict { answer, keep, grace } = verdict;
        match &answer {
            Ok(good) => {
                let until = now + keep;
                self.good.put(key, Good { answer: good.clone(), until, end: until + grace });
            }
            Err(Refusal::Busy { .. }) => return self.late(&key, now).map_or(answer, Ok),
            Err(Refusal::Unreviewed { .. }) => {}
            Err(refusal) => {
                self.good.pop(&key);
                self.bad.put(key, (refusal.clone(), now + keep));
            }
        }
        answer
    }
}

fn lock<T>(book: &Mutex<Book<T>>) -> MutexGuard<'_, Book<T>> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
