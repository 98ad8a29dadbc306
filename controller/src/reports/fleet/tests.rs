//! The fleet over time: counting through restarts, what statuses are told, and a large cluster in memory.

use larder_wire::report::Report;
use proptest::prelude::*;

use super::*;
use crate::reports::tests::{at, registry, report};

mod counting;

const CACHE: &str = "default";

fn tell(fleet: &Fleet, report: &Report, now: i64) -> Recorded {
    let who = Reporter { node: report.node.clone(), node_cache: CACHE.to_owned() };
    fleet.record(&who, Reading::of(report.clone(), at(now)).0, at(now))
}

fn fleet() -> Fleet {
    let fleet = Fleet::new(at(0));
    fleet.set_desired(CACHE, Desired { generation: 7, interval: Duration::from_secs(30) }, at(0));
    fleet
}

fn names(worst: &[WorstNode]) -> Vec<String> {
    worst.iter().map(|worst| format!("{} {}", worst.node, worst.reason)).collect()
}

#[test]
fn a_reply_says_what_the_story_wants() {
    let fleet = Fleet::new(at(0));
    let recorded = tell(&fleet, &report("n1"), 1);
    assert_eq!(
        (recorded.desired_generation, recorded.next_report_after),
        (7, INTERVAL),
        "nothing was said yet"
    );
    let interval = Duration::from_secs(60);
    fleet.set_desired(CACHE, Desired { generation: 9, interval }, at(1));
    let recorded = tell(&fleet, &report("n2"), 2);
    assert_eq!((recorded.desired_generation, recorded.next_report_after, recorded.known), (9, interval, 2));
}

#[test]
fn a_summary_counts_every_node_once() {
    let fleet = fleet();
    tell(&fleet, &report("ready"), 0);
    let mut stale = report("refused");
    stale.generation = 6;
    stale.registries[0].state = "refused".to_owned();
    stale.registries[0].reason = "TwoRoots".to_owned();
    tell(&fleet, &stale, 60);
    let mut unsupported = report("plain");
    unsupported.registries[0].state = "refused".to_owned();
    unsupported.registries[0].reason = "ConfigPathUnset".to_owned();
    unsupported.registries[0].upstream_up = false;
    tell(&fleet, &unsupported, 60);
    let summary = fleet.summary(CACHE, at(91));
    assert_eq!((summary.reporting, summary.silent, summary.ready, summary.degraded), (2, 1, 0, 2));
    assert_eq!((summary.installed, summary.in_use, summary.unsupported, summary.updated), (0, 0, 1, 1));
    assert_eq!(names(&summary.worst), ["ready Silent", "refused NotInstalled: TwoRoots (docker.io)"]);
    assert_eq!(summary.worst[0].since, at(0), "silent since it was last heard");
    assert_eq!((summary.more, summary.upstream_down.as_slice()), (0, ["docker.io".to_owned()].as_slice()));
    assert!(summary.warming);
    tell(&fleet, &report("ready"), 100);
    let summary = fleet.summary(CACHE, at(120));
    assert_eq!((summary.reporting, summary.ready, summary.installed, summary.in_use), (3, 1, 1, 1));
    assert_eq!((summary.cache_bytes, summary.capacity_bytes, summary.warming), (3 << 30, 300 << 30, false));
    assert_eq!(summary.upstream_down, Vec::<String>::new(), "one of three is that node's own trouble");
    assert_eq!(fleet.summary("other", at(120)), Summary { usage: summary.usage, ..Summary::default() });
}

#[test]
fn the_twenty_worst_are_named_and_the_rest_counted() {
    let fleet = fleet();
    for number in 0..25 {
        let mut told = report(&format!("n{number:02}"));
        told.cache.free_bytes = if number < 24 { 0 } else { told.cache.free_bytes };
        told.cache.capacity_bytes = if number == 24 { 0 } else { told.cache.capacity_bytes };
        tell(&fleet, &told, 0);
    }
    let summary = fleet.summary(CACHE, at(1));
    assert_eq!((summary.worst.len(), summary.more), (20, 5));
    assert_eq!(names(&summary.worst)[..2], ["n24 StoreNotCaching", "n00 DiskFull"]);
    fleet.set_min_free(CACHE, Size::Bytes(0));
    assert_eq!(fleet.summary(CACHE, at(2)).degraded, 1);
}

#[test]
fn in_use_is_what_containerd_asked_for_after_the_entry_was_written() {
    let fleet = fleet();
    let in_use = |now| fleet.summary(CACHE, at(now)).in_use;
    let mut told = report("n1");
    told.registries[0].containerd_seen = Some(at(-1000).to_string());
    tell(&fleet, &told, 0);
    assert_eq!(in_use(0), 1, "the entry was there before we looked");
    told.registries[0].state = "withdrawn".to_owned();
    tell(&fleet, &told, 30);
    assert_eq!(in_use(30), 0);
    told.registries[0].state = "installed".to_owned();
    tell(&fleet, &told, 60);
    assert_eq!(in_use(60), 0, "nobody asked since it is back");
    told.registries[0].containerd_seen = Some(at(45).to_string());
    tell(&fleet, &told, 90);
    assert_eq!(in_use(90), 1, "it may have been written right after the report before");
    (told.registries[0].containerd_seen, told.instance) = (None, "another start".to_owned());
    tell(&fleet, &told, 120);
    assert_eq!(in_use(120), 1, "the agent forgot, and we did not");
}

#[test]
fn suspects_are_named_until_somebody_looked() {
    let fleet = fleet();
    let mut unused = report("n0");
    unused.registries[0].containerd_seen = None;
    for number in 0..8 {
        unused.node = format!("n{number}");
        tell(&fleet, &unused, 0);
        tell(&fleet, &unused, 3600);
    }
    assert_eq!(fleet.suspects(CACHE, at(3599)), Vec::<String>::new());
    assert_eq!(fleet.suspects(CACHE, at(3600)), ["n0", "n1", "n2", "n3", "n4"]);
    fleet.pods_started("n0", true, at(3600));
    fleet.pods_started("n1", false, at(3600));
    fleet.runtime("n2", "cri-o://1.34.0");
    fleet.runtime("n3", "containerd://2.1.4");
    assert_eq!(fleet.suspects(CACHE, at(3601)), ["n3", "n4", "n5", "n6", "n7"]);
    let summary = fleet.summary(CACHE, at(3601));
    assert_eq!((names(&summary.worst), summary.unsupported), (vec!["n0 NotInUse".to_owned()], 1));
    unused.node = "n0".to_owned();
    unused.registries[0].containerd_seen = Some(at(3610).to_string());
    tell(&fleet, &unused, 3630);
    assert_eq!(fleet.summary(CACHE, at(3630)).degraded, 0);
}

#[test]
fn a_node_is_handed_out_when_it_changed_and_only_then() {
    let fleet = fleet();
    tell(&fleet, &report("a"), 0);
    tell(&fleet, &report("b"), 0);
    let handed = |most, now| {
        let states = fleet.transitions(CACHE, most, at(now));
        states.iter().for_each(|state| fleet.told(CACHE, state));
        states.into_iter().map(|state| (state.node, state.state, state.first)).collect::<Vec<_>>()
    };
    assert_eq!(handed(1, 1), [("a".to_owned(), "Ready", true)]);
    assert_eq!(handed(9, 1), [("b".to_owned(), "Ready", true)]);
    assert_eq!(handed(9, 60), []);
    let mut full = report("a");
    full.cache.free_bytes = 0;
    tell(&fleet, &full, 60);
    assert_eq!(handed(9, 60), [("a".to_owned(), "Degraded", false)]);
    assert_eq!(handed(9, 91), [("b".to_owned(), "Degraded", false)], "silent");
    full.generation = 8;
    tell(&fleet, &full, 92);
    assert_eq!(handed(9, 92).len(), 1);
    full.generation = 7;
    tell(&fleet, &full, 93);
    let late = fleet.transitions(CACHE, 1, at(93)).remove(0);
    assert_eq!(late.registries[0].state, "installed");
    full.generation = 8;
    tell(&fleet, &full, 94);
    fleet.told(CACHE, &late);
    assert_eq!(handed(9, 94).len(), 1, "what is told is older than what it is now");
}

#[test]
fn what_was_not_told_comes_again() {
    let fleet = fleet();
    tell(&fleet, &report("a"), 0);
    let state = fleet.transitions(CACHE, 9, at(1)).remove(0);
    assert_eq!(fleet.transitions(CACHE, 9, at(2)), std::slice::from_ref(&state));
    fleet.told(CACHE, &state);
    assert_eq!(fleet.transitions(CACHE, 9, at(3)), []);
}

#[test]
fn a_node_cache_that_is_gone_is_forgotten_when_its_last_agents_are() {
    let fleet = fleet();
    tell(&fleet, &report("a"), 0);
    fleet.forget_node_cache(CACHE);
    tell(&fleet, &report("a"), 10);
    let other = |now| {
        let who = Reporter { node: "b".to_owned(), node_cache: "other".to_owned() };
        fleet.record(&who, Reading::of(report("b"), at(now)).0, at(now))
    };
    other(3609);
    assert_eq!(fleet.node_caches(), [CACHE, "other"]);
    other(3610);
    assert_eq!(fleet.node_caches(), ["other"]);
    fleet.set_desired(CACHE, Desired { generation: 8, interval: INTERVAL }, at(3700));
    other(7200);
    assert_eq!(fleet.node_caches(), [CACHE, "other"], "its story speaks of it");
}

#[test]
fn entries_are_out_when_every_node_says_so() {
    let fleet = fleet();
    for node in ["a", "b", "c"] {
        tell(&fleet, &report(node), 0);
    }
    let mut out = report("b");
    (out.generation, out.registries[0].state) = (8, "withdrawn".to_owned());
    tell(&fleet, &out, 95);
    let mut behind = report("c");
    behind.registries[0].state = "withdrawn".to_owned();
    tell(&fleet, &behind, 95);
    let left = fleet.withdrawn(CACHE, 8, at(95));
    assert_eq!((left.known, left.done, left.silent, left.remaining), (3, 1, 1, vec!["c".to_owned()]));
    assert_eq!(fleet.silent(CACHE, at(95)), ["a"]);
    fleet.forget_node("other", "a");
    assert_eq!(fleet.withdrawn(CACHE, 8, at(95)).known, 3, "another NodeCache's node of that name");
    fleet.forget_node(CACHE, "a");
    assert_eq!(fleet.silent(CACHE, at(95)), Vec::<String>::new());
    behind.generation = 8;
    tell(&fleet, &behind, 96);
    let left = fleet.withdrawn(CACHE, 8, at(96));
    assert_eq!((left.known, left.done), (2, 2));
    assert_eq!(fleet.withdrawn("other", 1, at(96)), Withdrawal::default());
    fleet.forget_node_cache(CACHE);
    assert_eq!(fleet.known(), 0);
}

#[test]
fn an_upstream_is_seen_by_all_who_serve_it() {
    let fleet = fleet();
    let mut one = report("a");
    one.registries = vec![registry("docker.io"), registry("quay.io")];
    one.registries[0].ratelimit_remaining = Some(60);
    tell(&fleet, &one, 0);
    one.node = "b".to_owned();
    one.registries[0].ratelimit_remaining = Some(40);
    one.registries[0].upstream_up = false;
    one.registries[1].state = "waiting".to_owned();
    tell(&fleet, &one, 60);
    let docker = fleet.upstream("docker.io", at(60));
    assert_eq!(
        (docker.nodes, docker.installed, docker.down, docker.ratelimit_remaining),
        (2, 2, 1, Some(40))
    );
    let quay = fleet.upstream("quay.io", at(60));
    assert_eq!((quay.nodes, quay.installed, quay.down, quay.ratelimit_remaining), (2, 1, 0, None));
    assert_eq!(fleet.upstream("docker.io", at(91)).nodes, 1, "the silent one serves nobody that we know of");
    assert_eq!(fleet.upstream("ghcr.io", at(60)).nodes, 0);
    assert_eq!(fleet.registries(), ["docker.io", "quay.io"]);
    assert_eq!(fleet.nodes(Some("other"), at(60)).len(), 0);
    let nodes = fleet.nodes(None, at(60));
    assert_eq!((&*nodes[1].node, nodes[1].state, nodes[1].registries[1].state), ("b", "Pending", "waiting"));
}

#[test]
fn a_node_that_is_gone_for_a_day_is_forgotten() {
    let fleet = fleet();
    tell(&fleet, &report("a"), 0);
    assert_eq!(fleet.summary(CACHE, at(24 * 3600 - 1)).silent, 1);
    assert_eq!(fleet.summary(CACHE, at(24 * 3600)).silent, 0);
    assert_eq!(fleet.known(), 0);
}

#[test]
fn five_thousand_nodes_fit_in_little_memory() {
    const NODES: usize = 5000;
    let fleet = fleet();
    let mut told = report("");
    told.registries = (0..10).map(|number| registry(&format!("r{number}.example"))).collect();
    for round in 0..2 {
        for node in 0..NODES {
            told.node = format!("ip-10-0-{node}.eu-central-1.compute.internal");
            for registry in &mut told.registries {
                (registry.requests.cache, registry.requests.upstream) = (30 + 3 * round, 10 + round);
                (registry.served_bytes, registry.upstream_bytes) = (1000 + 100 * round, 500 + 50 * round);
            }
            tell(&fleet, &told, i64::try_from(30 * round).unwrap());
        }
    }
    let summary = fleet.summary(CACHE, at(31));
    assert_eq!((summary.reporting, summary.ready, summary.in_use), (NODES, NODES, NODES));
    let usage = summary.usage;
    assert_eq!((usage.requests, usage.hit_ratio), (4 * 10 * NODES as u64, Some(0.75)));
    assert_eq!((usage.bytes_served, usage.bytes_fetched), (100 * 10 * NODES as u64, 50 * 10 * NODES as u64));
    assert_eq!(fleet.upstream("r3.example", at(31)).nodes, NODES);

    let state = fleet.lock();
    let nodes = &state.groups[CACHE].nodes;
    let of_node = |(name, node): (&Arc<str>, &Node)| {
        name.len() + 16 + size_of::<(Arc<str>, Node)>() + size_of_val(&*node.entries)
    };
    let bytes: usize = nodes.iter().map(of_node).sum();
    assert!(bytes < 20 << 20, "{bytes} bytes");
    let registry = |node: usize| &nodes.values().nth(node).unwrap().entries[0].registry;
    assert!(Arc::ptr_eq(registry(0), registry(4999)), "a name is kept once");
}
