//! What a Cache says, as the agent's settings for one upstream. Pure; must not know Secrets, and must not repeat a
//! proxy's address, which may hold a password.

use larder_wire::name::Registry;
use larder_wire::settings::{self, UpstreamSettings, UpstreamUrl};
use larder_wire::units::{parse_duration, parse_size};

use crate::crd::{Access, CacheSpec, Capability};

/// A field that the agents could not use. The definition's own rules let none through; an older definition may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub(crate) struct Wrong {
    pub(crate) field: &'static str,
    pub(crate) why: String,
}

impl Wrong {
    /// For `map_err`: names the field.
    pub(crate) fn at<E: ToString>(field: &'static str) -> impl Fn(E) -> Self {
        move |why| Self { field, why: why.to_string() }
    }
}

/// Docker Hub's own hosts, by each of which people write `docker.io`.
const DOCKER_HUB: [&str; 3] = ["docker.io", "registry-1.docker.io", "index.docker.io"];

/// What containerd calls the registry: as written, else the URL's host.
pub(crate) fn registry(spec: &CacheSpec) -> Result<Registry, Wrong> {
    if let Some(written) = &spec.upstream {
        return written.parse().map_err(Wrong::at("spec.upstream"));
    }
    let url: UpstreamUrl = url(spec)?;
    let name = match url.port.filter(|port| *port != if url.tls { 443 } else { 80 }) {
        _ if DOCKER_HUB.contains(&url.host.as_str()) => "docker.io".to_owned(),
        Some(port) => format!("{}:{port}", url.host),
        None => url.host,
    };
    name.parse().map_err(Wrong::at("spec.upstreamRegistryURL"))
}

/// The settings but for the files of a credential and of authorities.
pub(crate) fn settings(spec: &CacheSpec) -> Result<UpstreamSettings, Wrong> {
    let mut upstream = UpstreamSettings::new(registry(spec)?);
    upstream.url = url(spec)?;
    // docker.io answers with a web page.
    if upstream.url.host == DOCKER_HUB[0] {
        DOCKER_HUB[1].clone_into(&mut upstream.url.host);
    }
    upstream.access = match spec.access() {
        Access::Public => settings::Access::Public,
        Access::Shared => settings::Access::Shared,
    };
    if upstream.access == settings::Access::Shared {
        upstream.capabilities = vec![settings::Capability::Pull];
    }
    if let Some(written) = &spec.capabilities {
        upstream.capabilities = written.iter().map(capability).collect();
    }
    let duration = |field, written: &Option<String>| {
        written.as_deref().map(|text| parse_duration(text).map_err(Wrong::at(field))).transpose()
    };
    upstream.ttl = duration("spec.cacheTTL", &spec.cache_ttl)?;
    upstream.tag_ttl = duration("spec.tagTTL", &spec.tag_ttl)?;
    upstream.max_stale = duration("spec.maxStale", &spec.max_stale)?;
    let size = spec.max_cache_size.as_deref().map(parse_size).transpose();
    upstream.max_size = size.map_err(Wrong::at("spec.maxCacheSize"))?;
    if let Some(most) = spec.max_concurrent {
        upstream.max_concurrent = usize::try_from(most).map_err(Wrong::at("spec.maxConcurrent"))?;
    }
    upstream.proxy = proxy(spec, upstream.url.tls)?;
    upstream.token_hosts = token_hosts(spec)?;
    let ranges = spec.allow_cidrs.iter().flatten().map(|range| range.parse()).collect::<Result<_, _>>();
    upstream.allow_cidrs = ranges.map_err(Wrong::at("spec.allowCIDRs"))?;
    upstream.override_existing = spec.override_existing.unwrap_or_default();
    upstream.default = spec.default.unwrap_or_default();
    Ok(upstream)
}

fn url(spec: &CacheSpec) -> Result<UpstreamUrl, Wrong> {
    spec.upstream_registry_url.parse().map_err(Wrong::at("spec.upstreamRegistryURL"))
}

fn capability(written: &Capability) -> settings::Capability {
    match written {
        Capability::Pull => settings::Capability::Pull,
        Capability::Resolve => settings::Capability::Resolve,
    }
}

/// The proxy for the upstream's scheme; an empty text is none.
fn proxy(spec: &CacheSpec, tls: bool) -> Result<Option<settings::Proxy>, Wrong> {
    let Some(proxy) = &spec.proxy else { return Ok(None) };
    let (field, written) = match tls {
        true => ("spec.proxy.httpsProxy", &proxy.https_proxy),
        false => ("spec.proxy.httpProxy", &proxy.http_proxy),
    };
    let written = written.as_deref().filter(|text| !text.is_empty());
    if written.is_some_and(|text| text.contains('@')) {
        let why = "expected no user and password, which would stand in a ConfigMap".to_owned();
        return Err(Wrong { field, why });
    }
    written.map(|text| text.parse().map_err(Wrong::at(field))).transpose()
}

fn token_hosts(spec: &CacheSpec) -> Result<Vec<String>, Wrong> {
    let hosts = spec.token_hosts.clone().unwrap_or_default();
    let is_host = |host: &String| host.parse::<Registry>().is_ok_and(|name| name.host() == host);
    match hosts.iter().all(is_host) {
        true => Ok(hosts),
        false => Err(Wrong {
            field: "spec.tokenHosts",
            why: "expected hosts in lower case without port, like auth.example".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
