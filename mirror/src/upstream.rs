//! The registry on the other side: one request with its rights, redirects and pauses. Everything that is asked of an
//! upstream goes through [`Upstream::ask`]. Must not store or answer anything.

mod ask;
pub(crate) mod auth;
pub(crate) mod breaker;
pub(crate) mod client;
pub(crate) mod guard;
mod private;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method};
use larder_wire::name::Repository;
use larder_wire::settings::{Access, Capability, UpstreamSettings};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::error::UpstreamError;
use crate::flight::Once;
use crate::stats::RegistryStats;
use crate::store::Class;
use auth::{Challenge, CredentialFiles, Identity, Tokens};
use breaker::{Breakers, Lane, Pause, probe_pause};
use client::Client;
use private::Remembered;

pub(crate) use ask::{Ask, Reply, Target};

/// One configured registry.
pub(crate) struct Upstream {
    pub settings: UpstreamSettings,
    pub class: Class,
    pub stats: Arc<RegistryStats>,
    /// The files whose certificates its client trusts besides the system's.
    pub trusts: Vec<PathBuf>,
    client: Client,
    files: CredentialFiles,
    challenge: std::sync::Mutex<Option<Challenge>>,
    tokens: Tokens,
    breakers: Breakers,
    permits: Arc<Semaphore>,
    /// Repositories that answered 401 or 403 to the rights we may use.
    private: Remembered,
    /// Repositories that could be read, for a public upstream by an anonymous request.
    public: Remembered,
    gates: std::sync::Mutex<HashMap<Repository, std::sync::Weak<Mutex<()>>>>,
    proofs: Once<(Repository, Target), Result<(), UpstreamError>>,
    /// What is left of its rate limit; negative: it never said.
    ratelimit: AtomicI64,
}

const PRIVATE_FOR: Duration = Duration::from_secs(60);
const PUBLIC_FOR: Duration = Duration::from_secs(3600);

impl Upstream {
    pub(crate) fn new(
        settings: UpstreamSettings,
        client: Client,
        trusts: Vec<PathBuf>,
        stats: Arc<RegistryStats>,
    ) -> Self {
        let files = CredentialFiles {
            username: settings.username_file.clone(),
            password: settings.password_file.clone(),
        };
        let class = match settings.access {
            Access::Public => Class::Public,
            Access::Shared => Class::Shared(settings.registry.clone()),
        };
        Self {
            class,
            stats,
            trusts,
            client,
            files,
            challenge: std::sync::Mutex::new(None),
            tokens: Tokens::default(),
            breakers: Breakers::default(),
            permits: Arc::new(Semaphore::new(settings.max_concurrent)),
            private: Remembered::new(PRIVATE_FOR),
            public: Remembered::new(PUBLIC_FOR),
            gates: std::sync::Mutex::default(),
            proofs: Once::default(),
            ratelimit: AtomicI64::new(-1),
            settings,
        }
    }

    /// Whether tags may be asked of us.
    pub(crate) fn resolves(&self) -> bool {
        self.settings.capabilities.contains(&Capability::Resolve)
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.settings.access == Access::Shared
    }

    /// Fails at once for a repository that was private a moment ago.
    pub(crate) fn known_private(&self, repository: &Repository) -> Result<(), UpstreamError> {
        self.private.recall(repository).map_or(Ok(()), |status| Err(UpstreamError::Private(status)))
    }

    pub(crate) fn up(&self) -> bool {
        self.breakers.up()
    }

    pub(crate) fn ratelimit_remaining(&self) -> Option<u64> {
        u64::try_from(self.ratelimit.load(Ordering::Relaxed)).ok()
    }

    /// Asks, with the rights that the upstream's `access` allows: a public repository is shown to be public before the
    /// node's credential is used for it; a list of one never needs the credential.
    pub(crate) async fn ask(self: &Arc<Self>, ask: &Ask) -> Result<Reply, UpstreamError> {
        let identity = self.identity(ask);
        self.first(&ask.repository, identity, async {
            if identity == Identity::Anonymous || self.is_shared() {
                return self.guarded(ask, identity).await;
            }
            self.prove_public(ask).await?;
            match self.guarded(ask, identity).await {
                // The repository is public: only our credential is no longer good.
                Err(UpstreamError::Private(_)) => self.guarded(ask, Identity::Anonymous).await,
                other => other,
            }
        })
        .await
    }

    fn identity(&self, ask: &Ask) -> Identity {
        let list = matches!(ask.target, Target::Tags(_) | Target::Referrers(..));
        if self.files.configured() && (self.is_shared() || !list) {
            Identity::Node
        } else {
            Identity::Anonymous
        }
    }

    /// What is asked of a repository first goes alone, so that a private one costs one try however many ask at once.
    /// Remembers the verdict.
    async fn first<T>(
        &self,
        repository: &Repository,
        identity: Identity,
        asking: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let gate = self.public.recall(repository).is_none().then(|| self.gate(repository));
        let held = match &gate {
            Some(gate) => Some(gate.lock().await),
            None => None,
        };
        self.known_private(repository)?;
        if self.public.recall(repository).is_some() {
            drop(held);
            return asking.await;
        }
        let answer = asking.await;
        match &answer {
            // What the node's credential could read is no proof that everybody may.
            Ok(_) if identity == Identity::Anonymous || self.is_shared() => {
                self.public.remember(repository.clone(), 200);
            }
            Ok(_) => {}
            Err(UpstreamError::Private(status)) => self.private.remember(repository.clone(), *status),
            Err(_) => {}
        }
        answer
    }

    fn gate(&self, repository: &Repository) -> Arc<Mutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        gates.retain(|_, gate| gate.strong_count() > 0);
        if let Some(gate) = gates.get(repository).and_then(std::sync::Weak::upgrade) {
            return gate;
        }
        let gate = Arc::new(Mutex::new(()));
        gates.insert(repository.clone(), Arc::downgrade(&gate));
        gate
    }

    /// What an anonymous HEAD of the same thing answers, once an hour and repository.
    async fn prove_public(self: &Arc<Self>, ask: &Ask) -> Result<(), UpstreamError> {
        if self.public.recall(&ask.repository).is_some() {
            return Ok(());
        }
        let (upstream, probe) = (Arc::clone(self), ask.clone());
        let key = (ask.repository.clone(), ask.target.clone());
        let (_, proof) = self.proofs.join(key, || async move {
            if upstream.public.recall(&probe.repository).is_some() {
                return Ok(());
            }
            let proven = upstream.stat(&probe, Identity::Anonymous).await.map(drop);
            match &proven {
                Ok(()) => upstream.public.remember(probe.repository, 200),
                Err(UpstreamError::Private(status)) => upstream.private.remember(probe.repository, *status),
                Err(_) => {}
            }
            proven
        });
        proof.value().await.unwrap_or(Err(UpstreamError::Abandoned))
    }

    /// Whether something is there, and what its head says. HEAD first; some registries refuse it for blobs, then one
    /// byte is asked for.
    async fn stat(self: &Arc<Self>, ask: &Ask, identity: Identity) -> Result<Reply, UpstreamError> {
        let head = self.guarded(&Ask { method: Method::HEAD, ..ask.clone() }, identity).await;
        match head {
            Err(UpstreamError::Private(_) | UpstreamError::NotFound | UpstreamError::Status(400..=499))
                if matches!(ask.target, Target::Blob(_)) =>
            {
                self.guarded(&Ask { method: Method::GET, first_byte: true, ..ask.clone() }, identity).await
            }
            other => other,
        }
    }

    /// [`Upstream::stat`] with the rights of [`Upstream::ask`].
    pub(crate) async fn stat_blob(self: &Arc<Self>, ask: &Ask) -> Result<Reply, UpstreamError> {
        let identity = self.identity(ask);
        self.first(&ask.repository, identity, async {
            if identity == Identity::Node && !self.is_shared() {
                self.prove_public(ask).await?;
            }
            self.stat(ask, identity).await
        })
        .await
    }

    /// One request within the limits: pauses, permits, and what its outcome means for the next one.
    async fn guarded(self: &Arc<Self>, ask: &Ask, identity: Identity) -> Result<Reply, UpstreamError> {
        let lane = ask.target.lane();
        self.allowed(lane)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| UpstreamError::Abandoned)?;
        // Much may have been learnt while this one waited its turn.
        self.allowed(lane)?;
        let asked = self.authorized(ask, identity).await.and_then(|reply| {
            self.note(reply.headers());
            ask::check(ask, reply)
        });
        self.judge(lane, asked.as_ref().err());
        asked.map(|reply| Reply { permit: Some(permit), ..reply })
    }

    /// Fails at once while the upstream is left alone.
    fn allowed(&self, lane: Lane) -> Result<(), UpstreamError> {
        match self.breakers.pause(lane, Instant::now()) {
            Some(Pause::Asked(left)) => Err(UpstreamError::Limited(Some(left))),
            Some(Pause::Failing) => Err(UpstreamError::Resting),
            None => Ok(()),
        }
    }

    fn judge(self: &Arc<Self>, lane: Lane, error: Option<&UpstreamError>) {
        match error {
            Some(UpstreamError::Limited(wait)) => self.breakers.quiet(*wait, Instant::now()),
            Some(error) if error.is_failure() => self.failed(lane),
            _ => self.breakers.succeeded(lane),
        }
    }

    /// Counts a failure, a broken body among them, and sends a probe out when it was one too many.
    pub(crate) fn failed(self: &Arc<Self>, lane: Lane) {
        if self.breakers.failed(lane) {
            tracing::warn!(registry = %self.settings.registry, "upstream keeps failing and is left alone for a while");
            tokio::spawn(probe(Arc::downgrade(self)));
        }
    }

    fn note(&self, headers: &HeaderMap) {
        let remaining = headers.get("ratelimit-remaining").and_then(|value| value.to_str().ok());
        let number = remaining.and_then(|text| text.split(';').next()?.trim().parse::<i64>().ok());
        if let Some(number) = number {
            self.ratelimit.store(number, Ordering::Relaxed);
        }
    }
}

/// Asks `GET /v2/` until it is answered: any answer but a 5xx will do.
async fn probe(upstream: std::sync::Weak<Upstream>) {
    for attempt in 0.. {
        let random = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        tokio::time::sleep(probe_pause(attempt, random)).await;
        let Some(upstream) = upstream.upgrade() else { return };
        if upstream.ping().await {
            tracing::info!(registry = %upstream.settings.registry, "upstream is back");
            upstream.breakers.recovered();
            return;
        }
    }
}

/// Seconds or a date; nothing when it is neither.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(std::time::SystemTime::now()).ok()
}
