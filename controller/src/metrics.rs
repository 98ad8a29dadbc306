//! What the controller counts of itself. No label ever carries a secret or a repository; nodes appear as counts only.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::reports::ReportMetrics;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    kind: String,
    result: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    verb: String,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NodeState {
    node_cache: String,
    state: String,
}

/// What is counted of a NodeCache's nodes.
const NODE_STATES: [&str; 9] =
    ["desired", "updated", "reporting", "ready", "degraded", "installed", "in_use", "silent", "unsupported"];

/// Every metric of the controller. Methods take the kind or verb as Kubernetes spells it.
pub struct Metrics {
    pub reports: ReportMetrics,
    registry: Mutex<Registry>,
    reconciles: Family<Outcome, Counter>,
    seconds: Family<KindLabel, Histogram, fn() -> Histogram>,
    running: Family<KindLabel, Gauge>,
    waiting: Family<KindLabel, Gauge>,
    status_writes: Family<KindLabel, Counter>,
    requests: Family<Request, Counter>,
    nodes: Family<NodeState, Gauge>,
    leader: Gauge,
}

/// 5 ms to about 80 s.
fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 4.0, 8))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("larder_controller");
        let metrics = Self {
            reports: ReportMetrics::default(),
            registry: Mutex::default(),
            reconciles: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            running: Family::default(),
            waiting: Family::default(),
            status_writes: Family::default(),
            requests: Family::default(),
            nodes: Family::default(),
            leader: Gauge::<i64, AtomicI64>::default(),
        };
        registry.register("reconciles", "Reconciles by kind and result", metrics.reconciles.clone());
        registry.register("reconcile_seconds", "Seconds that a reconcile took", metrics.seconds.clone());
        registry.register("reconciles_running", "Reconciles under way", metrics.running.clone());
        registry.register(
            "reconciles_waiting",
            "Objects that failed and wait for their next try",
            metrics.waiting.clone(),
        );
        registry.register("status_writes", "Statuses written, by kind", metrics.status_writes.clone());
        registry.register(
            "api_requests",
            "Requests to the API server by verb and code; code 0 is no answer",
            metrics.requests.clone(),
        );
        registry.register("nodes", "Nodes of a NodeCache by state", metrics.nodes.clone());
        registry.register("leader", "1 on the replica that holds the Lease", metrics.leader.clone());
        metrics.reports.register(&mut registry);
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    pub(crate) fn reconciled(&self, kind: &str, result: &str, took: Duration) {
        let labels = Outcome { kind: kind.to_owned(), result: result.to_owned() };
        self.reconciles.get_or_create(&labels).inc();
        self.seconds.get_or_create(&KindLabel { kind: kind.to_owned() }).observe(took.as_secs_f64());
    }

    /// Counts a reconcile as under way until the answer is dropped.
    pub(crate) fn running(&self, kind: &str) -> Running {
        let gauge = self.running.get_or_create(&KindLabel { kind: kind.to_owned() }).clone();
        gauge.inc();
        Running(gauge)
    }

    pub(crate) fn waiting(&self, kind: &str, objects: usize) {
        let labels = KindLabel { kind: kind.to_owned() };
        self.waiting.get_or_create(&labels).set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    pub(crate) fn status_writes(&self, kind: &str) {
        self.status_writes.get_or_create(&KindLabel { kind: kind.to_owned() }).inc();
    }

    pub(crate) fn api_request(&self, verb: &str, code: u16) {
        self.requests.get_or_create(&Request { verb: verb.to_owned(), code }).inc();
    }

    /// Nodes of a NodeCache in a state: desired, updated, reporting, ready, degraded, installed, in_use, silent,
    /// unsupported.
    pub fn nodes(&self, node_cache: &str, state: &str, count: i64) {
        debug_assert!(NODE_STATES.contains(&state), "{state} would stay when the NodeCache goes");
        let labels = NodeState { node_cache: node_cache.to_owned(), state: state.to_owned() };
        self.nodes.get_or_create(&labels).set(count);
    }

    /// The NodeCache is no more: neither are its counts.
    pub(crate) fn forget_node_cache(&self, node_cache: &str) {
        for state in NODE_STATES {
            self.nodes.remove(&NodeState { node_cache: node_cache.to_owned(), state: state.to_owned() });
        }
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// Never: writing to a text cannot fail.
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        text::encode(&mut page, &registry)?;
        Ok(page)
    }
}

/// A reconcile under way.
pub(crate) struct Running(Gauge<i64, AtomicI64>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_what_was_counted() {
        let metrics = Metrics::default();
        metrics.reconciled("Registry", "ok", Duration::from_millis(20));
        metrics.api_request("patch", 409);
        metrics.nodes("default", "silent", 3);
        let running = metrics.running("Registry");
        let page = metrics.page().unwrap();
        for line in [
            "larder_controller_reconciles_total{kind=\"Registry\",result=\"ok\"} 1",
            "larder_controller_api_requests_total{verb=\"patch\",code=\"409\"} 1",
            "larder_controller_nodes{node_cache=\"default\",state=\"silent\"} 3",
            "larder_controller_reconciles_running{kind=\"Registry\"} 1",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        drop(running);
        metrics.nodes("other", "silent", 0);
        metrics.forget_node_cache("default");
        let page = metrics.page().unwrap();
        assert!(
            page.contains("nodes{node_cache=\"other\"") && !page.contains("nodes{node_cache=\"default\"")
        );
        assert!(metrics.page().unwrap().contains("reconciles_running{kind=\"Registry\"} 0"));
    }
}
