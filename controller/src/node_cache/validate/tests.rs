//! From a NodeCache and what it depends on to what is decided; and the scenes that the build and status tests share.

use std::sync::Arc;

use clap::Parser;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use larder_wire::settings::{Access, InstallerMode};
use serde::de::DeserializeOwned;

use super::*;
use crate::crd::Cache;
use crate::node_cache::dereference::Live;
use crate::reports::Summary;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    config: Config,
}

pub(in crate::node_cache) fn config() -> Config {
    let line =
        ["run", "--agent-image=registry.example/larder@sha256:0123", "--priority-class=system-node-critical"];
    Line::parse_from(line).config
}

pub(in crate::node_cache) fn yaml<K: DeserializeOwned>(text: &str) -> K {
    serde_saphyr::from_str(text).unwrap()
}

pub(in crate::node_cache) fn node_cache(spec: &str) -> NodeCache {
    yaml(&format!(
        "{{apiVersion: registry-operator.dev/v1alpha1, kind: NodeCache, metadata: {{name: default, uid: u-1, \
         generation: 3, creationTimestamp: '2026-11-20T09:00:00Z'}}, spec: {spec}}}"
    ))
}

pub(in crate::node_cache) fn cache(name: &str, spec: &str) -> Cache {
    yaml(&format!(
        "{{apiVersion: registry-operator.dev/v1alpha1, kind: Cache, metadata: {{name: {name}, uid: {name}, \
         creationTimestamp: '2026-11-20T09:00:00Z'}}, spec: {spec}}}"
    ))
}

/// Two Secrets, one ConfigMap of authorities, no children yet.
pub(in crate::node_cache) fn known(caches: Vec<Cache>) -> Dereferenced {
    let secret = |name: &str, user: &str| -> Secret {
        let data = [("username", user), ("password", "s3cret")];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        secret
    };
    let pem = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    let corp =
        ConfigMap { data: Some([("ca.crt".to_owned(), pem.to_owned())].into()), ..ConfigMap::default() };
    Dereferenced {
        caches,
        node_caches: Vec::new(),
        secrets: [("quay".to_owned(), secret("quay", "robot")), ("bad".to_owned(), secret("bad", "a b"))]
            .into(),
        authorities: [("corp".to_owned(), corp)].into(),
        controller: Some("http://10.96.0.7:8080".to_owned()),
        live: Live::default(),
        nodes: vec![Arc::new(yaml("{apiVersion: v1, kind: Node, metadata: {name: n1}}"))],
        summary: Summary::default(),
    }
}

fn decide(spec: &str, known: &Dereferenced) -> Result<Effective, Refusal> {
    validate(&node_cache(spec), known, &config())
}

const HUB: &str = "{upstreamRegistryURL: 'https://registry-1.docker.io'}";

#[test]
fn of_two_caches_for_one_registry_the_elder_is_served() {
    let mut younger = cache("hub-2", "{upstreamRegistryURL: 'https://mirror.example', upstream: docker.io}");
    younger.metadata.creation_timestamp = Some(yaml("2026-11-21T09:00:00Z"));
    let effective = decide("{}", &known(vec![younger, cache("hub", HUB)])).unwrap();
    let urls: Vec<_> = effective.settings.upstreams.iter().map(|upstream| upstream.url.to_string()).collect();
    assert_eq!(urls, ["https://registry-1.docker.io"]);
}

#[test]
fn without_its_secret_a_public_upstream_stays_and_a_shared_one_goes() {
    let public = cache("a", "{upstreamRegistryURL: 'https://a.example', secretReferenceName: bad}");
    let shared =
        cache("b", "{upstreamRegistryURL: 'https://b.example', secretReferenceName: bad, access: Shared}");
    let good =
        cache("q", "{upstreamRegistryURL: 'https://quay.io', secretReferenceName: quay, access: Shared}");
    let effective = decide("{}", &known(vec![public, shared, good])).unwrap();
    let upstreams = &effective.settings.upstreams;
    let names: Vec<_> = upstreams.iter().map(|upstream| upstream.registry.as_str()).collect();
    assert_eq!(names, ["a.example", "quay.io"]);
    assert_eq!((upstreams[0].access, &upstreams[0].username_file), (Access::Public, &None));
    assert!(upstreams[1].password_file.as_ref().unwrap().ends_with("q.password"));
    assert_eq!(effective.credentials.keys().collect::<Vec<_>>(), ["q.password", "q.username"]);
}

#[test]
fn only_the_eldest_default_is_one() {
    let default = |name: &str, host: &str| {
        cache(name, &format!("{{upstreamRegistryURL: 'https://{host}', default: true}}"))
    };
    let effective = decide("{}", &known(vec![default("a", "z.example"), default("b", "a.example")])).unwrap();
    let defaults: Vec<_> = effective.settings.upstreams.iter().map(|upstream| upstream.default).collect();
    assert_eq!(defaults, [false, true]);
}

#[test]
fn a_service_that_is_gone_for_a_moment_does_not_silence_the_nodes() {
    let mut known = known(Vec::new());
    let before = decide("{}", &known).unwrap();
    let data = [("larder.toml".to_owned(), render(&before.settings))].into();
    known.live.config_map = Some(ConfigMap { data: Some(data), ..ConfigMap::default() });
    known.controller = None;
    let after = decide("{}", &known).unwrap();
    assert_eq!(after.settings, before.settings);
}

#[test]
fn what_does_not_fit_into_one_object_is_refused_before_the_api_server_does() {
    let hosts = vec![format!("{}.example", "h".repeat(60)); 400].join(", ");
    let spec = |n| format!("{{upstreamRegistryURL: 'https://r{n}.example', tokenHosts: [{hosts}]}}");
    let many = (0..40).map(|n| cache(&format!("c{n}"), &spec(n)));
    let refusal = decide("{}", &known(many.collect())).err().unwrap();
    assert_eq!(refusal.reason(), "InvalidConfiguration");
    assert!(refusal.to_string().contains("40 Caches"), "{refusal}");
}

#[test]
fn a_conflict_names_the_elder_and_the_nodes() {
    let mut known = known(Vec::new());
    let mut elder = node_cache("{}");
    (elder.metadata.name, elder.metadata.uid) = (Some("all".to_owned()), Some("u-0".to_owned()));
    known.node_caches.push(elder);
    let refusal = decide("{}", &known).unwrap_err();
    assert_eq!(refusal.reason(), "Conflict");
    assert!(
        refusal.to_string().starts_with("NodeCache all selects 1 of these nodes too, n1 among them"),
        "{refusal}"
    );
}

#[test]
fn a_selector_without_sense_is_told() {
    let spec = "{cacheSelector: {matchExpressions: [{key: pool, operator: Like, values: [a]}]}}";
    assert_eq!(decide(spec, &known(Vec::new())).unwrap_err().reason(), "InvalidConfiguration");
}

#[test]
fn the_kill_switch_changes_the_settings_alone() {
    let on = decide("{}", &known(Vec::new())).unwrap();
    let off = decide("{managementState: Removed}", &known(Vec::new())).unwrap();
    assert_eq!(off.settings.installer.mode, InstallerMode::Absent);
    assert_eq!(format!("{:?}", on.pod), format!("{:?}", off.pod));
}

#[test]
fn nothing_secret_is_shown() {
    let good = cache("q", "{upstreamRegistryURL: 'https://quay.io', secretReferenceName: quay}");
    let effective = decide("{}", &known(vec![good])).unwrap();
    assert!(!render(&effective.settings).contains("s3cret"));
}
