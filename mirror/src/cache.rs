//! What all pulls share: the store, the upstreams, the flights under way and the counters. Must not hold a stage's logic.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use larder_wire::digest::Digest;
use larder_wire::name::{Registry, Repository};
use larder_wire::proof;
use larder_wire::report;
use larder_wire::settings::{Access, Settings, UpstreamSettings};
use lru::LruCache;
use rustls::RootCertStore;
use tokio::time::Instant;

use crate::config::{self, Tuning};
use crate::error::{Mismatch, UpstreamError};
use crate::flight::{Once, Streams};
use crate::lookup::TagLife;
use crate::stats::Stats;
use crate::store::{BlobKey, Manifest, Store, TagRow};
use crate::upstream::Upstream;
use crate::upstream::client::{self, Client};
use crate::upstream::guard::{OwnListeners, Policy};

pub(crate) struct Cache {
    pub node: String,
    pub store: Arc<Store>,
    pub stats: Stats,
    pub flights: Flights,
    pub tuning: Tuning,
    pub own: OwnListeners,
    /// What proves to the installer's probe that we are we.
    key: Vec<u8>,
    upstreams: RwLock<Arc<Upstreams>>,
    bans: Mutex<LruCache<(Registry, Digest), Instant>>,
    connections: AtomicU64,
    pub client_rate: AtomicU64,
}

/// The fetches under way.
#[derive(Default)]
pub(crate) struct Flights {
    pub blobs: Streams<FlightKey>,
    pub hashing: Streams<BlobKey>,
    pub manifests: Once<FlightKey, Result<Arc<Manifest>, UpstreamError>>,
    pub tags: Once<(Registry, Repository, larder_wire::name::Tag), Result<TagRow, UpstreamError>>,
    pub stats: Once<FlightKey, Result<u64, UpstreamError>>,
}

/// What one flight is for. Public bytes are the same for every repository; shared ones are authorised by repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlightKey {
    pub key: BlobKey,
    repository: Option<(Registry, Repository)>,
    /// Asked for as a manifest: not kept.
    pub manifest: bool,
}

/// The configured registries.
pub(crate) struct Upstreams {
    by_name: HashMap<String, Arc<Upstream>>,
    default: Option<Arc<Upstream>>,
    tag_life: TagLife,
}

/// How much is stored and how much room there is.
pub(crate) type Room = report::Cache;

const BANS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

impl Cache {
    pub(crate) fn new(
        store: Arc<Store>,
        stats: Stats,
        settings: &Settings,
        node: &str,
        key: Vec<u8>,
        tuning: Tuning,
    ) -> Arc<Self> {
        let own = OwnListeners::default();
        let upstreams = Upstreams::build(settings, &stats, &own, None);
        Arc::new(Self {
            node: node.to_owned(),
            store,
            stats,
            flights: Flights::default(),
            tuning,
            own,
            key,
            upstreams: RwLock::new(Arc::new(upstreams)),
            bans: Mutex::new(LruCache::new(BANS)),
            connections: AtomicU64::new(0),
            client_rate: AtomicU64::new(settings.listen.min_client_rate),
        })
    }

    pub(crate) fn apply(&self, settings: &Settings) {
        let next = Upstreams::build(settings, &self.stats, &self.own, Some(&self.upstreams()));
        let shared = next.shared();
        *self.upstreams.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.store.set_limits(config::limits(settings));
        self.store.keep_shared(shared);
        self.client_rate.store(settings.listen.min_client_rate, Ordering::Relaxed);
    }

    pub(crate) fn upstreams(&self) -> Arc<Upstreams> {
        Arc::clone(&self.upstreams.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn tag_life(&self, upstream: &Upstream) -> TagLife {
        let general = self.upstreams().tag_life;
        TagLife {
            fresh: upstream.settings.tag_ttl.unwrap_or(general.fresh),
            max_stale: upstream.settings.max_stale.unwrap_or(general.max_stale),
        }
    }

    /// The answer to a probe's challenge.
    pub(crate) fn prove(&self, challenge: Option<&str>) -> Option<String> {
        challenge.map(|challenge| proof::prove(&self.key, challenge))
    }

    /// Wrong bytes came for a digest: containerd shall ask the registry itself for a while. What to tell it.
    pub(crate) fn ban(&self, upstream: &Upstream, digest: &Digest, found: Digest) -> UpstreamError {
        let registry = &upstream.settings.registry;
        upstream.stats.mismatches.inc();
        tracing::error!(%registry, %digest, %found, "upstream sent wrong bytes; nothing of them is kept");
        let until = Instant::now() + self.tuning.ban;
        let mut bans = self.bans.lock().unwrap_or_else(PoisonError::into_inner);
        bans.put((registry.clone(), *digest), until);
        UpstreamError::WrongBytes(Arc::new(Mismatch { expected: *digest, found }))
    }

    pub(crate) fn check_ban(&self, upstream: &Upstream, digest: &Digest) -> Result<(), UpstreamError> {
        let bans = self.bans.lock().unwrap_or_else(PoisonError::into_inner);
        let until = bans.peek(&(upstream.settings.registry.clone(), *digest));
        if until.is_some_and(|until| *until > Instant::now()) { Err(UpstreamError::Banned) } else { Ok(()) }
    }

    pub(crate) fn room(&self) -> Room {
        let (space, (bytes, blobs)) = (self.store.space(), self.store.totals());
        Room {
            bytes,
            blobs,
            free_bytes: space.free,
            capacity_bytes: space.capacity,
            index_degraded: self.store.index_degraded(),
        }
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn connected(self: &Arc<Self>) -> ConnectionCount {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionCount(Arc::clone(self))
    }
}

pub(crate) struct ConnectionCount(Arc<Cache>);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FlightKey {
    pub(crate) fn of(upstream: &Upstream, repository: &Repository, digest: Digest) -> Self {
        let key = Self::in_repository(upstream, repository, digest);
        if upstream.is_shared() { key } else { Self { repository: None, ..key } }
    }

    /// The same digest, asked for as a manifest.
    pub(crate) fn for_manifest(self) -> Self {
        Self { manifest: true, ..self }
    }

    /// For what is a matter of the repository even where the bytes are public.
    pub(crate) fn in_repository(upstream: &Upstream, repository: &Repository, digest: Digest) -> Self {
        Self {
            key: BlobKey { class: upstream.class.clone(), digest },
            repository: Some((upstream.settings.registry.clone(), repository.clone())),
            manifest: false,
        }
    }
}

impl Upstreams {
    /// Upstreams whose settings did not change are taken over with all they have learnt.
    fn build(settings: &Settings, stats: &Stats, own: &OwnListeners, before: Option<&Self>) -> Self {
        let mut roots: HashMap<Vec<PathBuf>, Arc<RootCertStore>> = HashMap::new();
        stats.registry("-");
        let mut by_name = HashMap::new();
        for one in &settings.upstreams {
            let one = config::effective(settings, one);
            let name = one.registry.to_string();
            let files: Vec<PathBuf> =
                [&settings.ca_file, &one.ca_file].into_iter().flatten().cloned().collect();
            let kept = before.and_then(|before| before.by_name.get(&name));
            let kept = kept.filter(|kept| kept.settings == one && kept.trusts == files);
            let upstream = kept.cloned().unwrap_or_else(|| {
                let trusted = roots.entry(files.clone()).or_insert_with_key(|files| trust(files));
                connect(one, files, Arc::clone(trusted), own, stats)
            });
            by_name.insert(name, upstream);
        }
        let default = settings.upstreams.iter().find(|one| one.default);
        let default = default.and_then(|one| by_name.get(one.registry.as_str()).cloned());
        let tag_life = TagLife { fresh: settings.cache.tag_ttl, max_stale: settings.cache.max_stale };
        Self { by_name, default, tag_life }
    }

    pub(crate) fn find(&self, ns: &str) -> Option<Arc<Upstream>> {
        self.by_name.get(ns).cloned()
    }

    pub(crate) fn default_upstream(&self) -> Option<Arc<Upstream>> {
        self.default.clone()
    }

    /// In the order of their names.
    pub(crate) fn all(&self) -> Vec<&Arc<Upstream>> {
        let mut all: Vec<_> = self.by_name.values().collect();
        all.sort_by(|a, b| a.settings.registry.cmp(&b.settings.registry));
        all
    }

    /// The registries whose shared trees are wanted.
    pub(crate) fn shared(&self) -> Vec<Registry> {
        let shared = self.by_name.values().filter(|one| one.settings.access == Access::Shared);
        shared.map(|one| one.settings.registry.clone()).collect()
    }
}

fn connect(
    settings: UpstreamSettings,
    trusts: Vec<PathBuf>,
    roots: Arc<RootCertStore>,
    own: &OwnListeners,
    stats: &Stats,
) -> Arc<Upstream> {
    let policy = Policy {
        home: settings.url.clone(),
        proxy: settings.proxy.clone(),
        allow: settings.allow_cidrs.clone(),
        own: own.clone(),
    };
    let client = Client::new(policy, roots, settings.token_hosts.clone());
    let registry = stats.registry(settings.registry.as_str());
    Arc::new(Upstream::new(settings, client, trusts, registry))
}

/// The system's roots and some files'. A file that cannot be used is told and left out: other upstreams go on.
fn trust(files: &[PathBuf]) -> Arc<RootCertStore> {
    let mut roots = client::system_roots();
    for file in files {
        if let Err(error) = client::add_ca_file(&mut roots, file) {
            tracing::error!(error = crate::stats::chain(&error), "a ca_file is left out");
        }
    }
    Arc::new(roots)
}
