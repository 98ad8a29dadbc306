//! One registry pod: its container, what it mounts, how it is probed, and how it leaves without dropping a push. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction, KeyToPath,
    Lifecycle, LifecycleHandler, LocalObjectReference, PersistentVolumeClaimVolumeSource, PodSecurityContext,
    PodSpec, Probe, SeccompProfile, SecretVolumeSource, SecurityContext, SleepAction, TCPSocketAction,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::apply::{MANAGED_BY, labels};
use crate::registry::material::{Materials, STORE_ROOT};
use crate::registry::names::Names;
use crate::registry::validate::{Certificate, Store, Valid};
use crate::registry::version::Major;

pub(super) const PORT: i32 = 5000;
pub(super) const METRICS_PORT: i32 = 5001;
pub(super) const LISTEN_ADDRESS: &str = ":5000";
pub(super) const DEBUG_ADDRESS: &str = ":5001";
/// How long pushes and pulls may go on after SIGTERM.
pub(super) const DRAIN: Duration = Duration::from_secs(60);
/// How long a pod that is to go still takes requests: Services and Ingresses learn of it meanwhile.
const STILL_SERVING: i64 = 25;
/// Both, and a moment to end.
const GRACE: i64 = STILL_SERVING + DRAIN.as_secs().cast_signed() + 5;

pub(super) const CONFIG_FILE: &str = "config.yml";
pub(super) const CA_FILE: &str = "trusted-ca.crt";
pub(super) const TLS_DIR: &str = "/etc/larder/tls";
pub(super) const HTPASSWD_PATH: &str = "/etc/larder/auth/htpasswd";
pub(super) const TOKEN_PATH: &str = "/etc/larder/token/ca.crt";
/// Volumes whose files Distribution reads when it starts, and never again.
pub(super) const READ_ONCE: [&str; 2] = [TLS, TOKEN];
const TLS: &str = "tls";
const TOKEN: &str = "token";
const CA_DIR: &str = "/etc/larder/trusted-ca";
/// No user of the image: whatever it has, it need not be root.
const USER: i64 = 65532;

/// What selects the pods; never changes, as a Deployment's selector cannot.
pub(super) fn selector_labels(names: &Names) -> BTreeMap<String, String> {
    let mut labels = labels("registry", &names.registry);
    labels.remove(MANAGED_BY.0);
    labels
}

pub(super) fn selector(names: &Names) -> LabelSelector {
    LabelSelector { match_labels: Some(selector_labels(names)), ..LabelSelector::default() }
}

pub(super) fn build(valid: &Valid, materials: &Materials, revision: &str) -> PodSpec {
    let spec = &valid.spec;
    let (volumes, mounts) = mounted(valid, materials, revision);
    let secrets = valid.pull.secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    PodSpec {
        containers: vec![container(valid, materials, mounts)],
        volumes: Some(volumes),
        image_pull_secrets: Some(secrets.collect::<Vec<_>>()).filter(|secrets| !secrets.is_empty()),
        automount_service_account_token: Some(false),
        // A Service named registry would otherwise come in as REGISTRY_PORT, which Distribution reads as a setting.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        affinity: spec.affinity.clone(),
        node_selector: spec.node_selector.clone(),
        tolerations: spec.tolerations.clone(),
        topology_spread_constraints: spec
            .topology_spread_constraints
            .clone()
            .or_else(|| Some(spread(&valid.names))),
        ..PodSpec::default()
    }
}

fn container(valid: &Valid, materials: &Materials, mounts: Vec<VolumeMount>) -> Container {
    let port = |name: &str, port| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: "registry".to_owned(),
        image: Some(valid.image.clone()),
        image_pull_policy: valid.pull.policy.clone(),
        args: Some(vec!["serve".to_owned(), format!("{}/{CONFIG_FILE}", config_dir(valid.version.major()))]),
        env: Some(environment(valid, materials)).filter(|env| !env.is_empty()),
        ports: Some(vec![port("registry", PORT), port("metrics", METRICS_PORT)]),
        volume_mounts: Some(mounts),
        resources: valid.spec.resources.clone(),
        // While the store is away every request is answered 503: no reason to restart anything.
        startup_probe: Some(probe(tcp(), 2, 30)),
        liveness_probe: Some(probe(tcp(), 10, 3)),
        readiness_probe: Some(probe(http_get(&valid.certificate), 5, 2)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: STILL_SERVING }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Where the image itself keeps its configuration, so that its commands find it too.
const fn config_dir(major: Major) -> &'static str {
    match major {
        Major::Two => "/etc/docker/registry",
        Major::Three => "/etc/distribution",
    }
}

fn environment(valid: &Valid, materials: &Materials) -> Vec<EnvVar> {
    let variable = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    };
    let mut variables = Vec::new();
    if valid.version.major() == Major::Three {
        // Its default is a collector on localhost, which is not there.
        variables.push(variable("OTEL_TRACES_EXPORTER", "none"));
    }
    if materials.trusted_ca.is_some() {
        // The S3 driver has no setting for it; Go reads every directory named here.
        variables.push(variable("SSL_CERT_DIR", &format!("/etc/ssl/certs:{CA_DIR}")));
    }
    if let Some(proxy) = &valid.spec.proxy {
        let pairs =
            [("HTTP_PROXY", &proxy.http), ("HTTPS_PROXY", &proxy.https), ("NO_PROXY", &proxy.no_proxy)];
        let written = pairs.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let written = written.filter(|(_, value)| !value.is_empty());
        variables.extend(written.map(|(name, value)| variable(name, value)));
    }
    variables
}

fn mounted(valid: &Valid, materials: &Materials, revision: &str) -> (Vec<Volume>, Vec<VolumeMount>) {
    let config = valid.names.config(revision);
    let mut pairs =
        vec![secret("config", &config, &[(CONFIG_FILE, CONFIG_FILE)], config_dir(valid.version.major()))];
    if materials.trusted_ca.is_some() {
        pairs.push(secret("trusted-ca", &config, &[(CA_FILE, CA_FILE)], CA_DIR));
    }
    if let Some(name) = &materials.tls_secret {
        pairs.push(secret(TLS, name, &[("tls.crt", "tls.crt"), ("tls.key", "tls.key")], TLS_DIR));
    }
    if let Some(name) = &materials.htpasswd_secret {
        pairs.push(secret("auth", name, &[("htpasswd", "htpasswd")], "/etc/larder/auth"));
    }
    if let Some(roots) = &materials.token_roots {
        pairs.push(secret(TOKEN, &roots.secret, &[(&roots.key, "ca.crt")], "/etc/larder/token"));
    }
    pairs.extend(store(valid));
    pairs.into_iter().unzip()
}

fn secret(volume: &str, name: &str, items: &[(&str, &str)], at: &str) -> (Volume, VolumeMount) {
    let item =
        |(key, path): &(&str, &str)| KeyToPath { key: (*key).into(), path: (*path).into(), mode: None };
    let source = SecretVolumeSource {
        secret_name: Some(name.to_owned()),
        items: Some(items.iter().map(item).collect()),
        default_mode: Some(0o440),
        optional: None,
    };
    let made = Volume { name: volume.to_owned(), secret: Some(source), ..Volume::default() };
    (made, VolumeMount { read_only: Some(true), ..mount(volume, at) })
}

fn store(valid: &Valid) -> Option<(Volume, VolumeMount)> {
    let mut volume = Volume { name: "store".to_owned(), ..Volume::default() };
    match &valid.store {
        Store::EmptyDir { limit } => {
            let size_limit = limit.clone().map(Quantity);
            volume.empty_dir = Some(EmptyDirVolumeSource { size_limit, medium: None });
        }
        Store::Claim { name, .. } => {
            volume.persistent_volume_claim =
                Some(PersistentVolumeClaimVolumeSource { claim_name: name.clone(), read_only: None });
        }
        Store::S3(_) | Store::Bucket { .. } => return None,
    }
    Some((volume, mount("store", STORE_ROOT)))
}

fn mount(volume: &str, at: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: at.to_owned(), ..VolumeMount::default() }
}

fn probe(kind: Probe, period: i32, failures: i32) -> Probe {
    Probe {
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
        ..kind
    }
}

fn tcp() -> Probe {
    let port = IntOrString::String("registry".to_owned());
    Probe { tcp_socket: Some(TCPSocketAction { port, host: None }), ..Probe::default() }
}

/// `/` needs no login, and is 503 like everything else while the store is away.
fn http_get(certificate: &Certificate) -> Probe {
    let scheme = if *certificate == Certificate::None { "HTTP" } else { "HTTPS" };
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/".to_owned()),
            port: IntOrString::String("registry".to_owned()),
            scheme: Some(scheme.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

/// Over nodes and zones where there are several, and never a reason not to run.
fn spread(names: &Names) -> Vec<TopologySpreadConstraint> {
    let over = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(names)),
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    vec![over("kubernetes.io/hostname"), over("topology.kubernetes.io/zone")]
}
