//! The gateway's metrics as OpenMetrics text. Must not compute anything: what is shown was counted where it
//! happened; and no label is ever a repository, a tag or a user.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::refuse::Reason;

/// What the text calls itself.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a check that found everything in memory to one that waited for sizes.
const CHECK_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    Admitted,
    /// It would have been refused, but the policy only audits.
    Audited,
    Refused,
}

/// What a request does to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Read,
    Write,
}

/// What is read again while the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watched {
    ServerCertificate,
    UpstreamCertificate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    decision: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileLabels {
    file: &'static str,
}

type Decisions = Family<DecisionLabels, Counter>;

/// Everything the gateway counts.
pub struct Metrics {
    registry: Registry,
    decisions: Decisions,
    check_seconds: Histogram,
    index_repositories: Gauge,
    index_tags: Gauge,
    index_drift: Counter,
    over_admitted: Counter,
    in_flight: Family<KindLabels, Gauge<i64, AtomicI64>>,
    reload_failures: Family<FileLabels, Counter<u64, AtomicU64>>,
}

/// One request under way, for as long as it lives.
pub struct InFlight(Gauge<i64, AtomicI64>);

impl Metrics {
    /// `policy_failures` counts policy files that could not be taken over.
    #[must_use]
    pub fn new(policy_failures: Counter) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            decisions: Decisions::default(),
            check_seconds: Histogram::new(CHECK_SECONDS),
            index_repositories: Gauge::default(),
            index_tags: Gauge::default(),
            index_drift: Counter::default(),
            over_admitted: Counter::default(),
            in_flight: Family::default(),
            reload_failures: Family::default(),
        };
        metrics.register(policy_failures);
        metrics
    }

    fn register(&mut self, policy_failures: Counter) {
        let Self { registry: to, decisions, check_seconds, .. } = self;
        to.register("larder_gateway_decisions", "Pushes by what became of them and why", decisions.clone());
        let help = "Time that the policy added to a manifest's push";
        to.register("larder_gateway_check_seconds", help, check_seconds.clone());
        let help = "Repositories whose tags are counted in memory";
        to.register("larder_gateway_index_repositories", help, self.index_repositories.clone());
        to.register("larder_gateway_index_tags", "Tags held in memory", self.index_tags.clone());
        let help = "Tags that a resync found otherwise than they were counted";
        to.register("larder_gateway_index_drift", help, self.index_drift.clone());
        let help = "Pushes let through beyond a limit while replicas changed";
        to.register("larder_gateway_over_admitted", help, self.over_admitted.clone());
        to.register("larder_gateway_in_flight", "Requests under way", self.in_flight.clone());
        let help = "Changed certificates that could not be taken over";
        to.register("larder_gateway_certificate_reload_failures", help, self.reload_failures.clone());
        let help = "Changed policy files that could not be taken over";
        to.register("larder_gateway_policy_reload_failures", help, policy_failures);
        // Present from the start, as everything is that has few labels.
        for kind in [Kind::Read, Kind::Write] {
            drop(self.in_flight.get_or_create(&kind.labels()));
        }
        for file in [Watched::ServerCertificate, Watched::UpstreamCertificate] {
            drop(self.reload_failures.get_or_create(&file.labels()));
        }
    }

    pub fn decision(&self, decision: Decision, reason: Reason) {
        let labels = DecisionLabels { decision: decision.label(), reason: reason.label() };
        self.decisions.get_or_create(&labels).inc();
    }

    pub fn check_seconds(&self, took: Duration) {
        self.check_seconds.observe(took.as_secs_f64());
    }

    /// What is counted in memory now.
    pub fn index(&self, repositories: usize, tags: usize) {
        self.index_repositories.set(i64::try_from(repositories).unwrap_or(i64::MAX));
        self.index_tags.set(i64::try_from(tags).unwrap_or(i64::MAX));
    }

    pub fn drift(&self, tags: u64) {
        self.index_drift.inc_by(tags);
    }

    pub fn over_admitted(&self, pushes: u64) {
        self.over_admitted.inc_by(pushes);
    }

    /// Counts a request until the returned value is dropped.
    #[must_use]
    pub fn in_flight(&self, kind: Kind) -> InFlight {
        let gauge = self.in_flight.get_or_create_owned(&kind.labels());
        gauge.inc();
        InFlight(gauge)
    }

    pub fn reload_failed(&self, file: Watched) {
        self.reload_failures.get_or_create(&file.labels()).inc();
    }

    /// The whole page.
    ///
    /// # Errors
    /// When a metric does not encode.
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Decision {
    /// The label of the metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Audited => "audited",
            Self::Refused => "refused",
        }
    }
}

impl Kind {
    fn labels(self) -> KindLabels {
        KindLabels { kind: if self == Self::Read { "read" } else { "write" } }
    }
}

impl Watched {
    /// The label of the metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ServerCertificate => "tls_cert_file",
            Self::UpstreamCertificate => "client_cert_file",
        }
    }

    fn labels(self) -> FileLabels {
        FileLabels { file: self.label() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_families_of_the_contract() {
        let metrics = Metrics::new(Counter::default());
        metrics.decision(Decision::Refused, Reason::Tags);
        metrics.check_seconds(Duration::from_millis(1));
        metrics.index(2, 30);
        metrics.drift(4);
        let under_way = metrics.in_flight(Kind::Write);
        let page = metrics.page().unwrap();
        for line in [
            "larder_gateway_decisions_total{decision=\"refused\",reason=\"tags\"} 1\n",
            "larder_gateway_check_seconds_count 1\n",
            "larder_gateway_index_repositories 2\n",
            "larder_gateway_index_tags 30\n",
            "larder_gateway_index_drift_total 4\n",
            "larder_gateway_in_flight{kind=\"write\"} 1\n",
            "larder_gateway_in_flight{kind=\"read\"} 0\n",
            "larder_gateway_policy_reload_failures_total 0\n",
        ] {
            assert!(page.contains(line), "{line}{page}");
        }
        drop(under_way);
        assert!(metrics.page().unwrap().contains("larder_gateway_in_flight{kind=\"write\"} 0\n"));
    }
}
