//! One line and one count per pushed manifest: who, what, how large, what was decided, why, and how long it
//! took. Must not hold a credential: the actor is a name.

use std::time::{Duration, Instant};

use http::header::WARNING;
use http::{HeaderValue, Response};
use larder_wire::digest::Digest;
use larder_wire::name::Repository;
use tracing::info;

use crate::admit::ManifestPut;
use crate::body::Body;
use crate::limits::Used;
use crate::metrics::{Decision, Metrics};
use crate::policy::Policy;
use crate::refuse::{Reason, Refusal};
use crate::serve::Gateway;
use crate::sizes::Unmeasured;
use crate::upstream::UpstreamError;

/// What is known of a push so far. It ends in an answer, and with it the line is written.
pub(crate) struct Record {
    started: Instant,
    actor: String,
    repository: String,
    tags: String,
    digest: Digest,
    policy: u64,
    /// What the limits were held against, in bytes.
    pub(crate) size: Option<u64>,
    /// For the client of a push that is admitted.
    pub(crate) warnings: Vec<String>,
    check: Duration,
    decision: Decision,
    reason: Reason,
}

impl Record {
    pub(crate) fn begin(put: &ManifestPut, policy: &Policy) -> Self {
        Self {
            started: Instant::now(),
            actor: put.caller.actor.clone(),
            repository: put.name.to_string(),
            tags: put.all_tags().map(ToString::to_string).collect::<Vec<_>>().join(","),
            digest: put.digest(),
            policy: policy.generation,
            size: None,
            warnings: Vec::new(),
            check: Duration::ZERO,
            decision: Decision::Admitted,
            reason: Reason::WithinLimits,
        }
    }

    /// The gateway's part is done; the registry's begins.
    pub(crate) fn checked(&mut self, metrics: &Metrics) {
        self.check = self.started.elapsed();
        metrics.check_seconds(self.check);
    }

    /// The push goes on although nobody knows the counts.
    pub(crate) fn unknown(&mut self, metrics: &Metrics) {
        self.reason = Reason::CountUnknown;
        metrics.over_admitted(1);
    }

    /// The policy only audits: the push goes on, and the line says what would have stopped it.
    pub(crate) fn let_through(&mut self, stopped: &Unmeasured) {
        self.decision = Decision::Audited;
        match stopped {
            Unmeasured::Refused(refusal) => {
                self.reason = refusal.reason;
                self.warnings.push(format!("this push would be refused: {}", refusal.message));
            }
            Unmeasured::Unauthorized => self.reason = Reason::Unauthorized,
        }
    }

    pub(crate) fn warn_of(&mut self, used: &[Used], repository: &Repository) {
        self.warnings.extend(used.iter().filter_map(|used| used.warning(repository)));
    }

    /// The push is not sent on.
    pub(crate) fn refused(mut self, gateway: &Gateway, refusal: Refusal) -> Response<Body> {
        self.decision = Decision::Refused;
        self.reason = refusal.reason;
        let response = refusal.clone().into_response();
        self.write(gateway, response.status().as_u16(), &refusal.message);
        response
    }

    /// The registry itself refuses this client, or the gateway because it cannot look.
    pub(crate) fn unauthorized(
        mut self,
        gateway: &Gateway,
        answer: Result<Response<Body>, Refusal>,
    ) -> Response<Body> {
        match answer {
            Ok(response) => {
                self.decision = Decision::Refused;
                self.reason = Reason::Unauthorized;
                self.write(gateway, response.status().as_u16(), "the registry refuses this client");
                response
            }
            Err(refusal) => self.refused(gateway, refusal),
        }
    }

    /// The registry's answer to a push that was sent on.
    pub(crate) fn answered(
        mut self,
        gateway: &Gateway,
        answer: Result<Response<Body>, UpstreamError>,
    ) -> Response<Body> {
        match answer {
            Ok(mut response) => {
                let warnings = std::mem::take(&mut self.warnings);
                if response.status().is_success() {
                    let values = warnings.iter().filter_map(|text| warning(text));
                    for value in values {
                        response.headers_mut().append(WARNING, value);
                    }
                }
                self.write(gateway, response.status().as_u16(), &warnings.join("; "));
                response
            }
            Err(error) => {
                let response = error.refusal().into_response();
                self.write(gateway, response.status().as_u16(), &error.to_string());
                response
            }
        }
    }

    fn write(self, gateway: &Gateway, status: u16, words: &str) {
        gateway.metrics.decision(self.decision, self.reason);
        info!(
            target: "audit",
            actor = self.actor,
            repository = self.repository,
            tag = self.tags,
            digest = %self.digest,
            size = self.size,
            decision = self.decision.label(),
            reason = self.reason.label(),
            policy = self.policy,
            status,
            check_ms = millis(self.check),
            latency_ms = millis(self.started.elapsed()),
            words,
            "manifest push"
        );
    }
}

/// `299 - "…"`, as the distribution specification says.
fn warning(text: &str) -> Option<HeaderValue> {
    let plain: String =
        text.chars().filter(|c| c.is_ascii() && !c.is_control() && !matches!(c, '"' | '\\')).collect();
    HeaderValue::try_from(format!("299 - \"{plain}\"")).ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
