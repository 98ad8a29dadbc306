//! What the pod's containers see of the node, and which of them sees it. Directories throughout, never a `subPath`: a
//! mounted file would neither follow a change nor could be renamed over. Must not name a Cache.
//!
//! certs.d and containerd's config directory are `DirectoryOrCreate`. With `Directory` the kubelet would not start the
//! pod where one is missing, and such a node would be broken instead of unsupported; without a type the runtime makes
//! them all the same; and mounting a parent that is always there (`/etc`) would hand all of it to the installer. So a
//! node without containerd gets, at worst, two empty directories that nobody reads, and a node whose containerd has
//! its defaults built in gets the certs.d it reads.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, HostPathVolumeSource, ProjectedVolumeSource, SecretVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use crate::node_cache::validate::Effective;

pub(in crate::node_cache) const SETTINGS_DIR: &str = "/etc/larder";
pub(super) const SETTINGS_FILE: &str = "/etc/larder/larder.toml";
pub(in crate::node_cache) const CREDENTIALS_DIR: &str = "/var/run/secrets/larder-credentials";
pub(in crate::node_cache) const TOKEN_DIR: &str = "/var/run/secrets/larder";

/// Whom the agents' tokens are for.
const AUDIENCE: &str = "larder-controller";
const TOKEN_SECONDS: i64 = 3600;

const SETTINGS: &str = "settings";
const CREDENTIALS: &str = "credentials";
const TOKEN: &str = "token";
const DATA: &str = "data";
const RUN: &str = "run";
const CERTS: &str = "certs";
const CONTAINERD: &str = "containerd";

/// The volumes, and what each container mounts of them.
pub(super) struct Volumes {
    pub(super) all: Vec<Volume>,
    pub(super) for_prepare: Vec<VolumeMount>,
    pub(super) for_agent: Vec<VolumeMount>,
    pub(super) for_installer: Vec<VolumeMount>,
}

impl Volumes {
    pub(super) fn of(effective: &Effective) -> Self {
        let settings = &effective.settings;
        let config = settings.installer.containerd_config.parent().unwrap_or_else(|| Path::new("/"));
        let (data, run) = (mount(DATA, &settings.data_dir), mount(RUN, &settings.run_dir));
        let configured = read_only(mount(SETTINGS, SETTINGS_DIR));
        Self {
            all: vec![
                of_config_map(SETTINGS, effective.child_name()),
                of_secret(CREDENTIALS, effective.credentials_name()),
                token(),
                host_path(DATA, &settings.data_dir),
                host_path(RUN, &settings.run_dir),
                host_path(CONTAINERD, config),
                host_path(CERTS, &settings.installer.certs_dir),
            ],
            for_prepare: vec![configured.clone(), data.clone(), run.clone()],
            for_agent: vec![
                configured.clone(),
                read_only(mount(CREDENTIALS, CREDENTIALS_DIR)),
                read_only(mount(TOKEN, TOKEN_DIR)),
                data,
                run.clone(),
            ],
            for_installer: vec![
                configured,
                run,
                read_only(mount(CONTAINERD, config)),
                mount(CERTS, &settings.installer.certs_dir),
            ],
        }
    }
}

fn mount(volume: &str, path: impl AsRef<Path>) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.as_ref().display().to_string(),
        ..VolumeMount::default()
    }
}

fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount }
}

fn host_path(name: &str, path: &Path) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.display().to_string(),
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        ..Volume::default()
    }
}

fn of_config_map(volume: &str, name: String) -> Volume {
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name,
            default_mode: Some(0o444),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn of_secret(volume: &str, name: String) -> Volume {
    Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The token that reports are sent with: bound to the pod, for our audience alone.
fn token() -> Volume {
    let projection = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: TOKEN.to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(vec![projection]) }),
        ..Volume::default()
    }
}
