//! What the reports' server is made of, and the words it shares. No behaviour.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Semaphore, watch};

use super::fleet::Fleet;
use super::forward::Forward;
use super::metrics::ReportMetrics;
use super::pace::Rates;
use super::reviewer::Reviewer;
use crate::context::Context;

/// Who holds the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    Me,
    /// Where the other replica takes reports.
    Other(SocketAddr),
}

/// Who speaks, proven by the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    pub node: String,
    pub node_cache: String,
}

/// How patient the server is.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub reviews: Rates,
    /// For a request's head, and between two requests of a connection.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (head, body) = (Duration::from_secs(5), Duration::from_secs(5));
        Self { reviews: Rates::default(), head, body }
    }
}

/// Takes reports, shows pages, or passes both on.
pub struct Reports {
    pub(super) fleet: Arc<Fleet>,
    pub(super) leader: watch::Receiver<Option<Leader>>,
    pub(super) limits: Limits,
    pub(super) reviewer: Reviewer,
    pub(super) forward: Forward,
    pub(super) pages: Arc<Semaphore>,
    pub(super) metrics: ReportMetrics,
}

impl Reports {
    /// `client` asks for reviews, which have a pace of their own.
    #[must_use]
    pub fn new(client: Client, context: &Context, leader: watch::Receiver<Option<Leader>>) -> Self {
        let (fleet, metrics) = (Arc::clone(&context.fleet), context.metrics.reports.clone());
        Self::with(client, fleet, leader, &context.config.agent_namespace, Limits::default(), metrics)
    }

    /// `agent_namespace` is where agents run, one ServiceAccount `larder-<nodecache>` for each NodeCache.
    #[must_use]
    pub fn with(
        client: Client,
        fleet: Arc<Fleet>,
        leader: watch::Receiver<Option<Leader>>,
        agent_namespace: &str,
        limits: Limits,
        metrics: ReportMetrics,
    ) -> Self {
        let reviewer = Reviewer::new(client, agent_namespace.to_owned(), limits.reviews, metrics.clone());
        let (forward, pages) = (Forward::new(), Arc::new(Semaphore::new(1)));
        Self { fleet, leader, limits, reviewer, forward, pages, metrics }
    }
}

/// A random number from 0 to 1; a half when the system has no randomness to give.
pub(super) fn fraction() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
