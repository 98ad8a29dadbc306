//! What is only known at the moment of asking: room, index and upstream states, connections. Must not keep anything.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::cache::Cache;

pub(crate) struct Gauges(pub Weak<Cache>);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(cache) = self.0.upgrade() else { return Ok(()) };
        let room = cache.room();
        for (name, help, value) in [
            ("larder_cache_bytes", "Bytes stored", room.bytes),
            ("larder_cache_blobs", "Blobs stored, manifests among them", room.blobs),
            ("larder_cache_free_bytes", "Bytes free on the cache's file system", room.free_bytes),
            (
                "larder_index_degraded",
                "1 while pulls go on without the index",
                u64::from(room.index_degraded),
            ),
            ("larder_connections", "Open client connections", cache.connections()),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let rebuilds = ConstCounter::new(cache.store.index_rebuilds());
        let help = "Indexes built anew because the one before failed";
        rebuilds.encode(encoder.encode_descriptor(
            "larder_index_rebuilds",
            help,
            None,
            MetricType::Counter,
        )?)?;
        let upstreams = cache.upstreams();
        let help = "0 while an upstream is left alone because it keeps failing";
        let mut up = encoder.encode_descriptor("larder_upstream_up", help, None, MetricType::Gauge)?;
        for upstream in upstreams.all() {
            let labels = [("registry", upstream.settings.registry.as_str())];
            ConstGauge::new(i64::from(upstream.up())).encode(up.encode_family(&labels)?)?;
        }
        let help = "What the registry last said is left of its rate limit";
        let mut left =
            encoder.encode_descriptor("larder_ratelimit_remaining", help, None, MetricType::Gauge)?;
        for upstream in upstreams.all() {
            let Some(remaining) = upstream.ratelimit_remaining() else { continue };
            let labels = [("registry", upstream.settings.registry.as_str())];
            let gauge = ConstGauge::new(i64::try_from(remaining).unwrap_or(i64::MAX));
            gauge.encode(left.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
