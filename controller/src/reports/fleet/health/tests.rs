//! Every state of a node, and when it begins.

use larder_wire::report::Report;

use super::super::names::Names;
use super::*;
use crate::reports::reading::Reading;
use crate::reports::tests::{at, registry, report};

const INTERVAL: Duration = Duration::from_secs(30);
const MIN_FREE: Size = Size::Percent(25);

/// A node that reported `report` at second 0, and again at `last`.
fn node(report: &Report, last: i64) -> Node {
    let (mut names, reading) = (Names::default(), |now| Reading::of(report.clone(), now).0);
    let (mut node, _) = Node::first(reading(at(0)), &mut names, at(-60), at(0));
    node.follow(7, at(0));
    node.take(reading(at(last)), &mut names, at(last));
    node.follow(7, at(last));
    node
}

fn with(change: impl FnOnce(&mut Report)) -> Report {
    let mut report = report("n1");
    report.registries = vec![registry("docker.io"), registry("quay.io")];
    change(&mut report);
    report
}

fn standing(state: &str, reason: &str) -> Report {
    with(|report| {
        let registry = &mut report.registries[1];
        (registry.state, registry.reason) = (state.to_owned(), reason.to_owned());
    })
}

/// The state of a node that reports until `now`.
fn judged(report: &Report, now: i64) -> String {
    let health = judge(&node(report, now), INTERVAL, MIN_FREE, at(now));
    if health.reason().is_empty() { health.state().to_owned() } else { health.reason() }
}

#[test]
fn a_node_that_does_what_it_is_told_is_ready() {
    assert_eq!(judged(&with(|_| {}), 3000), "Ready");
    assert_eq!(judged(&standing("external", ""), 3000), "Ready");
    assert_eq!(judged(&with(|report| report.registries.clear()), 3000), "Ready");
    assert_eq!(judged(&standing("withdrawn", ""), 3000), "Ready", "taken out as asked");
    assert_eq!(
        judged(&with(|report| report.registries[0].upstream_up = false), 3000),
        "Ready",
        "not its fault"
    );
}

#[test]
fn silence_is_three_intervals_and_never_less_than_90_s() {
    let (node, judged) = (node(&with(|_| {}), 0), |node, interval, now| {
        judge(node, Duration::from_secs(interval), MIN_FREE, at(now))
    });
    assert_eq!(judged(&node, 30, 90), Health::Ready);
    assert_eq!(judged(&node, 30, 91), Health::SILENT);
    assert_eq!(judged(&node, 5, 90), Health::Ready);
    assert_eq!(judged(&node, 60, 180), Health::Ready);
    assert_eq!(judged(&node, 60, 181), Health::SILENT);
}

#[test]
fn a_refused_entry_degrades_at_once_and_a_waiting_one_in_time() {
    assert_eq!(judged(&standing("refused", "OtherUpstream"), 1), "NotInstalled: OtherUpstream (quay.io)");
    for (state, reason, told) in [
        ("waiting", "ProbeFailed", "ProbeFailed"),
        ("waiting", "", "Waiting"),
        ("withdrawn", "Bypass", "Bypass"),
        ("", "", "NoInstaller"),
        ("word-of-tomorrow", "", "NoInstaller"),
    ] {
        let report = standing(state, reason);
        assert_eq!(judged(&report, 299), "Pending", "{state} {reason}");
        assert_eq!(judged(&report, 300), format!("NotInstalled: {told} (quay.io)"));
    }
}

#[test]
fn where_containerd_reads_no_certs_d_nothing_is_wrong() {
    assert_eq!(judged(&standing("refused", "ConfigPathUnset"), 3000), "Unsupported");
    let mut other = node(&standing("refused", "Generated"), 0);
    assert!(matches!(judge(&other, INTERVAL, MIN_FREE, at(1)), Health::Degraded(_)));
    other.no_containerd = true;
    assert_eq!(judge(&other, INTERVAL, MIN_FREE, at(1)), Health::Unsupported);
    assert_eq!(judge(&other, INTERVAL, MIN_FREE, at(1000)), Health::SILENT);
}

#[test]
fn a_store_that_keeps_nothing_is_told() {
    let disk =
        |free: u64| with(|report| (report.cache.free_bytes, report.cache.capacity_bytes) = (free, 1000));
    assert_eq!(judged(&disk(200), 1), "Ready");
    assert_eq!(judged(&disk(199), 1), "DiskFull");
    let full = node(&disk(199), 1);
    assert_eq!(judge(&full, INTERVAL, Size::Percent(10), at(1)), Health::Ready);
    assert_eq!(judge(&full, INTERVAL, Size::Bytes(0), at(1)), Health::Ready);
    assert_eq!(judged(&with(|report| report.cache.capacity_bytes = 0), 1), "StoreNotCaching");
    let fetched = |blobs, evicted| {
        with(|report| {
            report.registries[0].upstream_bytes = FETCHED;
            (report.cache.blobs, report.evicted_bytes.ttl) = (blobs, evicted);
        })
    };
    assert_eq!(judged(&fetched(0, 0), 1), "StoreNotCaching");
    assert_eq!((judged(&fetched(1, 0), 1), judged(&fetched(0, 1), 1)), ("Ready".into(), "Ready".into()));
    assert_eq!(judged(&with(|report| report.cache.index_degraded = true), 1), "IndexDegraded");
}

#[test]
fn settings_may_take_five_minutes_to_reach_a_node() {
    let behind = with(|report| report.generation = 6);
    assert_eq!(judged(&behind, 299), "Ready");
    assert_eq!(judged(&behind, 300), "ConfigStale");
    assert_eq!(judged(&with(|report| report.generation = 8), 300), "ConfigStale", "of a NodeCache of before");
}

#[test]
fn an_unused_entry_is_looked_into_after_an_hour() {
    let unused =
        with(|report| report.registries.iter_mut().for_each(|registry| registry.containerd_seen = None));
    let is_suspect = |node: &Node, now| is_suspect(node, INTERVAL, at(now));
    assert!(!is_suspect(&node(&unused, 3599), 3599));
    let mut node = node(&unused, 3600);
    assert!(is_suspect(&node, 3600));
    assert_eq!(judge(&node, INTERVAL, MIN_FREE, at(3600)), Health::Ready, "nobody may have pulled");
    node.pods = Some((false, at(3600)));
    assert_eq!(judge(&node, INTERVAL, MIN_FREE, at(3601)), Health::Ready);
    assert!(!is_suspect(&node, 3601));
    node.last = at(4200);
    assert!(is_suspect(&node, 4200), "pods may have come since");
    node.pods = Some((true, at(4200)));
    assert!(!is_suspect(&node, 4200));
    assert_eq!(judge(&node, INTERVAL, MIN_FREE, at(4200)), Health::Degraded(Reason::NotInUse));
}

#[test]
fn what_matters_most_is_told() {
    let all = standing("refused", "Symlink");
    let mut node = node(&all, 300);
    (node.cache.free_bytes, node.cache.index_degraded, node.behind) = (0, true, Some(at(0)));
    let reason = |node: &Node| judge(node, INTERVAL, MIN_FREE, at(300)).reason();
    assert_eq!(reason(&node), "NotInstalled: Symlink (quay.io)");
    node.entries[1].standing = Standing::Installed;
    assert_eq!(reason(&node), "DiskFull");
    node.cache.free_bytes = node.cache.capacity_bytes;
    assert_eq!(reason(&node), "ConfigStale");
    node.behind = None;
    assert_eq!(reason(&node), "IndexDegraded");
    assert!(Reason::Silent < Reason::NotInstalled { registry: "a".into(), why: "b".into() });
}
