//! What is counted of reports. No label carries a node, a token or anything a sender chose.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Counts = Family<Vec<(&'static str, String)>, Counter>;

/// Clones count together.
#[derive(Clone, Debug, Default)]
pub struct ReportMetrics {
    reports: Counts,
    refused: Counts,
    clamped: Counts,
    reviews: Counts,
    pages: Counts,
    nodes: Gauge,
    waiting: Gauge,
}

impl ReportMetrics {
    /// Adds them to the controller's metrics.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, counts) in [
            ("reports", "Reports of nodes, by the status they were answered with", &self.reports),
            ("reports_refused", "Reports that were not taken, by reason", &self.refused),
            ("report_values_clamped", "Reports with a value that cannot be, by what it was", &self.clamped),
            ("token_reviews", "Questions to the API server about tokens, by result", &self.reviews),
            ("report_pages", "Requests for /v1/nodes and /v1/summary, by status", &self.pages),
        ] {
            registry.register(name, help, counts.clone());
        }
        registry.register("report_nodes", "Nodes that reported and are not forgotten", self.nodes.clone());
        registry.register(
            "token_reviews_waiting",
            "Questions about tokens that wait or are asked",
            self.waiting.clone(),
        );
    }

    pub(super) fn report(&self, status: u16) {
        add(&self.reports, "code", status);
    }

    pub(super) fn page(&self, status: u16) {
        add(&self.pages, "code", status);
    }

    pub(super) fn refused(&self, reason: &str) {
        add(&self.refused, "reason", reason);
    }

    pub(super) fn clamped(&self, reason: &str) {
        add(&self.clamped, "reason", reason);
    }

    /// `accepted`, `denied`, `error` or `busy`.
    pub(super) fn review(&self, result: &str) {
        add(&self.reviews, "result", result);
    }

    pub(super) fn nodes(&self, known: usize) {
        self.nodes.set(i64::try_from(known).unwrap_or(i64::MAX));
    }

    /// Counts a review as waiting until it is dropped.
    pub(super) fn waiting(&self) -> Waiting {
        self.waiting.inc();
        Waiting(self.waiting.clone())
    }
}

fn add(counts: &Counts, label: &'static str, value: impl ToString) {
    counts.get_or_create(&vec![(label, value.to_string())]).inc();
}

/// A review that waits or is under way.
pub(super) struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}
