//! Spec and surroundings in, objects out; compared with golden files.

use clap::Parser;
use k8s_openapi::api::core::v1::{Secret, Service};
use serde::de::DeserializeOwned;

use super::super::dereference::Found;
use super::super::validate::{Refusal, Valid, validate};
use super::*;
use crate::apply::golden;
use crate::config::Config;
use crate::crd::{Registry, RegistryGateway};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    config: Config,
}

fn config() -> Config {
    let line = ["run", "--gateway-image=registry.example/larder:1.2.3", "--image-pull-secret=pull"];
    Line::try_parse_from(line).unwrap().config
}

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap()
}

fn gateway(spec: &str) -> RegistryGateway {
    yaml(&format!(
        "apiVersion: registry-operator.dev/v1alpha1\nkind: RegistryGateway\n\
         metadata: {{name: main, namespace: registry-system, uid: u-1, generation: 7}}\n\
         spec:\n  registryRef: {{name: main}}\n{spec}"
    ))
}

fn service(scheme: &str, port: u16) -> Service {
    yaml(&format!(
        "metadata: {{name: main-registry, namespace: registry-system}}\n\
         spec: {{ports: [{{name: metrics, port: 5001}}, {{name: registry, port: {port}, appProtocol: {scheme}}}]}}"
    ))
}

fn secret(name: &str, keys: &str) -> Secret {
    yaml(&format!("metadata: {{name: {name}}}\ndata: {{{keys}}}"))
}

/// A registry by plain HTTP.
fn found() -> Found {
    Found { registry: Some(Registry::default()), service: Some(service("http", 5000)), ..Found::default() }
}

fn valid(spec: &str, found: &Found) -> Result<Valid, Refusal> {
    validate(&gateway(spec), found, &config())
}

/// What is wanted, then what is not.
fn check(case: &str, spec: &str, found: &Found) {
    let built = build(&valid(spec, found).unwrap());
    golden::check(&format!("registry_gateway/{case}"), &built.children);
    let unwanted: Vec<String> =
        built.unwanted.iter().map(|child| format!("{} {}\n", child.kind(), child.name())).collect();
    golden::check_text(&format!("registry_gateway/{case}.unwanted.txt"), &unwanted.concat());
}

#[test]
fn nothing_written_is_one_small_gateway() {
    check("least", "", &found());
}

#[test]
fn everything_written_stands_in_the_objects() {
    let spec = r#"
  capacityTier: Medium
  replicas: 3
  service: {type: LoadBalancer, port: 443, annotations: {example.com/pool: edge}}
  tls: {mode: CertManager, issuerRef: {kind: ClusterIssuer, name: ca}, renewBefore: 720h}
  action: Audit
  limits: {image: {max: 1Gi, scope: IndexSum}, tags: {maxPerRepository: 100}, manifestMaxBytes: 8Mi}
  overrides: [{repositories: ["team-a/*"], limits: {tags: {maxPerRepository: 500, excludePattern: "^sig-"}}}]
  tagIndex: {mode: Indexed, seedTimeout: 3s, onUnknown: Deny, resyncInterval: 5m}
  resources: {limits: {memory: 3Gi}}
  nodeSelector: {pool: infra}
  tolerations: [{key: infra, operator: Exists}]
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}]
"#;
    let found = Found {
        service: Some(service("https", 8443)),
        registry_tls: Some(secret("main-registry-tls", "ca.crt: YQ==, tls.crt: YQ==")),
        has_cert_manager: true,
        ..found()
    };
    check("full", spec, &found);
}

#[test]
fn a_certificate_that_is_given_is_mounted() {
    let spec = "  tls: {mode: Secret, secretRef: {name: mine}}\n";
    let found = Found { tls: Some(secret("mine", "tls.crt: YQ==, tls.key: YQ==")), ..found() };
    check("given_certificate", spec, &found);
}

#[test]
fn what_is_in_the_way_is_told() {
    let refused = |spec: &str, found: &Found| valid(spec, found).map(|valid| valid.upstream).unwrap_err();
    assert_eq!(refused("", &Found { registry: None, ..found() }).reason(), "RegistryNotFound");
    let waiting = refused("", &Found { service: None, ..found() });
    assert_eq!((waiting.reason(), waiting.is_waiting()), ("RegistryNotReady", true));
    let tls = "  tls: {mode: CertManager, issuerRef: {name: ca}}\n";
    assert_eq!(refused(tls, &found()).reason(), "CertManagerNotInstalled");
    let given = "  tls: {mode: Secret, secretRef: {name: mine}}\n";
    assert_eq!(refused(given, &found()).reason(), "CertificateNotFound");
    let half = Found { tls: Some(secret("mine", "tls.crt: YQ==")), ..found() };
    assert_eq!(refused(given, &half).reason(), "CertificateNotFound");
    let crossed = refused("  capacityTier: Large\n  resources: {limits: {cpu: 100m}}\n", &found());
    assert!(
        crossed.to_string().starts_with("resources.requests.cpu 500m is above its limit 100m"),
        "{crossed}"
    );
    assert_eq!(refused("  limits: {image: {max: 1m}}\n", &found()).reason(), "InvalidPolicy");
}

#[test]
fn a_policy_rolls_no_pod_and_a_setting_does() {
    let pods = |spec: &str| {
        let built = build(&valid(spec, &found()).unwrap());
        built.children.last().unwrap().object.data["spec"]["template"].clone()
    };
    assert_eq!(pods(""), pods("  limits: {image: {max: 1Gi}}\n"));
    assert_ne!(pods(""), pods("  tagIndex: {onUnknown: Deny}\n"));
}

#[test]
fn a_tier_fills_what_is_not_written() {
    let of = |spec: &str| {
        let valid = valid(spec, &found()).unwrap();
        let limit = valid.resources.limits.unwrap()["memory"].0.clone();
        (valid.replicas, limit)
    };
    assert_eq!(of(""), (1, "1Gi".to_owned()));
    assert_eq!(of("  capacityTier: Large\n"), (3, "4Gi".to_owned()));
    assert_eq!(
        of("  capacityTier: Large\n  replicas: 0\n  resources: {limits: {memory: 8Gi}}\n"),
        (0, "8Gi".to_owned())
    );
}
