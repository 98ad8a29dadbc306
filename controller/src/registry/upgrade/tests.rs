//! Every way in which a rollout can end.

use serde_json::{Value, json};

use super::*;

const START: &str = "2026-11-20T09:00:00Z";

fn at(seconds: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// A Deployment of `revision` with 3 wanted replicas and this status.
fn live(revision: &str, status: Value) -> Deployment {
    let annotations =
        json!({"registry-operator.dev/revision": revision, "registry-operator.dev/since": START});
    let mut deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"generation": 2, "annotations": annotations},
        "spec": {"replicas": 3, "selector": {}, "template": {}},
    }))
    .unwrap();
    deployment.status = serde_json::from_value(status).unwrap();
    deployment
}

fn complete() -> Value {
    json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3})
}

fn going() -> Value {
    json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1, "availableReplicas": 3})
}

fn stuck() -> Value {
    let mut status = going();
    status["conditions"] =
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    status
}

fn situation(live: Option<&Deployment>) -> Situation<'_> {
    Situation {
        wanted: "new",
        spec_hash: "spec",
        last_good: Some("good"),
        rejected: None,
        live,
        replicas: 3,
        health_timeout: Duration::from_secs(300),
        auto_rollback: true,
        now: at(10),
    }
}

#[test]
fn a_new_revision_is_rolled_out_from_now_on() {
    let old = live("good", complete());
    for live in [None, Some(&old)] {
        let decision = decide(&situation(live));
        assert_eq!((decision.run, decision.stand), (Which::Wanted, Stand::Rolling));
        assert_eq!(decision.running, Running { revision: "new".into(), since: at(10) });
    }
}

#[test]
fn it_is_good_once_every_pod_is_new_and_available() {
    let rolled = live("new", complete());
    let decision = decide(&situation(Some(&rolled)));
    assert_eq!((decision.run, decision.stand), (Which::Wanted, Stand::Finished));
    assert_eq!(decision.running.since, at(0), "a second look writes nothing");
    let on_its_way = live("new", going());
    assert_eq!(decide(&situation(Some(&on_its_way))).stand, Stand::Rolling);
    // The Deployment's controller has not looked at what we applied yet: its word is about the one before.
    for status in [complete(), stuck()] {
        let mut stale = live("new", status);
        stale.metadata.generation = Some(3);
        assert_eq!(decide(&situation(Some(&stale))).stand, Stand::Rolling);
    }
}

#[test]
fn it_goes_back_when_there_is_no_progress_or_no_health_in_time() {
    let no_progress = live("new", stuck());
    let decision = decide(&situation(Some(&no_progress)));
    assert_eq!(
        (decision.run, decision.stand),
        (Which::LastGood, Stand::RollingBack(Failure::ProgressDeadline))
    );
    assert_eq!(decision.running, Running { revision: "good".into(), since: at(10) });

    let slow = live("new", going());
    let late = Situation { now: at(301), ..situation(Some(&slow)) };
    let timeout = Failure::HealthTimeout(Duration::from_secs(300));
    assert_eq!(decide(&late).stand, Stand::RollingBack(timeout));
}

#[test]
fn it_stays_back_until_the_spec_changes() {
    let back = live("good", complete());
    let rejected = Situation { rejected: Some("spec"), ..situation(Some(&back)) };
    let decision = decide(&rejected);
    assert_eq!((decision.run, decision.stand), (Which::LastGood, Stand::RolledBack));
    assert_eq!(decision.running.since, at(0));
    let changed = Situation { spec_hash: "other", ..rejected };
    assert_eq!(decide(&changed).run, Which::Wanted);
    // Killed between the word and the deed: the failed revision still runs, and goes now.
    let not_yet = live("new", stuck());
    let decision = decide(&Situation { rejected: Some("spec"), ..situation(Some(&not_yet)) });
    assert_eq!((decision.run, decision.running.revision.as_str()), (Which::LastGood, "good"));
    // Written back to what is good: nothing is rejected.
    let decision = decide(&Situation { rejected: Some("spec"), wanted: "good", ..situation(Some(&back)) });
    assert_eq!(decision.stand, Stand::Finished);
}

#[test]
fn without_something_to_go_back_to_it_is_told_and_left() {
    let no_progress = live("new", stuck());
    for is in [
        Situation { last_good: None, ..situation(Some(&no_progress)) },
        Situation { auto_rollback: false, ..situation(Some(&no_progress)) },
    ] {
        let decision = decide(&is);
        assert_eq!((decision.run, decision.stand), (Which::Wanted, Stand::Failed(Failure::ProgressDeadline)));
    }
}

#[test]
fn pods_that_fail_later_are_no_failed_upgrade() {
    for status in [stuck(), going()] {
        let later = live("good", status);
        let decision = decide(&Situation { wanted: "good", now: at(9999), ..situation(Some(&later)) });
        assert_eq!((decision.run, decision.stand), (Which::Wanted, Stand::Rolling));
    }
}

#[test]
fn no_pods_prove_nothing_and_are_no_failure() {
    let mut idle = live("new", complete());
    idle.spec.as_mut().unwrap().replicas = Some(0);
    let asleep = Situation { replicas: 0, now: at(9999), ..situation(Some(&idle)) };
    let decision = decide(&asleep);
    assert_eq!((decision.stand, decision.running.since), (Stand::Rolling, at(0)));
    let woken = Situation { replicas: 3, ..asleep };
    assert_eq!(decide(&woken).running.since, at(9999));
}
