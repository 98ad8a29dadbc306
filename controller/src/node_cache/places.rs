//! Whether the directories that a pod mounts are apart: one within another would show a container what it must not
//! see, or hide what it needs, and the API server refuses two mounts at one path again and again. Pure.

use std::path::{Component, Path};

use larder_wire::settings::Settings;

use super::build::{CREDENTIALS_DIR, SETTINGS_DIR, TOKEN_DIR};
use crate::cache::upstream::Wrong;

const DATA: &str = "spec.storage.hostPath";
const CERTS: &str = "spec.installer.certsDir";
const CONFIG: &str = "spec.installer.containerdConfig";

pub(super) fn apart(settings: &Settings) -> Result<(), Wrong> {
    let certs = settings.installer.certs_dir.as_path();
    let config = settings.installer.containerd_config.parent().unwrap_or_else(|| Path::new("/"));
    let own = [SETTINGS_DIR, CREDENTIALS_DIR, TOKEN_DIR].map(Path::new);
    let run = settings.run_dir.as_path();
    for (field, path) in [(DATA, settings.data_dir.as_path()), (CERTS, certs), (CONFIG, config)] {
        // The whole node, or all of /etc, is nothing to mount.
        if path.components().filter(|part| matches!(part, Component::Normal(_))).count() < 2 {
            return Err(wrong(
                field,
                format!("{} is too much to mount; name a directory below it", path.display()),
            ));
        }
        if let Some(other) = own.into_iter().chain([run]).find(|other| overlap(path, other)) {
            return Err(wrong(
                field,
                format!("{} and the agent's own {} overlap", path.display(), other.display()),
            ));
        }
    }
    for (field, path) in [(CERTS, certs), (CONFIG, config)] {
        if overlap(path, &settings.data_dir) {
            return Err(wrong(field, format!("{} and {DATA} overlap", path.display())));
        }
    }
    // certs.d within the config's directory is how containerd has it; not the other way round.
    if config.starts_with(certs) {
        return Err(wrong(CERTS, format!("{CONFIG} lies within it, and would be writable")));
    }
    Ok(())
}

fn wrong(field: &'static str, why: String) -> Wrong {
    Wrong { field, why }
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use larder_wire::settings::Distribution;

    use super::*;

    fn settings(data: &str, certs: &str, config: &str) -> Settings {
        let mut settings = Settings { data_dir: data.into(), ..Settings::default() };
        (settings.installer.certs_dir, settings.installer.containerd_config) = (certs.into(), config.into());
        settings
    }

    #[test]
    fn every_distributions_paths_are_apart() {
        for distribution in
            [Distribution::Kubeadm, Distribution::K3s, Distribution::Rke2, Distribution::Microk8s]
        {
            let (certs, config) = distribution.paths();
            assert_eq!(apart(&settings("/var/lib/larder", certs, config)), Ok(()));
        }
    }

    #[test]
    fn what_overlaps_or_is_too_much_is_refused_at_its_field() {
        let (data, certs, config) = ("/srv/larder", "/etc/containerd/certs.d", "/etc/containerd/config.toml");
        for (field, settings) in [
            (DATA, settings("/etc/larder", certs, config)),
            (DATA, settings("/run/larder/data", certs, config)),
            (DATA, settings("/srv", certs, config)),
            (CERTS, settings(data, "/srv/larder/certs.d", config)),
            (CERTS, settings(data, "/etc", config)),
            (CERTS, settings(data, "/etc/containerd", config)),
            (CERTS, settings(data, "/var/run/secrets", config)),
            (CONFIG, settings(data, certs, "/etc/config.toml")),
            (CONFIG, settings(data, certs, "/srv/larder/config.toml")),
        ] {
            assert_eq!(apart(&settings).unwrap_err().field, field, "{settings:?}");
        }
    }
}
