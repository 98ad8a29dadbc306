//! Agents of many nodes, a task each, that report as larder-agent does: one connection a report, packed, at the pace
//! that the controller asks for, with counters that grow. Must not speak to the API server.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::jiff::Timestamp;
use larder_wire::report::{Cache, Evicted, RegistryReport, Reply, Report, Requests, SCHEMA};
use larder_wire::settings::Settings;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use super::stand::Node;

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Connections at once.
const CONNECTIONS: usize = 512;
/// As larder-agent has them.
const INTERVAL: Duration = Duration::from_secs(30);
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(10);
/// A kubelet brings a changed ConfigMap within about a minute.
const MOUNTED: Duration = Duration::from_secs(60);
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Running agents; they end when this is dropped.
pub(super) struct Agents {
    settings: watch::Sender<Mounted>,
    world: Arc<World>,
    _tasks: JoinSet<()>,
}

/// What is in the agents' volumes, and since when.
#[derive(Clone)]
struct Mounted {
    settings: Arc<Settings>,
    since: Instant,
}

/// What agents share.
struct World {
    controller: SocketAddr,
    http: Client<HttpConnector, Full<Bytes>>,
    places: Semaphore,
    tally: Tally,
}

/// What became of reports.
#[derive(Debug, Default)]
pub(super) struct Tally {
    taken: AtomicU64,
    put_off: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

struct Agent {
    node: Node,
    started: String,
    /// From 0 to 1, the node's own.
    share: f64,
    generation: u64,
    registries: Vec<RegistryReport>,
}

impl Agents {
    /// Agents that have been running for some time with these settings.
    pub(super) fn start(controller: SocketAddr, nodes: Vec<Node>, settings: Settings) -> Self {
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let places = Semaphore::new(CONNECTIONS);
        let world = Arc::new(World { controller, http, places, tally: Tally::default() });
        let settings = watch::Sender::new(Mounted { settings: Arc::new(settings), since: Instant::now() });
        let mut tasks = JoinSet::new();
        for node in nodes {
            tasks.spawn(run(node, settings.subscribe(), Arc::clone(&world)));
        }
        Self { settings, world, _tasks: tasks }
    }

    /// Gives them other settings, as kubelets do: one here, one there.
    pub(super) fn mount(&self, settings: Settings) {
        self.settings.send_replace(Mounted { settings: Arc::new(settings), since: Instant::now() });
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.world.tally
    }
}

async fn run(node: Node, settings: watch::Receiver<Mounted>, world: Arc<World>) {
    let mut agent = Agent {
        node,
        started: Timestamp::now().to_string(),
        share: fraction(),
        generation: 0,
        registries: Vec::new(),
    };
    agent.apply(&settings.borrow().settings);
    let mut turns = interval(INTERVAL);
    turns.reset_after(INTERVAL.mul_f64(fraction()));
    loop {
        turns.tick().await;
        agent.installed();
        let mounted = settings.borrow().clone();
        if mounted.settings.generation != agent.generation
            && mounted.since.elapsed() >= MOUNTED.mul_f64(agent.share)
        {
            agent.apply(&mounted.settings);
        }
        agent.pull();
        let asked = world.tell(&agent).await;
        let asked = asked.map_or(INTERVAL, |asked| asked.clamp(SOONEST, LATEST));
        turns.reset_after(asked.mul_f64(0.8 + 0.4 * fraction()));
    }
}

impl Agent {
    /// What is new waits for the installer's probes.
    fn apply(&mut self, settings: &Settings) {
        self.generation = settings.generation;
        let mut before = std::mem::take(&mut self.registries);
        for upstream in &settings.upstreams {
            let registry = upstream.registry.to_string();
            let known = before.iter().position(|known| known.registry == registry);
            self.registries.push(known.map_or_else(|| added(registry), |at| before.swap_remove(at)));
        }
    }

    fn installed(&mut self) {
        for registry in &mut self.registries {
            "installed".clone_into(&mut registry.state);
            registry.reason.clear();
        }
    }

    /// What a node pulls in half a minute.
    fn pull(&mut self) {
        let now = Timestamp::now().to_string();
        for registry in &mut self.registries {
            let (hits, misses) = ((20.0 * fraction()) as u64, (4.0 * fraction()) as u64);
            registry.requests.cache += hits;
            registry.requests.upstream += misses;
            registry.served_bytes += (hits + misses) * 5 * MIB;
            registry.upstream_bytes += misses * 5 * MIB;
            if registry.state == "installed" {
                registry.containerd_seen = Some(now.clone());
            }
        }
    }

    fn report(&self) -> Report {
        let used = (60.0 * self.share) as u64 * GIB;
        Report {
            schema: SCHEMA,
            node: self.node.name.clone(),
            version: VERSION.to_owned(),
            instance: self.started.clone(),
            started: self.started.clone(),
            generation: self.generation,
            cache: Cache {
                bytes: used,
                blobs: 1 + used / (20 * MIB),
                free_bytes: 200 * GIB - used,
                capacity_bytes: 250 * GIB,
                index_degraded: false,
            },
            evicted_bytes: Evicted { ttl: used / 2, ..Evicted::default() },
            registries: self.registries.clone(),
        }
    }
}

impl World {
    /// When the controller wants the next report, if it said so.
    async fn tell(&self, agent: &Agent) -> Option<Duration> {
        let _place = self.places.acquire().await.ok()?;
        let told = timeout(DEADLINE, self.send(agent)).await.context("no answer").flatten();
        let (count, again) = match told {
            Ok((StatusCode::OK, again)) => (&self.tally.taken, again),
            Ok((StatusCode::SERVICE_UNAVAILABLE, again)) => (&self.tally.put_off, again),
            Ok((_, again)) => (&self.tally.refused, again),
            Err(_) => (&self.tally.lost, None),
        };
        count.fetch_add(1, Ordering::Relaxed);
        again
    }

    async fn send(&self, agent: &Agent) -> Result<(StatusCode, Option<Duration>)> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&serde_json::to_vec(&agent.report())?)?;
        let request = Request::post(format!("http://{}/v1/reports", self.controller))
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip")
            .header(USER_AGENT, format!("larder-agent/{VERSION}"))
            .header(AUTHORIZATION, format!("Bearer {}", agent.node.token))
            .body(Full::from(packed.finish()?))?;
        let (head, body) = self.http.request(request).await?.into_parts();
        if head.status != StatusCode::OK {
            let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Ok((head.status, seconds.map(Duration::from_secs)));
        }
        let reply: Reply = serde_json::from_slice(&body.collect().await?.to_bytes())?;
        Ok((head.status, Some(reply.next_report_after)))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [taken, put_off, refused, lost] = [&self.taken, &self.put_off, &self.refused, &self.lost]
            .map(|count| count.load(Ordering::Relaxed));
        write!(f, "taken {taken}, put off {put_off}, refused {refused}, without an answer {lost}")
    }
}

fn added(registry: String) -> RegistryReport {
    RegistryReport {
        registry,
        requests: Requests::default(),
        served_bytes: 0,
        upstream_bytes: 0,
        upstream_up: true,
        ratelimit_remaining: None,
        state: "waiting".to_owned(),
        reason: String::new(),
        containerd_seen: None,
    }
}

/// A random number from 0 to 1.
fn fraction() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
