//! The children of a NodeCache, case by case, against the files kept in `tests/golden/node_cache`.

use k8s_openapi::api::apps::v1::DaemonSet;
use larder_wire::settings::parse;
use serde_json::Value;

use super::*;
use crate::apply::golden;
use crate::crd::Cache;
use crate::node_cache::rollout::Rollout;
use crate::node_cache::validate::tests::{cache, config, known, node_cache};
use crate::node_cache::validate::validate;

fn effective(spec: &str, caches: Vec<Cache>) -> Effective {
    validate(&node_cache(spec), &known(caches), &config()).unwrap()
}

/// The usual ones, and one of every oddity.
fn caches() -> Vec<Cache> {
    vec![
        cache(
            "docker-io",
            "{upstreamRegistryURL: 'https://registry-1.docker.io', cacheTTL: 24h, maxCacheSize: 100Gi}",
        ),
        cache("quay", "{upstreamRegistryURL: 'https://quay.io', secretReferenceName: quay, access: Shared}"),
        cache(
            "harbor",
            "{upstreamRegistryURL: 'https://harbor.example/hub', upstream: registry.example, \
             tls: {caConfigMapRef: {name: corp}}, overrideExisting: true, default: true, \
             proxy: {httpsProxy: 'http://proxy.example:3128'}, tokenHosts: [auth.example], allowCIDRs: [10.0.0.0/8]}",
        ),
    ]
}

/// Everything that a NodeCache can say.
const FULL: &str = "
managementState: Managed
nodeSelector: {pool: gpu}
tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]
image: registry.example/larder:1.2.3
imagePullSecrets: [{name: pull}]
storage: {hostPath: /srv/larder, maxSize: 100Gi, minFree: 30%}
cacheTTL: 24h
tagTTL: 0s
maxStale: 1h
listen: {port: 20500, adminPort: 20501, metricsPort: 20502}
installer: {mode: observe, distribution: k3s, keepOnShutdown: true}
reportInterval: 1m
rollout: {maxUnavailable: 3}
seLinuxOptions: {type: spc_t}
resources: {requests: {cpu: 200m, memory: 128Mi}, limits: {memory: 1Gi}}
priorityClassName: high
";

fn full() -> String {
    // As JSON, so that it stands in a line.
    serde_json::to_string(&serde_saphyr::from_str::<Value>(FULL).unwrap()).unwrap()
}

/// What a child with that kind says of itself.
fn child<'a>(children: &'a [Child], kind: &str) -> &'a Child {
    children.iter().find(|child| child.kind() == kind).unwrap()
}

fn settings_text(children: &[Child]) -> String {
    child(children, "ConfigMap").object.data["data"][SETTINGS_KEY].as_str().unwrap().to_owned()
}

#[test]
fn the_children_are_as_kept() {
    golden::check("node_cache/default", &build(&effective("{}", Vec::new())));
    golden::check("node_cache/caches", &build(&effective("{}", caches())));
    golden::check("node_cache/full", &build(&effective(&full(), caches())));
    golden::check("node_cache/removed", &build(&effective("{managementState: Removed}", caches())));
    let paused = Effective { rollout: Rollout::Paused, ..effective("{}", Vec::new()) };
    golden::check("node_cache/paused", &build(&paused));
}

#[test]
fn every_settings_file_is_one_that_agents_read_without_a_mistake() {
    let full = full();
    let cases =
        [("{}", Vec::new()), ("{}", caches()), (&full, caches()), ("{managementState: Removed}", caches())];
    for (spec, caches) in cases {
        let effective = effective(spec, caches);
        let parsed = parse(&settings_text(&build(&effective)));
        assert_eq!((parsed.mistakes, parsed.unknown), (Vec::new(), Vec::new()), "{spec}");
        assert_eq!(parsed.settings, effective.settings, "{spec}");
    }
}

/// What makes a pod be replaced.
fn template(effective: &Effective) -> Value {
    child(&build(effective), "DaemonSet").object.data["spec"]["template"].clone()
}

#[test]
fn caches_secrets_and_generations_roll_no_pod() {
    let bare = template(&effective("{}", Vec::new()));
    assert_eq!(bare, template(&effective("{}", caches())));
    assert_eq!(bare, template(&effective("{managementState: Removed}", caches())));
    assert_eq!(
        bare,
        template(&effective("{installer: {mode: absent}, cacheTTL: 1h, reportInterval: 5m}", Vec::new()))
    );
    assert_eq!(
        bare,
        template(&effective("{rollout: {maxUnavailable: 1}, storage: {maxSize: 1Gi}}", Vec::new()))
    );
    let mut later = effective("{}", caches());
    later.settings.generation = 99;
    assert_eq!(bare, template(&later));
}

#[test]
fn what_an_agent_takes_over_only_at_a_start_rolls_the_pods() {
    let bare = template(&effective("{}", Vec::new()));
    for spec in [
        "{listen: {port: 20500}}",
        "{listen: {metricsPort: 19502}}",
        "{storage: {hostPath: /srv/larder}}",
        "{installer: {distribution: rke2}}",
        "{image: 'registry.example/larder:2'}",
    ] {
        assert_ne!(bare, template(&effective(spec, Vec::new())), "{spec}");
    }
}

#[test]
fn the_pod_is_as_small_as_promised() {
    let children = build(&effective("{}", caches()));
    let read: DaemonSet =
        serde_json::from_value(serde_json::to_value(&child(&children, "DaemonSet").object).unwrap()).unwrap();
    let spec = read.spec.unwrap().template.spec.unwrap();
    let mounts = |name: &str| {
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let container = all.into_iter().find(|container| container.name == name).unwrap();
        assert_eq!(
            container.ports, None,
            "a declared port of the host's network is taken from the scheduler"
        );
        let mounts = container.volume_mounts.iter().flatten();
        mounts
            .inspect(|mount| assert_eq!(mount.sub_path, None))
            .map(|mount| mount.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(mounts("agent"), ["settings", "credentials", "token", "data", "run"]);
    assert_eq!(
        mounts("installer"),
        ["settings", "run", "containerd", "certs"],
        "neither credentials nor token"
    );
    assert_eq!(mounts("prepare"), ["settings", "data", "run"]);
    let limits = spec
        .containers
        .iter()
        .map(|container| container.resources.as_ref().unwrap().limits.as_ref().unwrap());
    assert!(limits.into_iter().all(|limits| !limits.contains_key("cpu")));
    assert_eq!(spec.host_network, Some(true));
    assert_eq!(spec.dns_policy.as_deref(), Some("Default"));
    assert_eq!(spec.automount_service_account_token, Some(false));
}

#[test]
fn every_child_goes_with_its_owner_and_is_known_as_ours() {
    for child in build(&effective("{}", caches())) {
        let owner = &child.object.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("NodeCache", Some(true)), "{child}");
        let labels = child.object.metadata.labels.as_ref().unwrap();
        assert_eq!(labels[apply::MANAGED_BY.0], apply::MANAGED_BY.1);
        assert_eq!(child.namespace(), Some("larder-agents"));
    }
}
