//! Caches, accepted and refused.

use super::{Case, Update, changes, object, table};

const URL: Option<&str> = Some("spec.upstreamRegistryURL must be https://HOST[:PORT][/PATH]");

pub(super) fn cases() -> Vec<Case> {
    let mut cases = table("Cache", UPSTREAMS, |fields| object("Cache", "my-cache", fields));
    let with_url = |fields: &str| format!("upstreamRegistryURL: \"https://registry.example\", {fields}");
    cases.extend(table("Cache", SETTINGS, |fields| object("Cache", "my-cache", &with_url(fields))));
    cases.extend(table("Cache", REACH, |fields| object("Cache", "my-cache", &with_url(fields))));
    let long = |name: String, refused| Case {
        name: format!("Cache with a name of {} characters", name.len()),
        object: object("Cache", &name, &with_url("")),
        refused,
    };
    cases.push(long("n".repeat(63), None));
    cases.push(long("n".repeat(64), Some("metadata.name of a Cache takes at most 63 characters")));
    cases.push(Case {
        name: "Cache with a million characters in a field".to_owned(),
        object: object("Cache", "my-cache", &with_url(&format!("upstream: \"{}\"", "u".repeat(1_000_000)))),
        refused: Some("Too long"),
    });
    cases
}

pub(super) fn updates() -> Vec<Update> {
    let with_url = |fields: &str| {
        object("Cache", "my-cache", &format!("upstreamRegistryURL: \"https://registry.example\", {fields}"))
    };
    changes("Cache", CHANGES, with_url)
}

const UPSTREAMS: super::Table<'_> = &[
    ("upstreamRegistryURL: \"https://registry-1.docker.io\"", None),
    ("upstreamRegistryURL: \"https://registry-1.docker.io/\"", None),
    ("upstreamRegistryURL: \"http://10.0.0.1:5000\"", None),
    ("upstreamRegistryURL: \"https://[fd00::1]:5000/v2/hub\"", None),
    ("upstreamRegistryURL: \"https://harbor.example/v2/hub-proxy/\"", None),
    ("", Some("Required value")),
    ("upstreamRegistryURL: \"\"", URL),
    ("upstreamRegistryURL: docker.io", URL),
    ("upstreamRegistryURL: \"ftp://registry.example\"", URL),
    ("upstreamRegistryURL: \"https://me:pw@registry.example\"", URL),
    ("upstreamRegistryURL: \"https://registry.example?a=b\"", URL),
    ("upstreamRegistryURL: \"https://registry.example/#a\"", URL),
    ("upstreamRegistryURL: \"https://registry.example/a/../b\"", URL),
    ("upstreamRegistryURL: \"https://registry.example/a//b\"", URL),
    ("upstreamRegistryURL: \"https://registry.example:0\"", URL),
    ("upstreamRegistryURL: \"https://registry example\"", URL),
];

const TTL: Option<&str> = Some("spec.cacheTTL must be a duration with units");
const SIZE: Option<&str> = Some("spec.maxCacheSize must be a size");

const SETTINGS: super::Table<'_> = &[
    ("cacheTTL: 0s", None),
    ("cacheTTL: 168h", None),
    ("cacheTTL: 1h30m, tagTTL: 1.5s, maxStale: 0s", None),
    ("cacheTTL: 24", Some("Invalid value")),
    ("cacheTTL: \"24\"", TTL),
    ("cacheTTL: 7d", TTL),
    ("cacheTTL: -1h", TTL),
    ("cacheTTL: \"\"", TTL),
    ("tagTTL: soon", Some("spec.tagTTL must be a duration with units")),
    ("maxStale: 1 h", Some("spec.maxStale must be a duration with units")),
    ("maxCacheSize: 100Gi", None),
    ("maxCacheSize: 512MiB", None),
    ("maxCacheSize: 20%", None),
    ("maxCacheSize: \"0\"", None),
    ("maxCacheSize: 100GB", SIZE),
    ("maxCacheSize: 101%", SIZE),
    ("maxCacheSize: -1Gi", SIZE),
    ("maxCacheSize: 1.5Gi", SIZE),
    ("access: Public", None),
    ("access: Shared, secretReferenceName: quay-credentials", None),
    ("access: Shared", Some("spec.access Shared is about a credential")),
    ("access: shared, secretReferenceName: quay-credentials", Some("Unsupported value")),
    ("secretReferenceName: quay-credentials-v1", None),
    ("secretReferenceName: Quay", Some("spec.secretReferenceName must be the name of an object")),
    ("upstream: docker.io", None),
    ("upstream: \"registry.example:5000\"", None),
    ("upstream: \"https://docker.io\"", Some("spec.upstream must be HOST or HOST:PORT")),
    ("upstream: Docker.io", Some("spec.upstream must be HOST or HOST:PORT")),
    ("upstream: docker.io/library", Some("spec.upstream must be HOST or HOST:PORT")),
];

const REACH: super::Table<'_> = &[
    ("volume: {type: emptyDir, size: 50Gi, accessMode: ReadWriteOnce, storageClassName: premium}", None),
    ("volume: {accessMode: ReadWriteSometimes}", Some("spec.volume.accessMode must be ReadWriteOnce")),
    ("volume: {size: large}", Some("spec.volume.size must be a quantity above zero")),
    ("volume: {size: 0Gi}", Some("spec.volume.size must be a quantity above zero")),
    (
        "volume: {storageClassName: Premium}",
        Some("spec.volume.storageClassName must be the name of an object"),
    ),
    ("volume: {type: \"empty dir\"}", Some("spec.volume.type must be one word")),
    ("proxy: {httpProxy: \"\", httpsProxy: \"http://proxy.example:3128\"}", None),
    (
        "proxy: {httpsProxy: \"http://me:pw@proxy.example:3128\"}",
        Some("spec.proxy.httpsProxy takes no user and password"),
    ),
    (
        "proxy: {httpProxy: \"http://me@proxy.example\"}",
        Some("spec.proxy.httpProxy takes no user and password"),
    ),
    ("proxy: {httpsProxy: \"https://proxy.example\"}", Some("spec.proxy.httpsProxy must be http://")),
    ("proxy: {httpProxy: \"http://proxy.example/path\"}", Some("spec.proxy.httpProxy must be http://")),
    ("tls: {caConfigMapRef: {name: corp-ca}}", None),
    ("tls: {caConfigMapRef: {}}", Some("Required value")),
    ("tls: {caConfigMapRef: {name: \"corp ca\"}}", Some("name must be the name of an object")),
    ("capabilities: [pull]", None),
    ("capabilities: [resolve, pull]", None),
    ("capabilities: []", Some("spec.capabilities takes pull, resolve or both")),
    ("capabilities: [pull, pull]", Some("spec.capabilities takes pull, resolve or both")),
    ("capabilities: [push]", Some("Unsupported value")),
    ("tokenHosts: [auth.example.com]", None),
    ("tokenHosts: [\"https://auth.example.com\"]", Some("spec.tokenHosts takes hosts")),
    ("allowCIDRs: [10.0.0.0/8, \"fd00::/8\"]", None),
    ("allowCIDRs: [10.0.0.0/33]", Some("spec.allowCIDRs takes address ranges")),
    ("allowCIDRs: [example.com]", Some("spec.allowCIDRs takes address ranges")),
    ("overrideExisting: true, default: true", None),
    ("maxConcurrent: 1", None),
    ("maxConcurrent: 0", Some("spec.maxConcurrent must be a number from 1 to 65536")),
];

const CHANGES: &[(&str, &str, Option<&str>)] = &[
    ("cacheTTL: 0s", "cacheTTL: 24h", None),
    ("upstream: docker.io", "upstream: docker.io, cacheTTL: 1h", None),
    ("upstream: docker.io", "upstream: quay.io", Some("spec.upstream cannot change")),
    ("", "upstream: quay.io", Some("spec.upstream cannot be added or removed")),
    ("upstream: docker.io", "", Some("spec.upstream cannot be added or removed")),
];
