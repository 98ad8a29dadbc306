//! Every way in which a rollout can end.

use k8s_openapi::jiff::SignedDuration;
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
        before: Before::Good("good"),
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

const NO_PROGRESS: Failure = Failure::NoProgress(Duration::from_secs(300));

#[test]
fn it_goes_back_when_its_deployment_makes_no_progress() {
    let no_progress = live("new", stuck());
    let decision = decide(&situation(Some(&no_progress)));
    assert_eq!((decision.run, decision.stand), (Which::LastGood, Stand::RollingBack(NO_PROGRESS)));
    assert_eq!(decision.running, Running { revision: "good".into(), since: at(10) });
    // Many pods take long, one after the other.
    let slow = live("new", going());
    let late = Situation { now: at(9999), ..situation(Some(&slow)) };
    assert_eq!(decide(&late).stand, Stand::Rolling);
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
    let is = || situation(Some(&no_progress));
    for (is, failure) in [
        (Situation { before: Before::Nothing, ..is() }, NO_PROGRESS),
        (Situation { before: Before::Lost, ..is() }, Failure::NothingKept),
        (Situation { auto_rollback: false, ..is() }, NO_PROGRESS),
        (Situation { auto_rollback: false, before: Before::Lost, ..is() }, NO_PROGRESS),
        // It was rolled back, and now there is nothing to run instead: no word without end about going back.
        (Situation { rejected: Some("spec"), before: Before::Lost, ..is() }, Failure::NothingKept),
    ] {
        let decision = decide(&is);
        assert_eq!((decision.run, decision.stand), (Which::Wanted, Stand::Failed(failure)));
    }
}

#[test]
fn the_status_and_the_secret_say_what_there_is_to_go_back_to() {
    use crate::registry::cases::{everything, registry, valid};
    let good = "{conditions: [], lastGood: {version: 3.1.1, image: 'registry:3.1.1', configHash: good}}";
    let before = |status: &str, wanted: &'static str, is_kept: bool| {
        let registry = registry(&format!("{{spec: {{image: 'registry:3.1.1'}}, status: {status}}}"));
        let valid = valid(&registry, None, &everything()).unwrap();
        match super::situation(&registry, &valid, &Live::default(), wanted, "spec", is_kept).before {
            Before::Good(good) => good.to_owned(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(before("{conditions: []}", "new", false), "Nothing");
    assert_eq!(before(good, "new", true), "good");
    assert_eq!(before(good, "new", false), "Lost");
    assert_eq!(before(good, "good", false), "good", "its Secret is made again");
}

#[test]
fn service_and_ingress_change_when_no_pods_of_before_serve() {
    let (good, new, done) = (live("good", complete()), live("new", going()), live("new", complete()));
    let mut idle = live("good", complete());
    idle.spec.as_mut().unwrap().replicas = Some(0);
    let entrances_of = |is: &Situation<'_>| entrances(is, &decide(is));
    for (what, is, wanted) in [
        ("made", situation(None), Entrances::Wanted),
        (
            "its first rollout",
            Situation { before: Before::Nothing, ..situation(Some(&new)) },
            Entrances::Wanted,
        ),
        ("an upgrade begins", situation(Some(&good)), Entrances::Stay),
        ("an upgrade goes on", situation(Some(&new)), Entrances::Stay),
        ("an upgrade is through", situation(Some(&done)), Entrances::Wanted),
        ("no pods", situation(Some(&idle)), Entrances::Wanted),
        ("nothing new", Situation { wanted: "good", ..situation(Some(&good)) }, Entrances::Wanted),
        ("gone back", Situation { rejected: Some("spec"), ..situation(Some(&good)) }, Entrances::Stay),
        ("nothing kept", Situation { before: Before::Lost, ..situation(Some(&new)) }, Entrances::Stay),
    ] {
        assert_eq!(entrances_of(&is), wanted, "{what}");
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
