//! One gateway pod: its container, what it mounts, how it is probed, and how it leaves without dropping a push. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction, KeyToPath, Lifecycle,
    LifecycleHandler, LocalObjectReference, PodSecurityContext, PodSpec, Probe, SeccompProfile,
    SecretVolumeSource, SecurityContext, SleepAction, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::apply::{MANAGED_BY, labels};
use crate::registry_gateway::settings::{ADMIN_PORT, DIR, PORT, SETTINGS_FILE, TLS_DIR, UPSTREAM_CA_DIR};
use crate::registry_gateway::validate::Valid;

/// How long a pod that is to go still takes pushes: Services learn of it meanwhile.
const STILL_SERVING: i64 = 15;
/// That, 60 s for pushes under way, and a moment to end.
const GRACE: i64 = STILL_SERVING + 60 + 5;
/// No user of the image.
const USER: i64 = 65532;

/// What selects the pods; never changes, as a Deployment's selector cannot.
pub(super) fn selector_labels(gateway: &str) -> BTreeMap<String, String> {
    let mut labels = labels("gateway", gateway);
    labels.remove(MANAGED_BY.0);
    labels
}

pub(super) fn selector(gateway: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector_labels(gateway)), ..LabelSelector::default() }
}

/// The same as one text, for the scale subresource.
pub(in crate::registry_gateway) fn selector_text(gateway: &str) -> String {
    let labels = selector_labels(gateway);
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

pub(super) fn build(valid: &Valid) -> PodSpec {
    let spec = &valid.spec;
    let (volumes, mounts): (Vec<_>, Vec<_>) = mounted(valid).into_iter().unzip();
    let secrets = valid.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    PodSpec {
        containers: vec![container(valid, mounts)],
        volumes: Some(volumes),
        image_pull_secrets: Some(secrets.collect::<Vec<_>>()).filter(|secrets| !secrets.is_empty()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        affinity: spec.affinity.clone(),
        node_selector: spec.node_selector.clone(),
        tolerations: spec.tolerations.clone(),
        topology_spread_constraints: spec
            .topology_spread_constraints
            .clone()
            .or_else(|| Some(spread(&valid.gateway))),
        ..PodSpec::default()
    }
}

fn container(valid: &Valid, mounts: Vec<VolumeMount>) -> Container {
    let port = |name: &str, port| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let command = ["/larder-gateway", "--config", &format!("{DIR}/{SETTINGS_FILE}")];
    Container {
        name: "gateway".to_owned(),
        image: Some(valid.image.clone()),
        image_pull_policy: valid.pull_policy.clone(),
        command: Some(command.map(str::to_owned).to_vec()),
        ports: Some(vec![port("gateway", PORT), port("admin", ADMIN_PORT)]),
        volume_mounts: Some(mounts),
        resources: Some(valid.resources.clone()),
        startup_probe: Some(probe("/livez", 2, 30)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        readiness_probe: Some(probe("/readyz", 5, 2)),
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

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn mounted(valid: &Valid) -> Vec<(Volume, VolumeMount)> {
    let config = Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: valid.workload(),
            default_mode: Some(0o444),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let mut pairs = vec![(config, mount("config", DIR))];
    if let Some(name) = &valid.tls {
        pairs.push(secret("tls", name, &["tls.crt", "tls.key"], TLS_DIR));
    }
    if let Some(name) = &valid.upstream_ca {
        pairs.push(secret("upstream-ca", name, &["ca.crt"], UPSTREAM_CA_DIR));
    }
    pairs
}

/// Directories, never single files: a renewed certificate is seen.
fn secret(volume: &str, name: &str, keys: &[&str], at: &str) -> (Volume, VolumeMount) {
    let item = |key: &&str| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None };
    let source = SecretVolumeSource {
        secret_name: Some(name.to_owned()),
        items: Some(keys.iter().map(item).collect()),
        default_mode: Some(0o440),
        optional: None,
    };
    let made = Volume { name: volume.to_owned(), secret: Some(source), ..Volume::default() };
    (made, mount(volume, at))
}

fn mount(volume: &str, at: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: at.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// Over nodes and zones where there are several, and never a reason not to run.
fn spread(gateway: &str) -> Vec<TopologySpreadConstraint> {
    let over = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(gateway)),
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    vec![over("kubernetes.io/hostname"), over("topology.kubernetes.io/zone")]
}
