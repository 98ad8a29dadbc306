//! What a NodeCache's status says in each situation, and when it is written.

use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::cache::upstream::Wrong;
use crate::node_cache::validate::tests::node_cache;
use crate::reports::{Usage, WorstNode};

const FULL: Pods = Pods { desired: 100, updated: 100, available: 100, observed: true };

fn now() -> Timestamp {
    "2026-11-20T09:00:00.5Z".parse().unwrap()
}

fn well() -> Summary {
    Summary {
        reporting: 100,
        ready: 100,
        installed: 100,
        in_use: 98,
        updated: 100,
        usage: Usage {
            since: now(),
            hit_ratio: Some(0.934),
            bytes_served: 1_000_000_007,
            ..Usage::default()
        },
        ..Summary::default()
    }
}

fn degraded(nodes: usize) -> Summary {
    let worst = WorstNode { node: "n17".to_owned(), reason: "DiskFull".to_owned(), since: now() };
    Summary { degraded: nodes, ready: 100 - nodes, worst: vec![worst], ..well() }
}

fn observed<'a>(node_cache: &'a NodeCache, summary: &'a Summary) -> Observed<'a> {
    Observed {
        node_cache,
        refusal: None,
        pods: FULL,
        rollout: Rollout::Rolling,
        generation: 7,
        summary,
        withdrawal: None,
    }
}

fn status(observed: &Observed<'_>) -> NodeCacheStatus {
    counts::status(observed, conditions::conditions(observed))
}

/// `Type=Status/Reason` of every condition.
fn said(status: &NodeCacheStatus) -> Vec<String> {
    let conditions = status.conditions.iter();
    conditions.map(|one| format!("{}={}/{}", one.type_, one.status, one.reason)).collect()
}

#[test]
fn all_is_well() {
    let node_cache = node_cache("{}");
    let status = status(&observed(&node_cache, &well()));
    assert_eq!(
        said(&status),
        [
            "Available=True/Ready",
            "Progressing=False/AsExpected",
            "Degraded=False/AsExpected",
            "InUse=True/InUse",
            "ConfigDistributed=True/Applied"
        ]
    );
    assert_eq!((status.generation, status.observed_generation), (7, Some(3)));
    let usage = status.usage.unwrap();
    assert_eq!(usage.hit_ratio.as_deref(), Some("93%"));
    assert!((990_000_000..=1_000_000_007).contains(&usage.bytes_served));
    assert_eq!(usage.since.unwrap().0.to_string(), "2026-11-20T09:00:00Z");
    assert_eq!(status.upstream.as_deref(), Some("up"));
}

#[test]
fn nodes_that_never_reported_are_silent() {
    let node_cache = node_cache("{}");
    let summary = Summary { reporting: 90, ..well() };
    let status = status(&observed(&node_cache, &summary));
    assert_eq!((status.nodes.silent, status.nodes.degraded), (10, 10));
    assert_eq!(said(&status)[2], "Degraded=True/NodesDegraded");
    assert!(status.conditions[2].message.ends_with("10 run an agent that never reported"));
}

#[test]
fn more_than_five_percent_is_degraded_and_stops_a_rollout() {
    let node_cache = node_cache("{}");
    let five = degraded(5);
    assert_eq!(said(&status(&observed(&node_cache, &five)))[2], "Degraded=False/AsExpected");
    let six = degraded(6);
    let rolling = Pods { updated: 40, ..FULL };
    let observed = Observed { pods: rolling, rollout: Rollout::Paused, ..observed(&node_cache, &six) };
    let status = status(&observed);
    assert_eq!(said(&status)[1..3], ["Progressing=True/RolloutPaused", "Degraded=True/NodesDegraded"]);
    assert!(status.conditions[2].message.contains("6 of 100 nodes are degraded: n17 DiskFull"));
    assert_eq!(status.unhealthy_nodes[0].node, "n17");
}

#[test]
fn a_refusal_is_told_and_the_running_agents_are_told_of_too() {
    let node_cache = node_cache("{}");
    let refusal = Refusal::Invalid(Wrong { field: "spec.listen", why: "no".to_owned() });
    let summary = well();
    let observed = Observed { refusal: Some(&refusal), ..observed(&node_cache, &summary) };
    let status = status(&observed);
    assert_eq!(said(&status)[0], "Available=True/Ready");
    assert_eq!(said(&status)[2], "Degraded=True/InvalidConfiguration");
}

#[test]
fn the_kill_switch_tells_how_far_it_is() {
    let (node_cache, summary) = (node_cache("{managementState: Removed}"), well());
    assert!(conditions::is_removed(&node_cache));
    let told = |done| {
        let withdrawal = Withdrawal { known: 100, done, ..Withdrawal::default() };
        let observed = Observed { withdrawal: Some(&withdrawal), ..observed(&node_cache, &summary) };
        said(&status(&observed))[1].clone()
    };
    assert_eq!(told(99), "Progressing=True/Withdrawing");
    assert_eq!(told(100), "Progressing=False/Removed");
    let refusal = Refusal::Api("apply DaemonSet larder-agents/larder-default: no".to_owned());
    let withdrawal = Withdrawal { known: 100, done: 99, ..Withdrawal::default() };
    let refused = Observed {
        withdrawal: Some(&withdrawal),
        refusal: Some(&refusal),
        ..observed(&node_cache, &summary)
    };
    let said = said(&status(&refused));
    assert_eq!(said[1..3], ["Progressing=True/Withdrawing", "Degraded=True/ApplyRefused"]);
}

#[test]
fn nobody_using_it_is_told() {
    let node_cache = node_cache("{}");
    let unused = Summary { in_use: 0, ..well() };
    assert_eq!(said(&status(&observed(&node_cache, &unused)))[3], "InUse=False/NotSeen");
    let bare = Summary { in_use: 0, installed: 0, ..well() };
    assert_eq!(said(&status(&observed(&node_cache, &bare)))[3], "InUse=False/NotInstalled");
}

#[test]
fn a_new_leader_keeps_what_was_told_until_nodes_had_their_time() {
    let mut node_cache = node_cache("{}");
    let before = status(&observed(&node_cache, &degraded(6)));
    node_cache.status = Some(before.clone());
    let empty = Summary { warming: true, ..Summary::default() };
    let after = status(&observed(&node_cache, &empty));
    assert_eq!(after.nodes, before.nodes);
    assert_eq!(after.usage, before.usage);
    assert_eq!(said(&after), said(&before));
    node_cache.status = None;
    assert_eq!(said(&status(&observed(&node_cache, &empty)))[3], "InUse=Unknown/Warming");
}

#[test]
fn a_deletion_changes_progressing_and_nothing_else() {
    let mut node_cache = node_cache("{}");
    node_cache.status = Some(status(&observed(&node_cache, &well())));
    let progress = Progress::withdrawing("3 of 5 nodes have not", now());
    let after = conditions::with_progress(&node_cache, &progress);
    assert_eq!(after.transitions().len(), 1);
    let after = after.into_vec();
    assert_eq!(after.len(), 5);
    let progressing = after.iter().find(|one| one.type_ == "Progressing").unwrap();
    assert_eq!(progressing.message, "3 of 5 nodes have not; not waited for after 2026-11-20T09:00:00Z");
}

#[test]
fn numbers_wait_for_their_turn_and_flips_do_not() {
    let node_cache = node_cache("{}");
    let old = status(&observed(&node_cache, &well()));
    let (soon, later) = (now() + SignedDuration::from_secs(5), now() + SignedDuration::from_secs(30));
    let due = |new: &NodeCacheStatus, at| is_due(Some(&old), new, Some(now()), at);
    assert!(!due(&old, later), "nothing changed");
    let counted = NodeCacheStatus { more_unhealthy_nodes: 1, ..old.clone() };
    assert!(!due(&counted, soon) && due(&counted, later));
    assert!(due(&status(&observed(&node_cache, &degraded(6))), soon), "a flip");
    assert!(due(&NodeCacheStatus { generation: 8, ..old.clone() }, soon), "another generation");
    assert!(is_due(None, &old, None, soon));
}

#[test]
fn events_are_for_what_a_person_would_ask_about() {
    let transition = |type_: &str, status: &str| Transition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: "Reason".to_owned(),
        message: String::new(),
    };
    assert_eq!(event(&transition("Degraded", "True"), true), Some(Kind::Warning));
    assert_eq!(
        event(&transition("Available", "False"), true),
        None,
        "a new one is not yet what it should be"
    );
    assert_eq!(event(&transition("Available", "False"), false), Some(Kind::Warning));
    assert_eq!(event(&transition("Degraded", "False"), false), Some(Kind::Normal));
    assert_eq!(event(&transition("Progressing", "True"), false), None);
    assert_eq!(event(&transition("InUse", "Unknown"), false), None);
}
