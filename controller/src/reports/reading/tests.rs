//! Values that cannot be, and what is left of them.

use super::*;
use crate::reports::tests::{at, registry, report};

fn clamped(change: impl FnOnce(&mut Report)) -> (Reading, Vec<&'static str>) {
    let mut report = report("n1");
    change(&mut report);
    let (reading, clamped) = Reading::of(report, at(0));
    (reading, clamped.into_iter().collect())
}

#[test]
fn an_honest_report_is_believed_as_it_is() {
    let (reading, clamped) = clamped(|report| {
        let registry = &mut report.registries[0];
        registry.requests = Requests { cache: 1, upstream: 2, follow: 4, stale: 8, bypass: 16, none: 32 };
        (report.evicted_bytes.ttl, report.evicted_bytes.corrupt) = (5, 6);
    });
    assert!(clamped.is_empty(), "{clamped:?}");
    let registry = &reading.registries[0];
    assert_eq!((registry.counters.requests, registry.counters.hits), (31, 13));
    assert_eq!((registry.standing, registry.seen, reading.evicted), (Standing::Installed, Some(at(-10)), 11));
}

#[test]
fn absurd_numbers_are_cut() {
    let (reading, clamped) = clamped(|report| {
        report.cache.bytes = u64::MAX;
        report.registries[0].requests.cache = u64::MAX;
        report.registries[0].requests.stale = u64::MAX;
        report.registries[0].served_bytes = u64::MAX;
        report.registries[0].ratelimit_remaining = Some(u64::MAX);
        report.evicted_bytes =
            larder_wire::report::Evicted { ttl: u64::MAX, size: u64::MAX, free: u64::MAX, corrupt: u64::MAX };
    });
    assert_eq!(clamped, ["capacity", "number"]);
    assert_eq!((reading.cache.bytes, reading.evicted), (reading.cache.capacity_bytes, 4 * MOST));
    let registry = &reading.registries[0];
    assert_eq!(
        (registry.counters.hits, registry.counters.served_bytes, registry.ratelimit),
        (2 * MOST, MOST, Some(MOST))
    );
}

#[test]
fn more_than_the_disk_holds_is_the_disk() {
    let (reading, clamped) = clamped(|report| {
        (report.cache.free_bytes, report.cache.bytes, report.cache.capacity_bytes) = (300, 200, 100);
    });
    assert_eq!((clamped, reading.cache.free_bytes, reading.cache.bytes), (vec!["capacity"], 100, 100));
}

#[test]
fn names_that_are_none_are_left_out() {
    let (reading, reasons) = clamped(|report| {
        let names = ["docker.io", "Docker.IO", "docker.io", "a/b", "", &"a.".repeat(200), "quay.io:443"];
        report.registries = names.map(registry).into();
    });
    let names: Vec<_> = reading.registries.iter().map(|registry| registry.registry.as_str()).collect();
    assert_eq!((names, reasons), (vec!["docker.io", "quay.io:443"], vec!["duplicate", "registry"]));
    let (reading, reasons) = clamped(|report| {
        report.registries = (0..300).map(|number| registry(&format!("r{number}.example"))).collect();
    });
    assert_eq!((reading.registries.len(), reasons), (REGISTRIES, vec!["registries"]));
}

#[test]
fn words_are_short_and_states_are_known_ones() {
    let (reading, clamped) = clamped(|report| {
        report.version = "v".repeat(1_000_000);
        report.instance = "line\nbreak".to_owned();
        report.registries[0].state = "levitating".to_owned();
        report.registries[0].reason = "é reason".to_owned();
    });
    assert_eq!(clamped, ["state", "text"]);
    assert_eq!((reading.version.len(), reading.instance.as_str()), (WORD, "linebreak"));
    assert_eq!(
        (reading.registries[0].standing, reading.registries[0].reason.as_str()),
        (Standing::Untold, "reason")
    );
    for standing in ["installed", "waiting", "withdrawn", "external", "refused", ""] {
        let (reading, _) = self::clamped(|report| report.registries[0].state = standing.to_owned());
        assert_eq!(reading.registries[0].standing.as_str(), standing);
    }
}

#[test]
fn the_future_is_now_and_what_is_no_time_is_none() {
    let (reading, reasons) = clamped(|report| {
        report.started = at(100_000).to_string();
        report.registries[0].containerd_seen = Some(at(200).to_string());
    });
    assert_eq!(
        (reading.started, reading.registries[0].seen, reasons),
        (Some(at(0)), Some(at(0)), vec!["time"])
    );
    let (reading, reasons) = clamped(|report| report.started = "soon".repeat(100));
    assert_eq!((reading.started, reasons), (None, vec!["time"]));
}
