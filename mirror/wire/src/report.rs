//! What an agent tells the controller, and what it shows at `GET /stats`: cumulative counters and gauges.
//! The shape is fixed by the contract; fields are only ever added. Times are RFC 3339 in UTC, sizes are bytes.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::units;

/// The version of this shape.
pub const SCHEMA: u32 = 1;

/// `POST <controller>/v1/reports`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: u32,
    pub node: String,
    pub version: String,
    /// Random, new at each start of the agent: counters begin again with it.
    pub instance: String,
    pub started: String,
    pub generation: u64,
    pub cache: Cache,
    pub evicted_bytes: Evicted,
    pub registries: Vec<RegistryReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    pub bytes: u64,
    pub blobs: u64,
    pub free_bytes: u64,
    pub capacity_bytes: u64,
    pub index_degraded: bool,
}

/// Bytes evicted, by reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evicted {
    pub ttl: u64,
    pub size: u64,
    pub free: u64,
    pub corrupt: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistryReport {
    pub registry: String,
    pub requests: Requests,
    pub served_bytes: u64,
    pub upstream_bytes: u64,
    pub upstream_up: bool,
    /// What the registry last said is left of its rate limit (Docker Hub's `ratelimit-remaining`).
    pub ratelimit_remaining: Option<u64>,
    /// The installer's state for this registry: installed, waiting, withdrawn, external, refused; empty when no
    /// installer has told.
    pub state: String,
    pub reason: String,
    /// When a containerd last asked for this registry; `null` before it did.
    pub containerd_seen: Option<String>,
}

/// Requests by where the answer came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    pub cache: u64,
    pub upstream: u64,
    pub follow: u64,
    pub stale: u64,
    pub bypass: u64,
    pub none: u64,
}

/// The controller's reply to a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub desired_generation: u64,
    #[serde(with = "go_duration")]
    pub next_report_after: Duration,
}

/// Durations in JSON as Go writes them.
mod go_duration {
    use super::{Duration, units};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&units::format_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        units::parse_duration(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_example_reads_and_writes_back() {
        let text = r#"{"schema":1,"node":"n1","version":"0.1.0","instance":"…","started":"2026-11-20T09:00:00Z","generation":7,"cache":{"bytes":0,"blobs":0,"free_bytes":0,"capacity_bytes":0,"index_degraded":false},"evicted_bytes":{"ttl":0,"size":0,"free":0,"corrupt":0},"registries":[{"registry":"docker.io","requests":{"cache":0,"upstream":0,"follow":0,"stale":0,"bypass":0,"none":0},"served_bytes":0,"upstream_bytes":0,"upstream_up":true,"ratelimit_remaining":null,"state":"installed","reason":"","containerd_seen":"2026-11-20T09:00:05Z"}]}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
    }

    #[test]
    fn a_reply_says_when_to_report_next() {
        let reply: Reply =
            serde_json::from_str(r#"{"desired_generation":7,"next_report_after":"30s"}"#).unwrap();
        assert_eq!(reply.next_report_after, Duration::from_secs(30));
        assert!(
            serde_json::from_str::<Reply>(r#"{"desired_generation":7,"next_report_after":"soon"}"#).is_err()
        );
    }
}
