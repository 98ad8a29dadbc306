//! The pull-through cache: everything that happens to one pull. `mod` lines stand in the order in which a pull meets them;
//! [`pull`] is the story. Must not touch certs.d, the environment or Kubernetes.
//!
//! A request comes in through `server`, is read by `request`, judged by `lookup`, joined with others by `flight`, fetched
//! by `upstream` and `fill`, kept by `store`, answered by `answer` or refused by `refuse`. `evict` takes out what is old.

mod server;
mod request;
mod pull;
mod lookup;
mod flight;
mod fill;
mod upstream;
mod document;
mod verify;
mod store;
mod evict;
mod answer;
mod region;
mod refuse;
mod stats;
mod cache;
mod tasks;
mod gauges;
mod config;
mod error;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use larder_wire::digest::Digest;
use larder_wire::name::{Registry, Repository};
use larder_wire::report;
use larder_wire::route::Reference;
use larder_wire::settings::{Access, Settings};
use prometheus_client::registry::Registry as Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use cache::Cache;
use evict::Reason;
use gauges::Gauges;
use stats::Stats;
use store::{BlobKey, Class, Store};

pub use config::Tuning;
pub use store::OpenError;

/// A running cache. Cheap to clone.
#[derive(Clone)]
pub struct Mirror {
    cache: Arc<Cache>,
    most_connections: usize,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the mirror knows of the agent's report.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub cache: report::Cache,
    pub evicted_bytes: report::Evicted,
    /// In the order of their names; `state` and `reason` are empty.
    pub registries: Vec<report::RegistryReport>,
}

impl Mirror {
    /// Opens or makes the store below `settings.data_dir` and starts what the store does by itself. The instance key is
    /// what probes are answered with.
    ///
    /// # Errors
    /// [`OpenError`] when the directory is in use, not safely ours, or cannot be opened.
    pub async fn open(settings: &Settings, node: &str, instance_key: Vec<u8>) -> Result<Self, OpenError> {
        Self::open_tuned(settings, node, instance_key, Tuning::default()).await
    }

    /// [`Mirror::open`] with other times than the design's.
    ///
    /// # Errors
    /// As [`Mirror::open`].
    pub async fn open_tuned(
        settings: &Settings,
        node: &str,
        instance_key: Vec<u8>,
        tuning: Tuning,
    ) -> Result<Self, OpenError> {
        let stats = Stats::default();
        let (data_dir, limits) = (settings.data_dir.clone(), config::limits(settings));
        let counters = Arc::clone(&stats.store);
        let opening = tokio::task::spawn_blocking(move || Store::open(&data_dir, limits, counters)).await;
        let failed =
            |error| OpenError::Io { path: settings.data_dir.clone(), source: std::io::Error::other(error) };
        let store = Arc::new(opening.map_err(failed)??);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks::start(&store, tuning.tick, &stop, &tasks);
        let cache = Cache::new(store, stats, settings, node, instance_key, tuning);
        cache.store.keep_shared(cache.upstreams().shared());
        Ok(Self { cache, most_connections: settings.listen.max_connections, stop, tasks })
    }

    /// Takes new settings over, but for `listen`, `data_dir` and `run_dir`. What did not change keeps what it has learnt.
    pub fn apply(&self, settings: &Settings) {
        self.cache.apply(settings);
    }

    /// Names another listener of this process: never an upstream. The one that is served is known.
    pub fn never_connect_to(&self, listener: SocketAddr) {
        self.cache.own.add(listener);
    }

    /// Serves until `stop` is cancelled; then takes no new connections, and returns when running bodies ended or `drain`
    /// is over.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken, drain: Duration) {
        server::serve(Arc::clone(&self.cache), listener, self.most_connections, stop, drain).await;
    }

    /// Adds the metrics that the mirror owns.
    pub fn register(&self, metrics: &mut Metrics) {
        self.cache.stats.register(metrics);
        metrics.register_collector(Box::new(Gauges(Arc::downgrade(&self.cache))));
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let evicted = |reason| self.cache.stats.store.evicted_bytes(reason);
        let upstreams = self.cache.upstreams();
        let registry = |upstream: &Arc<upstream::Upstream>| report::RegistryReport {
            registry: upstream.settings.registry.to_string(),
            requests: upstream.stats.requests(),
            served_bytes: upstream.stats.served_bytes(),
            upstream_bytes: upstream.stats.fetched_bytes.get(),
            upstream_up: upstream.up(),
            ratelimit_remaining: upstream.ratelimit_remaining(),
            state: String::new(),
            reason: String::new(),
            containerd_seen: upstream.stats.containerd_seen().map(rfc3339),
        };
        Snapshot {
            cache: self.cache.room(),
            evicted_bytes: report::Evicted {
                ttl: evicted(Reason::Ttl),
                size: evicted(Reason::Size),
                free: evicted(Reason::Free),
                corrupt: evicted(Reason::Corrupt),
            },
            registries: upstreams.all().into_iter().map(registry).collect(),
        }
    }

    /// Drops what is known of a repository, a tag or a digest of it: tags, and the manifests they stand for. Layers stay
    /// until they age: other repositories may use them. How many entries went.
    pub async fn forget(
        &self,
        registry: &Registry,
        repository: &Repository,
        reference: Option<&Reference>,
    ) -> usize {
        let store = &self.cache.store;
        let repository = &request::official(registry, repository.clone());
        let (tags, digests): (usize, Vec<Digest>) = match reference {
            None => {
                let digests = store.forget_tags(registry, repository).await;
                (digests.len(), digests)
            }
            Some(Reference::Tag(tag)) => {
                let row = store.tag(registry, repository, tag).await;
                store.set_tag(registry, repository, tag, None);
                (usize::from(row.is_some()), row.map(|row| row.digest).into_iter().collect())
            }
            Some(Reference::Digest(digest)) => (0, vec![*digest]),
        };
        let shared = self.cache.upstreams().find(registry.as_str());
        let shared = shared.is_some_and(|upstream| upstream.settings.access == Access::Shared);
        let class = if shared { Class::Shared(registry.clone()) } else { Class::Public };
        let gone =
            digests.into_iter().filter(|&digest| store.forget(&BlobKey { class: class.clone(), digest }));
        tags + gone.count()
    }

    /// Whether the installer may send containerd here.
    ///
    /// # Errors
    /// The reason in words: a person made the file `BYPASS` in the data directory.
    pub fn health(&self) -> Result<(), String> {
        if self.cache.store.bypassed() {
            Err("the file BYPASS lies in the data directory".to_owned())
        } else {
            Ok(())
        }
    }

    /// Ends what the store does by itself, writes down what is held in memory and closes the index.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.cache.store.close().await;
    }
}

/// Seconds since 1970 as RFC 3339 in UTC.
fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
