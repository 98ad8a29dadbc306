//! The agents' pod: an init container that makes the directories, the agent, and the installer beside it. Must not
//! depend on Caches, the generation or a Secret's content: those reach a running pod by its mounts and roll none.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
    NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectFieldSelector,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use larder_wire::settings::Settings;

use super::volumes::{self, Volumes};
use crate::apply;
use crate::node_cache::validate::Effective;

/// The agent's own uid and gid: no other image's, so that nobody else on a node reads the cache.
pub(super) const AGENT: i64 = 19_500;
const ROOT: i64 = 0;

/// What the agent takes over only at a start. Written into the template, so that a change of it rolls the pods.
const LISTENS: &str = "registry-operator.dev/listens";

/// The template of every node's pod.
pub(super) fn template(effective: &Effective) -> PodTemplateSpec {
    let volumes = Volumes::of(effective);
    let pod = &effective.pod;
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(apply::labels(super::COMPONENT, &effective.name)),
            annotations: Some(BTreeMap::from([(LISTENS.to_owned(), listens(&effective.settings))])),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            affinity: Some(affinity()),
            automount_service_account_token: Some(false),
            containers: vec![agent(effective, &volumes), installer(effective, &volumes)],
            // An agent must not need CoreDNS to fetch CoreDNS.
            dns_policy: Some("Default".to_owned()),
            enable_service_links: Some(false),
            host_network: Some(true),
            image_pull_secrets: non_empty(
                pod.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect(),
            ),
            init_containers: Some(vec![prepare(effective, &volumes)]),
            node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
            priority_class_name: non_empty_text(&pod.priority_class),
            security_context: Some(PodSecurityContext {
                // The token and the credentials become readable to the agent's group.
                fs_group: Some(AGENT),
                se_linux_options: pod.se_linux_options.clone(),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            service_account_name: Some(effective.child_name()),
            termination_grace_period_seconds: Some(45),
            tolerations: non_empty(pod.tolerations.clone()),
            volumes: Some(volumes.all),
            ..PodSpec::default()
        }),
    }
}

fn listens(settings: &Settings) -> String {
    let listen = &settings.listen;
    let all = [Some(listen.mirror), Some(listen.admin), listen.metrics];
    all.into_iter().flatten().map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
}

/// uid 0 with nothing but CHOWN: gives data_dir and run_dir to the agent, and refuses what belongs to somebody else.
fn prepare(effective: &Effective, volumes: &Volumes) -> Container {
    Container {
        command: Some(command(&["/larder-installer", "prepare"])),
        resources: Some(resources([("cpu", "10m"), ("memory", "16Mi")], "64Mi")),
        security_context: Some(security(ROOT, ROOT, &["CHOWN"])),
        volume_mounts: Some(volumes.for_prepare.clone()),
        ..container(effective, "prepare")
    }
}

fn agent(effective: &Effective, volumes: &Volumes) -> Container {
    let port = effective.settings.listen.admin.port();
    Container {
        command: Some(command(&["/larder-agent"])),
        env: Some(vec![node_name()]),
        // A hung agent holds pulls until its end; so its end comes within 15 s, and without grace.
        liveness_probe: Some(Probe {
            termination_grace_period_seconds: Some(1),
            ..probe("/livez", port, 3, 3)
        }),
        readiness_probe: Some(probe("/readyz", port, 3, 3)),
        // A large cache is looked through before the first answer.
        startup_probe: Some(probe("/livez", port, 2, 90)),
        resources: Some(
            effective
                .pod
                .resources
                .clone()
                .unwrap_or_else(|| resources([("cpu", "50m"), ("memory", "64Mi")], "512Mi")),
        ),
        security_context: Some(security(AGENT, AGENT, &[])),
        volume_mounts: Some(volumes.for_agent.clone()),
        ..container(effective, "agent")
    }
}

/// uid 0, because certs.d is root's, and without a capability, because it is nothing else.
fn installer(effective: &Effective, volumes: &Volumes) -> Container {
    Container {
        command: Some(command(&["/larder-installer", "run"])),
        env: Some(vec![node_name()]),
        resources: Some(resources([("cpu", "10m"), ("memory", "16Mi")], "64Mi")),
        security_context: Some(security(ROOT, AGENT, &[])),
        volume_mounts: Some(volumes.for_installer.clone()),
        ..container(effective, "installer")
    }
}

fn container(effective: &Effective, name: &str) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(effective.pod.image.clone()),
        image_pull_policy: effective.pod.pull_policy.clone(),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn command(program: &[&str]) -> Vec<String> {
    program.iter().chain(&["--config", volumes::SETTINGS_FILE]).map(|&word| word.to_owned()).collect()
}

fn node_name() -> EnvVar {
    EnvVar {
        name: "NODE_NAME".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: "spec.nodeName".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn probe(path: &str, port: u16, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            host: Some("127.0.0.1".to_owned()),
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(port)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// No CPU limit: throttled, the cache would be slower than the registry.
fn resources(requests: [(&str, &str); 2], memory: &str) -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), Quantity((*value).to_owned()))).collect())
    };
    ResourceRequirements {
        requests: quantities(&requests),
        limits: quantities(&[("memory", memory)]),
        ..ResourceRequirements::default()
    }
}

fn security(user: i64, group: i64, capabilities: &[&str]) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: non_empty(capabilities.iter().map(|&name| name.to_owned()).collect()),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(group),
        run_as_non_root: Some(user != ROOT),
        run_as_user: Some(user),
        ..SecurityContext::default()
    }
}

/// Linux nodes with a kubelet: virtual ones have no disk and no containerd of their own.
fn affinity() -> Affinity {
    let rule = |key: &str, operator: &str, value: &str| NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(vec![value.to_owned()]),
    };
    let mut rules = vec![rule("kubernetes.io/os", "In", "linux")];
    rules.extend(super::VIRTUAL.iter().map(|(key, value)| rule(key, "NotIn", value)));
    let term = NodeSelectorTerm { match_expressions: Some(rules), ..NodeSelectorTerm::default() };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn non_empty_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
