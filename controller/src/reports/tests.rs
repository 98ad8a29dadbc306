//! The reports' server over loopback, with an API server that is played.

mod cluster;
mod limits;
mod pages;
mod story;

use jiff::{SignedDuration, Timestamp};
use larder_wire::report::{Cache, Evicted, RegistryReport, Report, Requests, SCHEMA};

/// A moment, in seconds from a fixed one.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

/// A node that is well, started a minute before `at(0)`.
pub(super) fn report(node: &str) -> Report {
    Report {
        schema: SCHEMA,
        node: node.to_owned(),
        version: "0.1.0".to_owned(),
        instance: "first".to_owned(),
        started: at(-60).to_string(),
        generation: 7,
        cache: Cache {
            bytes: 1 << 30,
            blobs: 9,
            free_bytes: 90 << 30,
            capacity_bytes: 100 << 30,
            index_degraded: false,
        },
        evicted_bytes: Evicted::default(),
        registries: vec![registry("docker.io")],
    }
}

/// A registry that is installed and in use.
pub(super) fn registry(name: &str) -> RegistryReport {
    RegistryReport {
        registry: name.to_owned(),
        requests: Requests::default(),
        served_bytes: 0,
        upstream_bytes: 0,
        upstream_up: true,
        ratelimit_remaining: None,
        state: "installed".to_owned(),
        reason: String::new(),
        containerd_seen: Some(at(-10).to_string()),
    }
}
