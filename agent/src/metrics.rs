//! All metrics of the process as OpenMetrics text: the mirror's, and the agent's own three.
//! Must not compute anything: what is shown was counted where it happened.

use std::fmt;
use std::path::PathBuf;

use larder_installer::RegistryState;
use larder_wire::settings::Settings;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// What the text calls itself.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) reload_failures: Counter,
    pub(crate) unknown_keys: Gauge,
}

impl Metrics {
    /// The agent's own metrics in front of those that `others` adds.
    pub(crate) fn new(settings: watch::Receiver<Settings>, others: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::default();
        let (reload_failures, unknown_keys) = (Counter::default(), Gauge::default());
        registry.register(
            "larder_config_reload_failures",
            "Changes of the settings file that could not be taken over",
            reload_failures.clone(),
        );
        registry.register(
            "larder_config_unknown_keys",
            "Keys of the settings file that this version does not know",
            unknown_keys.clone(),
        );
        registry.register_collector(Box::new(Installed(settings)));
        others(&mut registry);
        Self { registry, reload_failures, unknown_keys }
    }

    /// The whole page.
    ///
    /// # Errors
    /// When a metric does not encode.
    pub(crate) fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// `larder_hosts_toml_installed`, read from the installer's state at each scrape.
struct Installed(watch::Receiver<Settings>);

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Installed")
    }
}

impl Collector for Installed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (run_dir, registries): (PathBuf, Vec<String>) = {
            let settings = self.0.borrow();
            let registries = settings.upstreams.iter().map(|upstream| upstream.registry.to_string());
            (settings.run_dir.clone(), registries.collect())
        };
        let told = larder_installer::read(&run_dir).map(|state| state.registries).unwrap_or_default();
        let mut family = encoder.encode_descriptor(
            "larder_hosts_toml_installed",
            "Whether containerd is sent here for this registry by our entry in certs.d",
            None,
            MetricType::Gauge,
        )?;
        for registry in registries {
            let state = told.iter().find(|told| told.registry == registry);
            let installed = i64::from(state.is_some_and(RegistryState::is_installed));
            let labels = [("registry", registry)];
            ConstGauge::new(installed).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_registry_has_its_sample_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { run_dir: dir.path().to_owned(), ..Settings::default() };
        let (_settings, receiver) = watch::channel(settings);
        let metrics = Metrics::new(receiver, |_| {});
        let page = metrics.page().unwrap();
        assert!(page.contains("larder_config_reload_failures_total 0\n"), "{page}");
        assert!(page.contains("larder_config_unknown_keys 0\n"), "{page}");
        assert!(page.contains("larder_hosts_toml_installed{registry=\"docker.io\"} 0\n"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");

        let state = r#"{"registries":[{"registry":"docker.io","state":"installed","reason":"","message":"","since":""}]}"#;
        fs::write(dir.path().join("installer.json"), state).unwrap();
        metrics.reload_failures.inc();
        let page = metrics.page().unwrap();
        assert!(page.contains("larder_config_reload_failures_total 1\n"), "{page}");
        assert!(page.contains("larder_hosts_toml_installed{registry=\"docker.io\"} 1\n"), "{page}");
        assert!(page.contains("larder_hosts_toml_installed{registry=\"quay.io\"} 0\n"), "{page}");
    }
}
