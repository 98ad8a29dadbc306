//! Cache -> settings of one upstream: names, defaults, and what is refused.

use std::time::Duration;

use larder_wire::settings::{Access, Capability};
use larder_wire::units::Size;

use super::*;

fn spec(yaml: &str) -> CacheSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn a_registry_is_called_as_containerd_calls_it() {
    for (url, name) in [
        ("https://registry-1.docker.io", "docker.io"),
        ("https://index.docker.io", "docker.io"),
        ("https://docker.io", "docker.io"),
        ("https://quay.io", "quay.io"),
        ("https://quay.io:443", "quay.io"),
        ("http://registry.example:80", "registry.example"),
        ("https://registry.example:5000", "registry.example:5000"),
        ("https://harbor.example/hub", "harbor.example"),
    ] {
        let spec = spec(&format!("upstreamRegistryURL: {url}"));
        assert_eq!(registry(&spec).unwrap().as_str(), name, "{url}");
    }
    let named = spec("{upstreamRegistryURL: \"https://harbor.example/v2/hub\", upstream: docker.io}");
    let settings = settings(&named).unwrap();
    assert_eq!(settings.registry.as_str(), "docker.io");
    assert_eq!(settings.url.to_string(), "https://harbor.example/v2/hub");
}

#[test]
fn docker_io_is_asked_where_its_api_is() {
    let settings = settings(&spec("upstreamRegistryURL: https://docker.io")).unwrap();
    assert_eq!(settings.url.to_string(), "https://registry-1.docker.io");
}

#[test]
fn everything_written_is_taken_over() {
    let spec = spec(
        "
upstreamRegistryURL: https://registry.example
access: Shared
cacheTTL: 24h
maxCacheSize: 100Gi
tagTTL: 0s
maxStale: 1h
proxy: {httpProxy: 'http://not.this', httpsProxy: 'http://proxy.example:3128'}
tokenHosts: [auth.example]
allowCIDRs: [10.0.0.0/8]
overrideExisting: true
maxConcurrent: 4
default: true
",
    );
    let settings = settings(&spec).unwrap();
    assert_eq!(settings.access, Access::Shared);
    assert_eq!(settings.capabilities, [Capability::Pull]);
    assert_eq!(settings.ttl, Some(Duration::from_secs(86_400)));
    assert_eq!(settings.max_size, Some(Size::Bytes(100 << 30)));
    assert_eq!((settings.tag_ttl, settings.max_concurrent), (Some(Duration::ZERO), 4));
    assert_eq!(settings.proxy.map(|proxy| proxy.host), Some("proxy.example".to_owned()));
    assert_eq!(settings.allow_cidrs.len(), 1);
    assert!(settings.override_existing && settings.default);
}

#[test]
fn what_an_agent_could_not_use_is_refused_with_its_field() {
    for (field, yaml) in [
        ("spec.upstreamRegistryURL", "upstreamRegistryURL: registry.example"),
        ("spec.upstream", "{upstreamRegistryURL: 'https://a.b', upstream: 'https://a.b'}"),
        ("spec.cacheTTL", "{upstreamRegistryURL: 'https://a.b', cacheTTL: 1d}"),
        ("spec.maxCacheSize", "{upstreamRegistryURL: 'https://a.b', maxCacheSize: lots}"),
        ("spec.maxConcurrent", "{upstreamRegistryURL: 'https://a.b', maxConcurrent: -1}"),
        ("spec.tokenHosts", "{upstreamRegistryURL: 'https://a.b', tokenHosts: ['https://c.d']}"),
        ("spec.allowCIDRs", "{upstreamRegistryURL: 'https://a.b', allowCIDRs: [ten]}"),
    ] {
        assert_eq!(settings(&spec(yaml)).unwrap_err().field, field);
    }
    for scheme in ["ftp", "http"] {
        let secret = format!(
            "{{upstreamRegistryURL: 'https://a.b', proxy: {{httpsProxy: '{scheme}://me:s3cret@p'}}}}"
        );
        let wrong = settings(&spec(&secret)).unwrap_err();
        assert_eq!(wrong.field, "spec.proxy.httpsProxy");
        assert!(!wrong.to_string().contains("s3cret"));
    }
}
