//! Settings -> what the cache works with. Must not read files or the environment.

use std::time::Duration;

use larder_wire::settings::{Settings, UpstreamSettings};

use crate::evict::{Limits, RegistryLimits};

/// Times that are no settings: the promises of the design. Tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How long an upstream's body may stand still.
    pub idle: Duration,
    /// How long a digest is answered 404 after wrong bytes came for it.
    pub ban: Duration,
    /// Over which time a slow client's rate is taken.
    pub rate_window: Duration,
    /// How long a client may take to send a request's head.
    pub header_time: Duration,
    /// Between two looks at the disk and the index.
    pub tick: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),
            ban: Duration::from_secs(30),
            rate_window: Duration::from_secs(60),
            header_time: Duration::from_secs(10),
            tick: Duration::from_secs(5),
        }
    }
}

/// An upstream with what it takes over from the settings' root.
pub(crate) fn effective(settings: &Settings, upstream: &UpstreamSettings) -> UpstreamSettings {
    let mut upstream = upstream.clone();
    upstream.proxy = upstream.proxy.or_else(|| settings.proxy.clone());
    upstream
}

pub(crate) fn limits(settings: &Settings) -> Limits {
    let registries = settings.upstreams.iter().map(|upstream| {
        let limits = RegistryLimits { ttl: upstream.ttl.map(millis), max_size: upstream.max_size };
        (upstream.registry.to_string(), limits)
    });
    Limits {
        ttl: millis(settings.cache.ttl),
        max_size: settings.cache.max_size,
        min_free: settings.cache.min_free,
        registries: registries.collect(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
