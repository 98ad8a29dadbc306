//! Where the demonstration's image comes from: a registry of our own, or a public one. Must not pull.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use larder_tests::registry::DockerRegistry;
use larder_tests::registry::layers::LayeredImage;
use larder_wire::name::Registry;
use larder_wire::settings::UpstreamUrl;
use tokio::net::TcpStream;
use tokio::time::timeout;

const MIB: usize = 1 << 20;
/// How long a public registry may take to accept a connection.
const REACH: Duration = Duration::from_secs(5);

/// An image that can be pulled.
pub(crate) enum Source {
    Own { registry: Box<DockerRegistry>, image: String, told: String },
    Public { registry: String, url: String, image: String },
}

impl Source {
    /// A registry of our own with an image of several layers.
    pub(crate) async fn own() -> Result<Self> {
        ensure!(DockerRegistry::is_installed(), "the demo needs Debian's package `docker-registry`");
        let image = LayeredImage::new(1, &[40 * MIB, 20 * MIB, 10 * MIB, MIB])?;
        let registry = DockerRegistry::start().await?;
        let name = registry.push("demo/app", "v1", &image).await?;
        let told = format!(
            "docker-registry on {} holds {name}: {} layers, {:.1} MiB.",
            registry.host(),
            image.layers.len(),
            image.size() as f64 / MIB as f64
        );
        Ok(Self::Own { registry: Box::new(registry), image: name, told })
    }

    /// A public image by its full name, `docker.io/library/alpine:3.20`.
    pub(crate) async fn public(image: &str) -> Result<Self> {
        let words = "IMAGE is a full name: REGISTRY/REPOSITORY:TAG, as docker.io/library/alpine:3.20";
        let (registry, _) = image.split_once('/').context(words)?;
        let name: Registry = registry.parse().context(words)?;
        let url = UpstreamUrl::of(&name);
        let reached = timeout(REACH, TcpStream::connect((url.host.as_str(), url.port_or_default()))).await;
        reached.map_err(anyhow::Error::from).and_then(|connected| Ok(connected?)).with_context(|| {
            format!("{url} cannot be reached from here: IMAGE needs the internet, `make demo` alone does not")
        })?;
        Ok(Self::Public { registry: registry.to_owned(), url: url.to_string(), image: image.to_owned() })
    }

    pub(crate) fn told(&self) -> String {
        match self {
            Self::Own { told, .. } => told.clone(),
            Self::Public { url, image, .. } => format!("{image} is at {url}."),
        }
    }

    /// What image names start with.
    pub(crate) fn registry(&self) -> &str {
        match self {
            Self::Own { registry, .. } => registry.host(),
            Self::Public { registry, .. } => registry,
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Own { registry, .. } => registry.url(),
            Self::Public { url, .. } => url.clone(),
        }
    }

    pub(crate) fn image(&self) -> &str {
        match self {
            Self::Own { image, .. } | Self::Public { image, .. } => image,
        }
    }

    /// Requests and bytes of bodies that the registry has counted since the last call; `None` for one that is not ours.
    pub(crate) async fn asked(&mut self) -> Result<Option<(u64, u64)>> {
        let Self::Own { registry, .. } = self else { return Ok(None) };
        let asked = registry.asked().await?;
        let bytes = asked.iter().filter(|access| access.method == "GET").map(|access| access.bytes).sum();
        Ok(Some((asked.len() as u64, bytes)))
    }

    /// Whether it could be stopped.
    pub(crate) async fn stop(&mut self) -> Result<bool> {
        match self {
            Self::Own { registry, .. } => registry.stop().await.map(|()| true),
            Self::Public { .. } => Ok(false),
        }
    }

    pub(crate) async fn resume(&mut self) -> Result<()> {
        match self {
            Self::Own { registry, .. } => registry.resume().await,
            Self::Public { .. } => Ok(()),
        }
    }
}
