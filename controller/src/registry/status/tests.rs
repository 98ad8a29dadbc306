//! What is told in each state, and that nothing new is told of a state that lasts.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::conditions::ROLLED_BACK;
use super::*;
use crate::events::Kind as EventKind;
use crate::registry::cases::{everything, materials, registry, valid};
use crate::registry::material::spec_hash;
use crate::registry::trouble::{NOT_ALLOWED, NOT_OURS, Part, REFUSED};
use crate::registry::upgrade::Failure;

const S3_ROOT: &str = "spec: {image: 'registry:3.1.1', replicas: 3, storage: {s3: {bucket: b, region: r}}}";

fn now() -> Timestamp {
    Timestamp::now()
}

fn deployment(status: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"generation": 1}, "spec": {"replicas": 3, "selector": {}, "template": {}}, "status": status,
    }))
    .unwrap()
}

fn ready() -> Deployment {
    deployment(json!({
        "observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
    }))
}

fn ran(root: &Registry, deployment: Deployment, stand: Stand) -> Outcome {
    let found = everything();
    let valid = valid(root, None, &found).unwrap();
    let spec_hash = spec_hash(&valid, &materials(&valid, &found).unwrap());
    let (entrances, configs) = (Entrances::Wanted, vec!["new".to_owned()]);
    let done = Done { deployment: Some(deployment), stand, entrances, begins: false, configs };
    Outcome::Ran(Box::new(Ran { valid, found, done, spec_hash, revision: "new".to_owned() }))
}

fn told(
    root: &Registry,
    live: &Live,
    outcome: &Outcome,
    now: Timestamp,
) -> (RegistryStatus, Vec<tell::Event>) {
    status_of(root, live, outcome, now)
}

fn word(status: &RegistryStatus, type_: &str) -> (String, String) {
    let it = status.conditions.iter().find(|it| it.type_ == type_).unwrap_or_else(|| panic!("{type_}"));
    (it.status.clone(), it.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_healthy_registry_is_told_once() {
    let mut root = registry(S3_ROOT);
    let outcome = ran(&root, ready(), Stand::Finished);
    let (status, events) = told(&root, &Live::default(), &outcome, now());
    assert_eq!(word(&status, "Available"), is("True", "Ready"));
    assert_eq!(word(&status, "Progressing"), is("False", "AsExpected"));
    assert_eq!(word(&status, "Degraded"), is("False", "AsExpected"));
    assert_eq!(word(&status, "StorageReady"), is("True", "Probed"));
    assert_eq!(word(&status, "Upgradeable"), is("True", "AsExpected"));
    assert_eq!((status.replicas, status.ready_replicas), (3, 3));
    assert_eq!(status.version.as_deref(), Some("3.1.1"));
    assert_eq!(status.url.as_deref(), Some("http://main-registry.registry-system.svc:5000"));
    assert_eq!(status.last_good.as_ref().unwrap().config_hash, "new");
    assert!(status.conditions.iter().all(|it| it.observed_generation == Some(1)));
    assert!(events.iter().any(|event| event.reason == "RolledOut"));

    root.status = Some(status.clone());
    let (again, events) = told(&root, &Live::default(), &outcome, now() + SignedDuration::from_hours(1));
    assert_eq!(again, status);
    assert_eq!(events, []);
}

#[test]
fn a_rollback_names_what_failed_and_what_runs() {
    let mut root = registry(S3_ROOT);
    let good = LastGood {
        version: "3.0.0".into(),
        image: "registry:3.0.0".into(),
        config_hash: "good".into(),
        observed_at: None,
    };
    root.status = Some(RegistryStatus { last_good: Some(good), ..RegistryStatus::default() });
    let outcome = ran(&root, ready(), Stand::RollingBack(Failure::NoProgress(Duration::from_secs(90))));
    let (status, events) = told(&root, &Live::default(), &outcome, now());
    assert_eq!(word(&status, "Degraded"), is("True", ROLLED_BACK));
    assert_eq!(status.rejected, status.effective_spec_hash);
    assert_eq!((status.version.as_deref(), status.image.as_deref()), (Some("3.0.0"), Some("registry:3.0.0")));
    let told_of = events.iter().filter(|event| event.reason == ROLLED_BACK).collect::<Vec<_>>();
    assert_eq!((told_of.len(), told_of[0].kind), (1, EventKind::Warning));
    assert!(told_of[0].note.contains("registry:3.1.1") && told_of[0].note.contains("registry:3.0.0"));

    root.status = Some(status.clone());
    let outcome = ran(&root, ready(), Stand::RolledBack);
    let (again, events) = told(&root, &Live::default(), &outcome, now());
    assert_eq!((again, events), (status, vec![]));

    // Killed before the status said so.
    root.status.as_mut().unwrap().conditions.clear();
    let (_, events) = told(&root, &Live::default(), &outcome, now());
    assert_eq!(events.iter().filter(|event| event.reason == ROLLED_BACK).count(), 1);
}

#[test]
fn what_is_invalid_is_degraded_at_once_and_the_pods_are_told_as_they_are() {
    let root = registry(S3_ROOT);
    let live = Live { deployment: Some(ready()), ready_endpoints: Some(3) };
    for (part, type_) in [
        (Part::Storage, "StorageReady"),
        (Part::Version, "Upgradeable"),
        (Part::Certificate, "CertificateReady"),
    ] {
        let trouble = Outcome::Trouble(Trouble::invalid(part, "Wrong", "it is wrong"));
        let (status, events) = told(&root, &live, &trouble, now());
        assert_eq!(word(&status, "Available"), is("True", "Ready"));
        assert_eq!(word(&status, "Degraded"), is("True", "InvalidConfiguration"));
        assert_eq!(word(&status, type_), is("False", "Wrong"));
        assert!(events.iter().all(|event| event.kind == EventKind::Warning) && !events.is_empty());
    }
    let waiting = Outcome::Trouble(Trouble::waiting(Part::Storage, "CosiNotInstalled", "not there"));
    let (status, _) = told(&root, &live, &waiting, now());
    assert_eq!(word(&status, "Degraded"), is("False", "AsExpected"));
    assert_eq!(word(&status, "Progressing"), is("True", "CosiNotInstalled"));
    assert_eq!(word(&status, "StorageReady"), is("False", "CosiNotInstalled"));
}

#[test]
fn only_what_lasts_five_minutes_is_degraded() {
    let mut root = registry(S3_ROOT);
    let gone = || deployment(json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3}));
    let outcome = ran(&root, gone(), Stand::Rolling);
    let (status, _) = told(&root, &Live::default(), &outcome, now());
    assert_eq!(word(&status, "Available"), is("False", "NoReplicasAvailable"));
    assert_eq!(word(&status, "Degraded"), is("False", "AsExpected"));
    assert_eq!(word(&status, "StorageReady").0, "Unknown");
    root.status = Some(status);
    let (status, _) = told(&root, &Live::default(), &outcome, now() + SignedDuration::from_mins(6));
    assert_eq!(word(&status, "Degraded"), is("True", "Unavailable"));
}

#[test]
fn a_service_without_ready_endpoints_is_not_available() {
    let root = registry(S3_ROOT);
    let outcome = ran(&root, ready(), Stand::Finished);
    let live = Live { deployment: None, ready_endpoints: Some(0) };
    assert_eq!(word(&told(&root, &live, &outcome, now()).0, "Available"), is("False", "NoEndpoints"));
}

#[test]
fn what_is_not_ours_to_run_is_available() {
    let mut root = registry(S3_ROOT);
    let last_good = Some(LastGood { version: "3.1.1".into(), ..LastGood::default() });
    let old = RegistryStatus { configs: vec!["old".into()], last_good, ..RegistryStatus::default() };
    root.status = Some(old.clone());
    let live = Live { deployment: Some(ready()), ready_endpoints: None };
    let (status, _) = told(&root, &live, &Outcome::Unmanaged, now());
    assert_eq!(word(&status, "Available"), is("True", "Unmanaged"));
    assert_eq!((status.ready_replicas, status.configs.len()), (3, 1));
    let (status, _) = told(&root, &live, &Outcome::Removed, now());
    assert_eq!(word(&status, "Available"), is("True", "Removed"));
    assert_eq!((status.ready_replicas, status.configs.len()), (0, 0));
    assert_eq!(status.last_good, old.last_good, "the store that it finds again is of this version");
}

#[test]
fn a_new_revision_is_told_when_it_begins() {
    let root = registry(S3_ROOT);
    for begins in [true, false] {
        let mut outcome = ran(&root, ready(), Stand::Rolling);
        if let Outcome::Ran(ran) = &mut outcome {
            ran.done.begins = begins;
        }
        let (_, events) = told(&root, &Live::default(), &outcome, now());
        assert_eq!(events.iter().any(|event| event.reason == "RollingOut"), begins);
    }
}

#[test]
fn clients_are_sent_to_the_address_that_is_served() {
    let mut root = registry(S3_ROOT);
    let url = Some("https://before.example".to_owned());
    root.status = Some(RegistryStatus { url: url.clone(), ..RegistryStatus::default() });
    let mut outcome = ran(&root, ready(), Stand::RolledBack);
    if let Outcome::Ran(ran) = &mut outcome {
        ran.done.entrances = Entrances::Stay;
    }
    assert_eq!(told(&root, &Live::default(), &outcome, now()).0.url, url);
}

#[test]
fn what_nobody_can_do_for_its_author_is_told_by_its_name() {
    let mut root = registry(S3_ROOT);
    root.status = Some(RegistryStatus { ready_replicas: 3, ..RegistryStatus::default() });
    for reason in [REFUSED, NOT_OURS, NOT_ALLOWED] {
        let trouble = Outcome::Trouble(Trouble::invalid(Part::Spec, reason, "no"));
        let (status, _) = told(&root, &Live::default(), &trouble, now());
        assert_eq!(word(&status, "Degraded"), is("True", reason));
        let blind = reason == NOT_ALLOWED;
        assert_eq!(word(&status, "Available").0, if blind { "Unknown" } else { "False" });
        assert_eq!(status.ready_replicas, if blind { 3 } else { 0 });
    }
}
