//! NodeCache and the Caches it selects -> the agents' settings file. Pure. Must not repeat a default of the settings:
//! what is not written keeps theirs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use larder_wire::settings::{
    self, CacheSettings, InstallerSettings, Listen, ReportSettings, Settings, UpstreamSettings, parse, render,
};
use larder_wire::units::{Size, parse_duration, parse_size};

use crate::cache::upstream::Wrong;
use crate::crd::{Distribution, InstallerMode, NodeCache, NodeCacheSpec, NodeManagement};

/// The settings of every node but for their generation.
pub(super) fn settings(
    spec: &NodeCacheSpec,
    upstreams: Vec<UpstreamSettings>,
    controller: Option<String>,
) -> Result<Settings, Wrong> {
    let defaults = Settings::default();
    let storage = spec.storage.clone().unwrap_or_default();
    Ok(Settings {
        data_dir: storage.host_path.map_or(defaults.data_dir, Into::into),
        listen: listen(spec)?,
        cache: cache(spec)?,
        upstreams,
        installer: installer(spec),
        report: ReportSettings {
            controller,
            interval: duration("spec.reportInterval", &spec.report_interval, defaults.report.interval)?,
            ..defaults.report
        },
        ..Settings::default()
    })
}

/// The generation rises by one when the rendered settings change. `live` is what nodes mount now, `told` the highest
/// generation that was ever told, for when that is gone.
pub(super) fn generation(settings: &Settings, live: Option<&str>, told: u64) -> u64 {
    let before = live.map_or(0, |text| parse(text).settings.generation);
    let same = Settings { generation: before, ..settings.clone() };
    if live == Some(render(&same).as_str()) { before } else { before.max(told).saturating_add(1) }
}

/// The highest generation that the status ever told.
pub(super) fn told(node_cache: &NodeCache) -> u64 {
    node_cache.status.as_ref().map_or(0, |status| u64::try_from(status.generation).unwrap_or(0))
}

fn listen(spec: &NodeCacheSpec) -> Result<Listen, Wrong> {
    let (written, defaults) = (spec.listen.clone().unwrap_or_default(), Listen::default());
    let port =
        |field, port: Option<i32>| port.map(|port| u16::try_from(port).map_err(Wrong::at(field))).transpose();
    let local = |port: Option<u16>, default: SocketAddr| {
        port.map_or(default, |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    let listen = Listen {
        mirror: local(port("spec.listen.port", written.port)?, defaults.mirror),
        admin: local(port("spec.listen.adminPort", written.admin_port)?, defaults.admin),
        metrics: port("spec.listen.metricsPort", written.metrics_port)?
            .map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        ..defaults
    };
    let ports = [Some(listen.mirror), Some(listen.admin), listen.metrics].map(|at| at.map(|at| at.port()));
    if ports[0] == ports[1] || ports[2].is_some() && ports[..2].contains(&ports[2]) {
        return Err(Wrong { field: "spec.listen", why: "expected three different ports".to_owned() });
    }
    Ok(listen)
}

fn cache(spec: &NodeCacheSpec) -> Result<CacheSettings, Wrong> {
    let (storage, defaults) = (spec.storage.clone().unwrap_or_default(), CacheSettings::default());
    Ok(CacheSettings {
        ttl: duration("spec.cacheTTL", &spec.cache_ttl, defaults.ttl)?,
        max_size: size("spec.storage.maxSize", &storage.max_size, defaults.max_size)?,
        min_free: size("spec.storage.minFree", &storage.min_free, defaults.min_free)?,
        tag_ttl: duration("spec.tagTTL", &spec.tag_ttl, defaults.tag_ttl)?,
        max_stale: duration("spec.maxStale", &spec.max_stale, defaults.max_stale)?,
    })
}

/// Removed is the installer told to take everything out; the agents stay to see to it.
pub(super) fn installer(spec: &NodeCacheSpec) -> InstallerSettings {
    let (written, defaults) = (spec.installer.clone().unwrap_or_default(), InstallerSettings::default());
    let distribution = written.distribution.map_or(defaults.distribution, distribution);
    let (certs_dir, containerd_config) = distribution.paths();
    let mode = match spec.management_state.unwrap_or_default() {
        NodeManagement::Managed => written.mode.map_or(defaults.mode, mode),
        NodeManagement::Removed => settings::InstallerMode::Absent,
    };
    InstallerSettings {
        mode,
        distribution,
        certs_dir: written.certs_dir.map_or_else(|| certs_dir.into(), Into::into),
        containerd_config: written.containerd_config.map_or_else(|| containerd_config.into(), Into::into),
        keep_on_shutdown: written.keep_on_shutdown.unwrap_or(defaults.keep_on_shutdown),
        ..defaults
    }
}

fn mode(written: InstallerMode) -> settings::InstallerMode {
    match written {
        InstallerMode::Manage => settings::InstallerMode::Manage,
        InstallerMode::Observe => settings::InstallerMode::Observe,
        InstallerMode::Absent => settings::InstallerMode::Absent,
    }
}

fn distribution(written: Distribution) -> settings::Distribution {
    match written {
        Distribution::Kubeadm => settings::Distribution::Kubeadm,
        Distribution::Eks => settings::Distribution::Eks,
        Distribution::K3s => settings::Distribution::K3s,
        Distribution::Rke2 => settings::Distribution::Rke2,
        Distribution::Microk8s => settings::Distribution::Microk8s,
        Distribution::Custom => settings::Distribution::Custom,
    }
}

fn duration(field: &'static str, written: &Option<String>, default: Duration) -> Result<Duration, Wrong> {
    written.as_deref().map_or(Ok(default), |text| parse_duration(text).map_err(Wrong::at(field)))
}

fn size(field: &'static str, written: &Option<String>, default: Size) -> Result<Size, Wrong> {
    written.as_deref().map_or(Ok(default), |text| parse_size(text).map_err(Wrong::at(field)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> NodeCacheSpec {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn what_is_not_written_keeps_the_settings_own_default() {
        let made = settings(&spec("{}"), Vec::new(), None).unwrap();
        assert_eq!(made, Settings { upstreams: Vec::new(), ..Settings::default() });
    }

    #[test]
    fn removed_takes_every_entry_out_whatever_the_mode() {
        let made = settings(&spec("{managementState: Removed, installer: {mode: manage}}"), Vec::new(), None);
        assert_eq!(made.unwrap().installer.mode, settings::InstallerMode::Absent);
    }

    #[test]
    fn a_distribution_sets_paths_that_may_be_overwritten() {
        let made =
            settings(&spec("{installer: {distribution: k3s, certsDir: /srv/certs.d}}"), Vec::new(), None);
        let installer = made.unwrap().installer;
        assert_eq!(installer.certs_dir, std::path::Path::new("/srv/certs.d"));
        assert!(installer.containerd_config.starts_with("/var/lib/rancher/k3s"));
    }

    #[test]
    fn the_generation_rises_when_the_text_changes_and_never_falls() {
        let mut wanted = settings(&spec("{}"), Vec::new(), None).unwrap();
        assert_eq!(generation(&wanted, None, 0), 1);
        wanted.generation = 1;
        let live = render(&wanted);
        assert_eq!(generation(&wanted, Some(&live), 1), 1);
        let changed = Settings { data_dir: "/srv/larder".into(), ..wanted.clone() };
        assert_eq!(generation(&changed, Some(&live), 1), 2);
        assert_eq!(generation(&wanted, None, 7), 8, "the ConfigMap was deleted");
        assert_eq!(generation(&wanted, Some("generation = \"?\""), 7), 8, "somebody wrote nonsense over it");
    }

    #[test]
    fn two_listeners_on_one_port_are_refused() {
        assert!(settings(&spec("{listen: {port: 19501}}"), Vec::new(), None).is_err());
        assert!(settings(&spec("{listen: {metricsPort: 19500}}"), Vec::new(), None).is_err());
    }
}
