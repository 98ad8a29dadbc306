//! The index of the namespaces that this replica owns: the ledgers behind one lock, and the readings that
//! fill them. Must not know of other replicas, nor hold the lock while it waits.

use std::collections::{HashMap, HashSet};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout_at;
use tracing::debug;

use super::known::Reading;
use super::read::{self, Found, Trouble};
use super::space::{Denial, Space, Ticket};
use super::{Answer, Outcome, Push, Settings};
use crate::caller::Caller;
use crate::config::Mode;
use crate::limits::{Counted, Limits, Used, namespace};
use crate::metrics::Metrics;
use crate::policy::PolicyWatch;
use crate::upstream::Upstream;

/// So many more tags than the limit are kept before a reading is broken off.
const SLACK: u64 = 1000;
/// Readings at once; the others wait for their turn.
const READINGS: usize = 16;
/// Readings under way and waiting; beyond that nobody starts one by touching a repository.
const MOST_FLIGHTS: usize = 1000;
/// Tags in memory, about 60 bytes each; beyond that the repositories that nobody uses go first.
const MOST_TAGS: usize = 1_000_000;
/// Repositories that nobody has used for so long are forgotten, sooner when memory is short.
const IDLE: [Duration; 4] =
    [Duration::from_secs(3600), Duration::from_secs(1200), Duration::from_secs(300), Duration::from_secs(60)];

#[derive(Clone)]
pub(crate) struct Index(Arc<Inner>);

struct Inner {
    upstream: Arc<Upstream>,
    policy: PolicyWatch,
    metrics: Arc<Metrics>,
    settings: Settings,
    spaces: Mutex<HashMap<Box<str>, Space>>,
    flights: Mutex<HashMap<Flight, Landing>>,
    turns: Semaphore,
    tickets: AtomicU64,
    /// Rung when something has to be read again soon, with the gateway's own credential.
    bell: Notify,
}

/// What is being read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Flight {
    Tags(Repository),
    Images(Repository),
}

type Landing = watch::Receiver<Option<Result<(), Trouble>>>;

impl Index {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        policy: PolicyWatch,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Self {
        // Tickets of the process before this one must not be taken for ours.
        let first = getrandom::u64().map_or(0, |random| random >> 1);
        Self(Arc::new(Inner {
            upstream,
            policy,
            metrics,
            settings,
            spaces: Mutex::default(),
            flights: Mutex::default(),
            turns: Semaphore::new(READINGS),
            tickets: AtomicU64::new(first),
            bell: Notify::new(),
        }))
    }

    /// Somebody is about to push here: what will be asked then is read now.
    pub(crate) fn touch(&self, repository: &Repository, caller: &Caller) {
        let limits = self.limits(repository);
        let fresh = |space: &mut Space| {
            let shelf = space.shelf(Instant::now(), repository, &limits);
            (shelf.tags.is_sure(), shelf.images.is_sure())
        };
        let counts = (limits.quota.counts_tags(), limits.quota.counts_images());
        if (!counts.0 && !counts.1) || lock(&self.0.flights).len() >= MOST_FLIGHTS {
            return;
        }
        let known = self.with(repository, fresh);
        if counts.1 && !known.1 {
            self.read(Flight::Images(repository.clone()), caller);
        } else if !known.0 {
            self.read(Flight::Tags(repository.clone()), caller);
        }
    }

    /// Holds places for a push, after reading what has to be known, for at most the seed timeout.
    pub(crate) async fn reserve(&self, push: &Push, caller: &Caller) -> Answer {
        let limits = self.limits(&push.repository);
        let deadline = tokio::time::Instant::now() + self.0.settings.seed_timeout;
        if self.0.settings.mode == Mode::Synchronous && limits.quota.counts_tags() && !push.tags.is_empty() {
            let reading = self.read_tags(&push.repository, caller);
            match timeout_at(deadline, reading).await {
                Ok(Ok(())) => {}
                Ok(Err(trouble)) => return Answer::unknown(&trouble),
                Err(_) => return Answer::Unknown,
            }
        }
        let ticket = self.0.tickets.fetch_add(1, Ordering::Relaxed);
        let mut unauthorized = false;
        loop {
            let flight = match self
                .with(&push.repository, |space| space.reserve(Instant::now(), ticket, push, &limits))
            {
                Ok(used) => return Answer::Granted { ticket: Some(ticket), used },
                Err(Denial::Full(used)) => return Answer::Full(used),
                Err(Denial::FullUnlessThere(used)) => {
                    return self.unless_there(push, caller, Some(used)).await;
                }
                Err(Denial::NamespaceUnknown) => {
                    self.0.bell.notify_one();
                    return Answer::Unknown;
                }
                Err(Denial::TagsUnknown) => Flight::Tags(push.repository.clone()),
                Err(Denial::ImagesUnknown) => Flight::Images(push.repository.clone()),
            };
            let (ours, mut landing) = self.read(flight, caller);
            let landed = timeout_at(deadline, landing.wait_for(Option::is_some)).await;
            match landed.ok().and_then(Result::ok).and_then(|value| value.clone()) {
                Some(Ok(())) => {}
                // Somebody else's credential may have been worse than ours.
                Some(Err(_)) if !ours && !unauthorized => unauthorized = true,
                Some(Err(trouble @ Trouble::Unauthorized(_))) => return Answer::unknown(&trouble),
                Some(Err(_)) | None => return self.unless_there(push, caller, None).await,
            }
        }
    }

    pub(crate) fn settle(&self, ticket: Option<Ticket>, push: &Push, outcome: Outcome) {
        self.with_existing(&push.repository, |space| match (outcome, ticket) {
            (Outcome::Landed, ticket) => space.commit(ticket, push),
            (Outcome::Refused, Some(ticket)) => space.release(ticket),
            (Outcome::Unclear, Some(ticket)) => space.doubt(ticket),
            (Outcome::Refused | Outcome::Unclear, None) => {}
        });
        if outcome == Outcome::Unclear {
            self.0.bell.notify_one();
        }
        self.show();
    }

    pub(super) fn tag_deleted(&self, repository: &Repository, tag: &Tag) {
        self.with_existing(repository, |space| space.tag_deleted(repository, tag));
        self.show();
    }

    pub(super) fn image_deleted(&self, repository: &Repository, digest: &Digest, caller: &Caller) {
        let known = self.with_existing(repository, |space| {
            space.image_deleted(repository, digest);
            space.existing(repository).is_some_and(|shelf| shelf.tags.items().is_some())
        });
        if known == Some(true) {
            self.read(Flight::Tags(repository.clone()), caller);
        }
    }

    /// Somebody says that a tag is there or not. Where that is news, the registry is asked: what is said may
    /// be late.
    pub(super) fn look(&self, repository: &Repository, tag: Tag, present: bool, caller: &Caller) {
        let news = |space: &mut Space| {
            let items = space.existing(repository)?.tags.items()?;
            Some(items.contains(&tag) != present)
        };
        let counts = self.limits(repository).excluded.counts(&tag);
        if !counts || self.with_existing(repository, news).flatten() != Some(true) {
            return;
        }
        if !present {
            // Only a reading can tell: the tag may be coming back just now.
            self.with_existing(repository, |space| {
                space.existing(repository).map(|shelf| shelf.tags.doubt())
            });
            self.read(Flight::Tags(repository.clone()), caller);
            return;
        }
        let (index, repository, caller) = (self.clone(), repository.clone(), caller.clone());
        tokio::spawn(async move {
            let Ok(_turn) = index.0.turns.acquire().await else { return };
            let asked = slice::from_ref(&tag);
            match read::are_there(&index.0.upstream, &repository, &caller, asked).await {
                Ok(true) => {
                    index.with_existing(&repository, |space| space.tag_seen(&repository, tag));
                    index.show();
                }
                Ok(false) => {}
                Err(trouble) => debug!(%repository, %trouble, "what a notification says cannot be checked"),
            }
        });
    }

    /// Waits until something has to be read again soon.
    pub(crate) async fn rung(&self) {
        self.0.bell.notified().await;
    }

    /// Repositories something happened to since the last call.
    pub(crate) fn take_active(&self) -> Vec<Repository> {
        lock(&self.0.spaces).values_mut().flat_map(Space::take_active).collect()
    }

    /// Repositories that only another reading can tell about.
    pub(crate) fn doubtful(&self) -> Vec<Repository> {
        let now = Instant::now();
        lock(&self.0.spaces).values_mut().flat_map(|space| space.doubtful(now)).collect()
    }

    /// Whether it is known which repositories a namespace has.
    pub(crate) fn knows_names(&self, namespace: &str) -> bool {
        self.total(namespace, Counted::NamespaceRepositories).is_some()
    }

    /// Forgets what nobody uses, and what `is_ours` says belongs to another replica now.
    pub(crate) fn tidy(&self, now: Instant, is_ours: impl Fn(&str) -> bool) {
        let policy = self.0.policy.current();
        let mut spaces = lock(&self.0.spaces);
        spaces.retain(|name, _| is_ours(name));
        for idle in IDLE {
            let Some(before) = now.checked_sub(idle) else { continue };
            for (name, space) in spaces.iter_mut().filter(|(name, _)| !policy.counts_whole(name)) {
                debug!(namespace = %name, "forgetting what nobody uses");
                space.forget_idle(before);
            }
            if spaces.values().map(|space| space.size().1).sum::<usize>() <= MOST_TAGS {
                break;
            }
        }
        spaces.retain(|_, space| !space.is_empty());
        drop(spaces);
        self.show();
    }

    /// How much of a namespace is used, by what a quota calls it; what is not known is `None`.
    pub(super) fn total(&self, namespace: &str, counted: Counted) -> Option<u64> {
        lock(&self.0.spaces).get(namespace)?.total(counted)
    }

    #[cfg(test)]
    pub(crate) fn tags_of(&self, repository: &Repository) -> Option<u64> {
        self.with_existing(repository, |space| space.existing(repository)?.tags.len()).flatten()
    }

    /// Reads a repository's tags now. Nobody else's reading is joined: it may have begun too early.
    pub(crate) async fn read_tags(&self, repository: &Repository, caller: &Caller) -> Result<(), Trouble> {
        let Ok(_turn) = self.0.turns.acquire().await else { return Err(Trouble::TooLong) };
        let limits = self.limits(repository);
        let reading =
            self.with(repository, |space| space.shelf(Instant::now(), repository, &limits).tags.begin());
        let abandon = Abandon(Some(|| {
            self.with_existing(repository, |space| space.abandon_tags(repository, reading));
        }));
        let most = most(&limits);
        let Found { items, more } =
            read::tags(&self.0.upstream, repository, caller, &limits.excluded, most).await?;
        abandon.not_needed();
        let taken = self.with_existing(repository, |space| space.tags_read(repository, reading, items, more));
        self.0.metrics.drift(taken.unwrap_or_default());
        self.show();
        Ok(())
    }

    /// Reads the images of a repository, whose tags have to be known for it.
    pub(crate) async fn read_images(&self, repository: &Repository, caller: &Caller) -> Result<(), Trouble> {
        self.read_tags(repository, caller).await?;
        let Ok(_turn) = self.0.turns.acquire().await else { return Err(Trouble::TooLong) };
        let Some(begun) = self.with_existing(repository, |space| space.begin_images(repository)).flatten()
        else {
            return Ok(());
        };
        let abandon = Abandon(Some(|| {
            self.with_existing(repository, |space| space.abandon_images(repository, begun.reading));
        }));
        let found = read::images(&self.0.upstream, repository, caller, begun.tags, begun.pushed).await?;
        abandon.not_needed();
        self.with_existing(repository, |space| space.images_read(repository, begun.reading, found.items));
        Ok(())
    }

    /// Takes over the names of a namespace's repositories. `begin` was called before the catalog was walked.
    pub(crate) fn names_read(&self, namespace: &str, reading: Reading, names: HashSet<Repository>) {
        if let Some(space) = lock(&self.0.spaces).get_mut(namespace) {
            space.names.finish(reading, names, false);
        }
    }

    pub(crate) fn begin_names(&self, namespace: &str) -> Reading {
        lock(&self.0.spaces).entry(namespace.into()).or_default().names.begin()
    }

    pub(crate) fn abandon_names(&self, namespace: &str, reading: Reading) {
        if let Some(space) = lock(&self.0.spaces).get_mut(namespace) {
            space.names.abandon(reading);
        }
    }

    /// Joins a reading, starting it where there is none. The first part says whether it is the caller's own.
    fn read(&self, flight: Flight, caller: &Caller) -> (bool, Landing) {
        let mut flights = lock(&self.0.flights);
        if let Some(landing) = flights.get(&flight) {
            return (false, landing.clone());
        }
        let (land, landing) = watch::channel(None);
        flights.insert(flight.clone(), landing.clone());
        drop(flights);
        let (index, caller) = (self.clone(), caller.clone());
        tokio::spawn(async move {
            let landed = {
                let flights = Abandon(Some(|| drop(lock(&index.0.flights).remove(&flight))));
                let landed = match &flight {
                    Flight::Tags(repository) => index.read_tags(repository, &caller).await,
                    Flight::Images(repository) => index.read_images(repository, &caller).await,
                };
                drop(flights);
                landed
            };
            if let Err(trouble) = &landed {
                debug!(what = ?flight, %trouble, "could not be read");
            }
            land.send_replace(Some(landed));
        });
        (true, landing)
    }

    /// What is left when the tags cannot be counted: a push to tags that are all there adds none.
    async fn unless_there(&self, push: &Push, caller: &Caller, full: Option<Used>) -> Answer {
        let there = read::are_there(&self.0.upstream, &push.repository, caller, &push.tags).await;
        match (there, full) {
            (Ok(true), _) if !push.tags.is_empty() => Answer::Granted { ticket: None, used: Vec::new() },
            (Err(trouble @ Trouble::Unauthorized(_)), _) => Answer::unknown(&trouble),
            (_, Some(used)) => Answer::Full(used),
            _ => Answer::Unknown,
        }
    }

    fn limits(&self, repository: &Repository) -> Limits {
        self.0.policy.current().limits(repository)
    }

    fn with<T>(&self, repository: &Repository, act: impl FnOnce(&mut Space) -> T) -> T {
        act(lock(&self.0.spaces).entry(namespace(repository).into()).or_default())
    }

    fn with_existing<T>(&self, repository: &Repository, act: impl FnOnce(&mut Space) -> T) -> Option<T> {
        lock(&self.0.spaces).get_mut(namespace(repository)).map(act)
    }

    fn show(&self) {
        let (repositories, tags) =
            lock(&self.0.spaces).values().fold((0, 0), |sum: (usize, usize), space| {
                let (repositories, tags) = space.size();
                (sum.0 + repositories, sum.1 + tags)
            });
        self.0.metrics.index(repositories, tags);
    }
}

/// Does something when it is dropped, however that comes about.
struct Abandon<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Abandon<F> {
    fn not_needed(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Abandon<F> {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

fn most(limits: &Limits) -> usize {
    let bounds = [&limits.quota.tags, &limits.quota.namespace_tags].into_iter().flatten();
    let most = bounds.map(|bound| bound.max).min().unwrap_or(0).saturating_add(SLACK);
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
