//! The settings that agent, installer and controller share: one type, with the contract's defaults.
//! [`parse`] reads it from TOML and tells every mistake with its line; [`render`] writes it back.
//! Must not touch the environment or a file: paths and names come in as text.

mod address;
mod parse;
mod reader;
mod render;
mod upstream;
mod words;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::name::Registry;
use crate::units::Size;

pub use address::AddressError;
pub use parse::{Mistake, Parsed, Spoils, parse};
pub use render::render;

/// Everything an administrator can set for a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Set by the controller, reported back.
    pub generation: u64,
    pub data_dir: PathBuf,
    /// Instance key, installer state, the agent's socket.
    pub run_dir: PathBuf,
    /// PEM certificates trusted besides the system's, for every upstream.
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<Proxy>,
    pub listen: Listen,
    pub cache: CacheSettings,
    pub upstreams: Vec<UpstreamSettings>,
    pub installer: InstallerSettings,
    pub report: ReportSettings,
    pub log: LogSettings,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// Loopback only.
    pub mirror: SocketAddr,
    pub admin: SocketAddr,
    /// `/metrics` alone, for a scraper off the node.
    pub metrics: Option<SocketAddr>,
    pub max_connections: usize,
    /// Bytes a second over 60 s; slower readers are cut.
    pub min_client_rate: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CacheSettings {
    /// Since last use; zero: never by age.
    pub ttl: Duration,
    /// `Size::Bytes(0)`: no limit.
    pub max_size: Size,
    pub min_free: Size,
    pub tag_ttl: Duration,
    /// Zero: never stale.
    pub max_stale: Duration,
}

/// One registry and where to fetch from it. What is `None` follows [`CacheSettings`] or the settings' root.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamSettings {
    /// What containerd calls it, and its `ns`.
    pub registry: Registry,
    pub url: UpstreamUrl,
    pub access: Access,
    pub capabilities: Vec<Capability>,
    pub max_concurrent: usize,
    pub head_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub username_file: Option<PathBuf>,
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<Proxy>,
    /// Hosts besides the upstream's own domain that may be sent its credential.
    pub token_hosts: Vec<String>,
    /// Address ranges that redirects and token realms may stand in besides public ones.
    pub allow_cidrs: Vec<IpNet>,
    pub ttl: Option<Duration>,
    pub max_size: Option<Size>,
    pub tag_ttl: Option<Duration>,
    pub max_stale: Option<Duration>,
    /// Add our entry even to a hosts.toml that sends this registry elsewhere.
    pub override_existing: bool,
    /// The upstream of clients that send no `ns`.
    pub default: bool,
}

/// Who may read what this upstream's cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only what an anonymous token can read is fetched and kept.
    Public,
    /// Everything the node's credential can read may be read by everyone on the node.
    Shared,
}

/// What containerd may ask the mirror for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    Pull,
    Resolve,
}

/// An upstream's address: `https://host[:port][/path]`, or `http://` where configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamUrl {
    pub tls: bool,
    /// Lower case; an IPv6 literal keeps its brackets.
    pub host: String,
    pub port: Option<u16>,
    /// With containerd's `override_path` meaning: empty, or starting and not ending with a slash.
    pub path: String,
}

/// An HTTP proxy: `http://[user:password@]host[:port]`. Its text form hides the password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// `user:password`, percent-decoded
    pub userinfo: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InstallerSettings {
    /// Run inside larder-agent; `larder-installer run` ignores it.
    pub enabled: bool,
    pub mode: InstallerMode,
    pub distribution: Distribution,
    pub certs_dir: PathBuf,
    pub containerd_config: PathBuf,
    pub keep_on_shutdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallerMode {
    Manage,
    /// Write nothing; probe and tell.
    Observe,
    /// Take every entry out and keep it out.
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    Kubeadm,
    Eks,
    K3s,
    Rke2,
    Microk8s,
    Custom,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReportSettings {
    /// `http://host:port`; absent: no reports.
    pub controller: Option<String>,
    pub token_file: PathBuf,
    pub interval: Duration,
    /// Empty: `NODE_NAME`, else the host's name.
    pub node: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level or a filter as `tracing-subscriber` reads it.
    pub level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// The registries served when a file names none.
pub const USUAL_REGISTRIES: [&str; 7] =
    ["docker.io", "registry.k8s.io", "ghcr.io", "quay.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws"];

/// The `head_timeout` and `first_byte_timeout` that no setting may exceed.
pub const LONGEST_HEAD_WAIT: Duration = Duration::from_secs(20);

const HOUR: Duration = Duration::from_secs(3600);

impl Settings {
    /// What an agent started without `--config` runs with: the seven usual registries, everything below
    /// `./larder-data`.
    #[must_use]
    pub fn without_file() -> Self {
        Self { data_dir: "./larder-data".into(), run_dir: "./larder-data/run".into(), ..Self::default() }
    }
}

impl Default for Settings {
    /// An empty settings file.
    fn default() -> Self {
        Self {
            generation: 0,
            data_dir: "/var/lib/larder".into(),
            run_dir: "/run/larder".into(),
            ca_file: None,
            proxy: None,
            listen: Listen::default(),
            cache: CacheSettings::default(),
            upstreams: USUAL_REGISTRIES
                .iter()
                .map(|name| {
                    UpstreamSettings::new(name.parse().expect("the usual registries are well formed"))
                })
                .collect(),
            installer: InstallerSettings::default(),
            report: ReportSettings::default(),
            log: LogSettings::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            mirror: SocketAddr::from(([127, 0, 0, 1], 19500)),
            admin: SocketAddr::from(([127, 0, 0, 1], 19501)),
            metrics: None,
            max_connections: 512,
            min_client_rate: 4096,
        }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            ttl: 168 * HOUR,
            max_size: Size::Percent(20),
            min_free: Size::Percent(25),
            tag_ttl: Duration::from_secs(60),
            max_stale: 24 * HOUR,
        }
    }
}

impl UpstreamSettings {
    /// The defaults for a registry.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            url: UpstreamUrl::of(&registry),
            registry,
            access: Access::Public,
            capabilities: vec![Capability::Pull, Capability::Resolve],
            max_concurrent: 32,
            head_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(10),
            username_file: None,
            password_file: None,
            ca_file: None,
            proxy: None,
            token_hosts: Vec::new(),
            allow_cidrs: Vec::new(),
            ttl: None,
            max_size: None,
            tag_ttl: None,
            max_stale: None,
            override_existing: false,
            default: false,
        }
    }
}

impl UpstreamUrl {
    /// `https://<registry>`, and Docker Hub's API host for `docker.io`.
    #[must_use]
    pub fn of(registry: &Registry) -> Self {
        let host = if registry.as_str() == "docker.io" { "registry-1.docker.io" } else { registry.host() };
        Self { tls: true, host: host.to_owned(), port: registry.port(), path: String::new() }
    }

    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The port that is connected to.
    #[must_use]
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = if self.userinfo.is_some() { "***@" } else { "" };
        write!(f, "http://{hidden}{}:{}", self.host, self.port)
    }
}

impl Default for InstallerSettings {
    fn default() -> Self {
        let (certs_dir, containerd_config) = Distribution::Custom.paths();
        Self {
            enabled: false,
            mode: InstallerMode::Manage,
            distribution: Distribution::Custom,
            certs_dir: certs_dir.into(),
            containerd_config: containerd_config.into(),
            keep_on_shutdown: false,
        }
    }
}

impl Distribution {
    /// Where this distribution keeps containerd's registry directory and its config file.
    #[must_use]
    pub const fn paths(self) -> (&'static str, &'static str) {
        match self {
            Self::Kubeadm | Self::Eks | Self::Custom => {
                ("/etc/containerd/certs.d", "/etc/containerd/config.toml")
            }
            Self::K3s => (
                "/var/lib/rancher/k3s/agent/etc/containerd/certs.d",
                "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
            ),
            Self::Rke2 => (
                "/var/lib/rancher/rke2/agent/etc/containerd/certs.d",
                "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
            ),
            Self::Microk8s => {
                ("/var/snap/microk8s/current/args/certs.d", "/var/snap/microk8s/current/args/containerd.toml")
            }
        }
    }
}

impl Default for ReportSettings {
    fn default() -> Self {
        Self {
            controller: None,
            token_file: "/var/run/secrets/larder/token".into(),
            interval: Duration::from_secs(30),
            node: String::new(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: "info".to_owned() }
    }
}
