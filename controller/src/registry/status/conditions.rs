//! The conditions of a Registry, from what was seen and what came of it. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use larder_wire::units::format_duration;
use serde_json::Value;

use super::{Outcome, Ran, is_settled};
use crate::condition::{AVAILABLE, Conditions, DEGRADED, PROGRESSING, Truth};
use crate::crd::Registry;
use crate::registry::dereference::Live;
use crate::registry::foreign::at;
use crate::registry::trouble::{Kind, NOT_ALLOWED, NOT_OURS, Part, REFUSED, Trouble};
use crate::registry::upgrade::{Failure, Rollout, Stand, rollout};
use crate::registry::validate::{Certificate, Store};

pub(super) const STORAGE_READY: &str = "StorageReady";
pub(super) const CERTIFICATE_READY: &str = "CertificateReady";
pub(super) const UPGRADEABLE: &str = "Upgradeable";
pub(super) const ROLLED_BACK: &str = "UpgradeRolledBack";
const AS_EXPECTED: &str = "AsExpected";

/// Pods come and go; only what lasts is a degradation.
const INERTIA: SignedDuration = SignedDuration::from_mins(5);

pub(super) struct Seen<'a> {
    pub(super) registry: &'a Registry,
    /// As it is now.
    pub(super) deployment: Option<&'a Deployment>,
    pub(super) live: &'a Live,
    pub(super) outcome: &'a Outcome,
    pub(super) now: Timestamp,
}

/// One condition's truth, reason and message.
type Word = (Truth, &'static str, String);

pub(super) fn of(seen: &Seen<'_>) -> Conditions {
    let before = seen.before();
    let conditions = Conditions::of(before, seen.registry.metadata.generation);
    let reason = match seen.outcome {
        Outcome::Trouble(trouble) => return troubled(seen, conditions, trouble),
        Outcome::Ran(ran) => return ran_well(seen, conditions, ran),
        Outcome::Unmanaged => "Unmanaged",
        Outcome::Removed => "Removed",
    };
    let words = format!("spec.managementState is {reason}");
    conditions.set(AVAILABLE, Truth::True, reason, words).set(PROGRESSING, Truth::False, reason, "").set(
        DEGRADED,
        Truth::False,
        reason,
        "",
    )
}

fn ran_well(seen: &Seen<'_>, conditions: Conditions, ran: &Ran) -> Conditions {
    let available = available(seen);
    let degraded = match &ran.done.stand {
        Stand::RollingBack(failure) => (Truth::True, ROLLED_BACK, rolled_back(seen, ran, *failure)),
        Stand::RolledBack => (Truth::True, ROLLED_BACK, seen.told(DEGRADED, ROLLED_BACK, || not_again(ran))),
        Stand::Failed(failure) => (Truth::True, reason_of(*failure), words_of(*failure)),
        Stand::Rolling | Stand::Finished => lasting(seen, &available),
    };
    let storage = storage(seen, ran);
    let certificate = certificate(ran);
    let conditions = set(conditions, AVAILABLE, available);
    let conditions = set(conditions, PROGRESSING, progressing(seen.deployment, &ran.done.stand));
    let conditions = set(set(conditions, DEGRADED, degraded), STORAGE_READY, storage);
    let conditions = certificate.into_iter().fold(conditions, |all, word| set(all, CERTIFICATE_READY, word));
    conditions.set(UPGRADEABLE, Truth::True, AS_EXPECTED, "")
}

/// What was told of the parts that are not in trouble stays told.
fn troubled(seen: &Seen<'_>, conditions: Conditions, trouble: &Trouble) -> Conditions {
    let available = if trouble.reason == NOT_ALLOWED {
        (Truth::Unknown, trouble.reason, trouble.message.clone())
    } else {
        available(seen)
    };
    let (progressing, degraded) = match trouble.kind {
        Kind::Waiting => ((Truth::True, trouble.reason, trouble.message.clone()), lasting(seen, &available)),
        Kind::Invalid => {
            let is_shown = [REFUSED, NOT_OURS, NOT_ALLOWED].contains(&trouble.reason);
            let reason = if is_shown { trouble.reason } else { "InvalidConfiguration" };
            ((Truth::False, reason, String::new()), (Truth::True, reason, trouble.message.clone()))
        }
    };
    let conditions = set(conditions, AVAILABLE, available);
    let conditions = set(set(conditions, PROGRESSING, progressing), DEGRADED, degraded);
    let parts = [
        (Part::Storage, STORAGE_READY),
        (Part::Certificate, CERTIFICATE_READY),
        (Part::Version, UPGRADEABLE),
    ];
    parts.into_iter().fold(conditions, |all, (part, type_)| {
        if part == trouble.part {
            return all.set(type_, Truth::False, trouble.reason, trouble.message.clone());
        }
        match seen.before().iter().find(|old| old.type_ == type_) {
            Some(old) => all.set(type_, truth(&old.status), &old.reason, old.message.clone()),
            None => all,
        }
    })
}

fn set(conditions: Conditions, type_: &str, (truth, reason, message): Word) -> Conditions {
    conditions.set(type_, truth, reason, message)
}

fn truth(status: &str) -> Truth {
    match status {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => Truth::Unknown,
    }
}

fn available(seen: &Seen<'_>) -> Word {
    let Some(deployment) = seen.deployment else {
        return (Truth::False, "NotDeployed", "there are no pods yet".to_owned());
    };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let is = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    let words = format!("{is}/{wanted} replicas");
    match (wanted, is) {
        (0, _) => (Truth::False, "ScaledToZero", "no replicas are wanted".to_owned()),
        (_, 0) => (Truth::False, "NoReplicasAvailable", words),
        _ if seen.live.ready_endpoints == Some(0) => {
            (Truth::False, "NoEndpoints", "the Service has no ready endpoint".to_owned())
        }
        _ if is < wanted => (Truth::True, "MinimumAvailability", words),
        _ => (Truth::True, "Ready", words),
    }
}

fn progressing(deployment: Option<&Deployment>, stand: &Stand) -> Word {
    let words = || {
        let status = deployment.and_then(|deployment| deployment.status.clone()).unwrap_or_default();
        let wanted = deployment.and_then(|deployment| deployment.spec.as_ref()?.replicas).unwrap_or_default();
        format!("{}/{wanted} replicas updated", status.updated_replicas.unwrap_or_default())
    };
    let goes_back = matches!(stand, Stand::RollingBack(_) | Stand::RolledBack);
    match deployment.map(rollout) {
        Some(Rollout::Complete) => (Truth::False, AS_EXPECTED, String::new()),
        Some(Rollout::Stuck) => (Truth::False, "ProgressDeadlineExceeded", words()),
        _ if goes_back => (Truth::True, "RollingBack", words()),
        _ => (Truth::True, "RollingOut", words()),
    }
}

/// Degraded only by what lasts, or by what a Deployment gave up.
fn lasting(seen: &Seen<'_>, available: &Word) -> Word {
    if let Some(deployment) = seen.deployment.filter(|deployment| rollout(deployment) == Rollout::Stuck) {
        return (Truth::True, "ProgressDeadlineExceeded", no_progress(within(deployment)));
    }
    let since = seen.before().iter().find(|old| old.type_ == AVAILABLE && old.status != "True");
    let lasts = since.is_some_and(|old| seen.now.duration_since(old.last_transition_time.0) >= INERTIA);
    if lasts && available.0 != Truth::True && available.1 != "ScaledToZero" {
        return (Truth::True, "Unavailable", format!("not available for 5 minutes: {}", available.2));
    }
    (Truth::False, AS_EXPECTED, String::new())
}

fn rolled_back(seen: &Seen<'_>, ran: &Ran, failure: Failure) -> String {
    let good = seen.registry.status.as_ref().and_then(|status| status.last_good.as_ref());
    let good = good.map(|good| good.image.as_str()).unwrap_or_default();
    let wanted = &ran.valid.image;
    format!(
        "{wanted} did not become healthy: {}; {good} runs, and this spec is not tried again until it changes",
        words_of(failure)
    )
}

fn not_again(ran: &Ran) -> String {
    format!("{} did not become healthy; this spec is not tried again until it changes", ran.valid.image)
}

const fn reason_of(failure: Failure) -> &'static str {
    match failure {
        Failure::NoProgress(_) => "ProgressDeadlineExceeded",
        Failure::NothingKept => "NothingToRollBackTo",
    }
}

fn words_of(failure: Failure) -> String {
    match failure {
        Failure::NoProgress(limit) => no_progress(limit),
        Failure::NothingKept => {
            "its pods are not healthy, and the Secret of the last good revision is gone".to_owned()
        }
    }
}

fn no_progress(limit: Duration) -> String {
    format!("its pods made no progress within {}", format_duration(limit))
}

/// As it was given to the Deployment; ten minutes are what Kubernetes takes where nothing is.
fn within(deployment: &Deployment) -> Duration {
    let seconds = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn storage(seen: &Seen<'_>, ran: &Ran) -> Word {
    match &ran.valid.store {
        Store::EmptyDir { .. } => {
            (Truth::True, "Ephemeral", "emptyDir: every image is lost when the pod is made anew".to_owned())
        }
        Store::Claim { name, .. } => {
            let phase = ran.found.claim.as_ref().and_then(|claim| claim.status.as_ref()?.phase.as_deref());
            match phase {
                Some("Bound") => (Truth::True, "Bound", String::new()),
                Some("Lost") => (Truth::False, "ClaimLost", format!("the volume of {name} is gone")),
                _ => (Truth::False, "ClaimPending", format!("PersistentVolumeClaim {name} is not bound yet")),
            }
        }
        // Pods are ready only when they reach the bucket.
        Store::S3(_) | Store::Bucket { .. } => {
            let ready = seen.deployment.and_then(|deployment| deployment.status.as_ref()?.ready_replicas);
            if ready.unwrap_or(0) > 0 {
                return (Truth::True, "Probed", String::new());
            }
            let words =
                "no pod reaches the bucket yet; endpoint, bucket, keys and CA are named in the pods' log";
            let is_new = !is_settled(seen.deployment);
            (if is_new { Truth::Unknown } else { Truth::False }, "NotProbed", words.to_owned())
        }
    }
}

fn certificate(ran: &Ran) -> Option<Word> {
    match &ran.valid.certificate {
        Certificate::None => None,
        Certificate::Given(name) => Some((Truth::True, "Provided", format!("Secret {name}"))),
        Certificate::Issued { .. } => {
            let live = ran.found.certificate.live.as_ref();
            let conditions = live.and_then(|live| at(live, "/status/conditions")).and_then(Value::as_array);
            let ready = conditions.and_then(|list| {
                list.iter().find(|it| it.get("type").and_then(Value::as_str) == Some("Ready"))
            });
            let said = |key: &str| {
                ready.and_then(|ready| ready.get(key)).and_then(Value::as_str).unwrap_or_default()
            };
            let message = said("message").to_owned();
            Some(match said("status") {
                "True" => (Truth::True, "Issued", message),
                _ => (Truth::False, "NotReady", format!("cert-manager: {message}")),
            })
        }
    }
}

impl Seen<'_> {
    fn before(&self) -> &[Condition] {
        self.registry.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    /// What a condition said already for the same reason, else something new.
    fn told(&self, type_: &str, reason: &str, new: impl FnOnce() -> String) -> String {
        let old = self.before().iter().find(|old| old.type_ == type_ && old.reason == reason);
        old.map_or_else(new, |old| old.message.clone())
    }
}
