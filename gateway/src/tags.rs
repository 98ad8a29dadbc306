//! How many tags, images and repositories there are, and who may have the next place: asked of the replica
//! that owns the namespace, here or elsewhere. Must not list tags when a manifest comes, but in `mode =
//! "synchronous"`.

mod index;
mod known;
mod read;
mod reservation;
mod space;

use std::sync::Arc;
use std::time::Duration;

use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::caller::Caller;
use crate::config::Mode;
use crate::limits::{Counted, Used, namespace};
use crate::metrics::Metrics;
use crate::owner::{Owners, Place};
use crate::peers::{News, PeerError, Peers};
use crate::policy::PolicyWatch;
use crate::upstream::Upstream;
pub(crate) use index::Index;
pub(crate) use read::Trouble;
pub use reservation::Reservation;
pub use space::Push;
use space::Ticket;

/// Between two tries to find out who owns a namespace.
const AGAIN: Duration = Duration::from_millis(100);

/// How tags are counted.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub mode: Mode,
    /// The longest wait of a push for what has to be read.
    pub seed_timeout: Duration,
}

/// What [`Tags`] is made of.
pub struct Parts {
    pub upstream: Arc<Upstream>,
    pub policy: PolicyWatch,
    pub metrics: Arc<Metrics>,
    pub settings: Settings,
    pub owners: Owners,
    /// `None`: there is no other replica.
    pub peers: Option<Peers>,
}

/// The counts of every namespace. Clones share them.
#[derive(Clone)]
pub struct Tags(Arc<Inner>);

struct Inner {
    index: Index,
    upstream: Arc<Upstream>,
    policy: PolicyWatch,
    settings: Settings,
    owners: Owners,
    peers: Option<Peers>,
}

/// What a push was told. Between replicas it travels as JSON.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Without a ticket: it adds nothing, so nothing is held.
    Granted {
        ticket: Option<Ticket>,
        used: Vec<Used>,
    },
    Full(Used),
    /// The counts are not known in time.
    Unknown,
    /// The registry let the client see nothing: the status.
    Unauthorized,
}

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Landed,
    Refused,
    /// Nobody knows: only the registry can tell, later.
    Unclear,
}

/// Why a push has no place.
#[derive(Debug)]
pub enum NoPlace {
    Full(Used),
    Unknown,
    Unauthorized,
}

impl Answer {
    fn unknown(trouble: &Trouble) -> Self {
        debug!(%trouble, "the counts are not known");
        match trouble {
            Trouble::Unauthorized(_) => Self::Unauthorized,
            Trouble::Upstream(_) | Trouble::TooLong => Self::Unknown,
        }
    }
}

impl Tags {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { upstream, policy, metrics, settings, owners, peers } = parts;
        let index = Index::new(Arc::clone(&upstream), policy.clone(), metrics, settings);
        Self(Arc::new(Inner { index, upstream, policy, settings, owners, peers }))
    }

    /// An upload or a look at a manifest: a push may follow, and what it will need is read meanwhile.
    pub fn touch(&self, repository: &Repository, caller: &Caller) {
        let quota = self.0.policy.current().limits(repository).quota;
        if !quota.counts_tags() && !quota.counts_images() {
            return;
        }
        match self.place(repository) {
            Place::Here => self.0.index.touch(repository, caller),
            Place::There(owner) => {
                let (tags, repository, caller) = (self.clone(), repository.clone(), caller.clone());
                tokio::spawn(async move {
                    let Some(peers) = &tags.0.peers else { return };
                    if let Err(error) = peers.touch(owner, &repository, &caller).await {
                        debug!(%owner, %error, "the owner could not be told of an upload");
                    }
                });
            }
            Place::Nowhere => {}
        }
    }

    /// Holds places for a push. Waits at most about the seed timeout.
    ///
    /// # Errors
    /// [`NoPlace`]; nothing is held then.
    pub async fn reserve(&self, push: Push, caller: &Caller) -> Result<Reservation, NoPlace> {
        let quota = self.0.policy.current().limits(&push.repository).quota;
        if quota.bounds().next().is_none() {
            return Ok(self.uncounted(push, caller));
        }
        let deadline = Instant::now() + self.0.settings.seed_timeout;
        loop {
            let owner = self.place(&push.repository);
            let answer = match (owner, &self.0.peers) {
                (Place::Here, _) => Ok(self.0.index.reserve(&push, caller).await),
                (Place::There(owner), Some(peers)) => {
                    let patience = deadline.saturating_duration_since(Instant::now()) + AGAIN;
                    peers.reserve(owner, &push, caller, patience).await
                }
                (Place::There(_) | Place::Nowhere, _) => Err(PeerError::NotTheOwner),
            };
            match answer {
                Ok(Answer::Granted { ticket, used }) => {
                    return Ok(Reservation::new(self.clone(), push, caller.clone(), owner, ticket, used));
                }
                Ok(Answer::Full(used)) => return Err(NoPlace::Full(used)),
                Ok(Answer::Unknown) => return Err(NoPlace::Unknown),
                Ok(Answer::Unauthorized) => return Err(NoPlace::Unauthorized),
                Err(error) if Instant::now() + AGAIN >= deadline => {
                    debug!(%error, repository = %push.repository, "no owner in time");
                    return Err(NoPlace::Unknown);
                }
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    /// A push that goes on without a place; it is counted if it lands.
    #[must_use]
    pub fn uncounted(&self, push: Push, caller: &Caller) -> Reservation {
        let owner = self.place(&push.repository);
        Reservation::new(self.clone(), push, caller.clone(), owner, None, Vec::new())
    }

    /// The registry has deleted a tag.
    pub fn deleted_tag(&self, repository: &Repository, tag: &Tag, caller: &Caller) {
        self.tell(repository, News::TagDeleted(tag.clone()), caller);
    }

    /// The registry has deleted a manifest, and all the tags that pointed at it.
    pub fn deleted_digest(&self, repository: &Repository, digest: &Digest, caller: &Caller) {
        self.tell(repository, News::ImageDeleted(*digest), caller);
    }

    /// Tells the owner what happened in a repository. What gets lost on the way is found by the next resync.
    pub(crate) fn tell(&self, repository: &Repository, news: News, caller: &Caller) {
        match (self.place(repository), &self.0.peers) {
            (Place::Here, _) => self.heard(repository, news, caller),
            (Place::There(owner), Some(_)) => {
                let (tags, repository, caller) = (self.clone(), repository.clone(), caller.clone());
                tokio::spawn(async move {
                    let Some(peers) = &tags.0.peers else { return };
                    if let Err(error) = peers.tell(owner, &repository, &news, &caller).await {
                        debug!(%owner, %error, "the owner could not be told");
                    }
                });
            }
            (Place::There(_) | Place::Nowhere, _) => {}
        }
    }

    /// Takes over what happened in a repository of ours.
    pub(crate) fn heard(&self, repository: &Repository, news: News, caller: &Caller) {
        let index = &self.0.index;
        match news {
            News::TagDeleted(tag) => index.tag_deleted(repository, &tag),
            News::ImageDeleted(digest) => index.image_deleted(repository, &digest, caller),
            News::Said { tag, present } => index.look(repository, tag, present, caller),
        }
    }

    /// The replicas have changed: what another one counts now is forgotten here, so that it cannot be old
    /// when it comes back.
    pub fn owners_changed(&self) {
        self.tidy();
    }

    /// Forgets what nobody uses and what is not counted here.
    pub(crate) fn tidy(&self) {
        let now = std::time::Instant::now();
        self.0.index.tidy(now, |namespace| self.0.owners.may_keep(namespace));
    }

    pub(crate) fn index(&self) -> &Index {
        &self.0.index
    }

    pub(crate) fn owners(&self) -> &Owners {
        &self.0.owners
    }

    /// The used amounts of the namespaces that have a quota and are owned here, and the policy they are held
    /// against:
    /// `{"namespaces":{"team-a":{"images":3,"tags":5,"repos":1}},"policy":{"generation":1,"hash":"…"}}`. What
    /// is not known yet is left out.
    #[must_use]
    pub fn usage(&self) -> Value {
        let policy = self.0.policy.current();
        let ours = policy.namespaces().filter(|name| self.0.owners.place(name) == Place::Here);
        let of = |name: &str| {
            let counted = [
                ("repos", Counted::NamespaceRepositories),
                ("images", Counted::NamespaceImages),
                ("tags", Counted::NamespaceTags),
            ];
            let amounts = counted.into_iter().filter_map(|(key, counted)| {
                Some((key.to_owned(), Value::from(self.0.index.total(name, counted)?)))
            });
            Value::Object(amounts.collect())
        };
        let namespaces: Map<String, Value> = ours.map(|name| (name.to_owned(), of(name))).collect();
        json!({"namespaces": namespaces, "policy": {"generation": policy.generation, "hash": policy.hash}})
    }

    fn place(&self, repository: &Repository) -> Place {
        self.0.owners.place(namespace(repository))
    }
}
