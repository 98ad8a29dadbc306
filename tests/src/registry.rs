//! Debian's docker-registry as a process of its own on loopback, which we push to, count at, stop and damage. Must not
//! know Larder: an agent is to it a client like any other.

mod access;
pub mod layers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::containerd::daemon::Daemon;
use crate::wait::until_time;
use layers::{INDEX, LayeredImage, MANIFEST, Piece};

pub use access::{Access, Kind};

const PROGRAM: &str = "/usr/bin/docker-registry";
/// Our own pushes and marks, so that they are not counted.
const OURSELVES: &str = "larder-tests";
const START: Duration = Duration::from_secs(20);

/// A registry with an empty storage of its own; gone when dropped.
pub struct DockerRegistry {
    process: Option<Daemon>,
    /// `127.0.0.1:PORT`, the same after a restart: image names hold it.
    host: String,
    /// How many lines of the access log were told already.
    told: usize,
    marks: usize,
    client: Client<HttpConnector, Full<Bytes>>,
    dir: TempDir,
}

impl DockerRegistry {
    /// Whether Debian's package is there.
    #[must_use]
    pub fn is_installed() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Starts one on a port that the system chooses.
    ///
    /// # Errors
    /// It does not listen within 20 s.
    pub async fn start() -> Result<Self> {
        let dir = TempDir::with_prefix("larder-registry-").context("a directory for the registry")?;
        let mut registry = Self {
            process: None,
            host: "127.0.0.1:0".to_owned(),
            told: 0,
            marks: 0,
            client: Client::builder(TokioExecutor::new()).build_http(),
            dir,
        };
        registry.resume().await?;
        Ok(registry)
    }

    /// Starts it again where it was.
    ///
    /// # Errors
    /// It does not listen within 20 s.
    pub async fn resume(&mut self) -> Result<()> {
        let settings = self.dir.path().join("config.yml");
        let storage = self.dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: false}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  maintenance: {{uploadpurging: {{enabled: false}}}}\n\
             http: {{addr: {}, secret: tests, draintimeout: 1s}}\n",
            storage.display(),
            self.host
        );
        fs::write(&settings, text).context("the registry's configuration")?;
        let log = self.dir.path().join("registry.log");
        fs::write(&log, "").context("the registry's log")?;
        let mut process =
            Daemon::spawn(Command::new(PROGRAM).arg("serve").arg(&settings), &self.access_log(), &log)?;
        self.host = process.until("the registry listens", START, async |log| listening(log)).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends the process; its port refuses connections then.
    ///
    /// # Errors
    /// It does not end within 10 s; it is killed then.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.end(Signal::SIGTERM, Duration::from_secs(10)).await?;
        }
        Ok(())
    }

    /// `127.0.0.1:PORT`: what image names start with.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Uploads the image and returns its name, `127.0.0.1:PORT/REPOSITORY:TAG`.
    ///
    /// # Errors
    /// The registry refuses something.
    pub async fn push(&self, repository: &str, tag: &str, image: &LayeredImage) -> Result<String> {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob).await?;
        }
        self.push_manifest(repository, &image.manifest.digest, MANIFEST, &image.manifest).await?;
        self.push_manifest(repository, tag, INDEX, &image.index).await?;
        Ok(format!("{}/{repository}:{tag}", self.host))
    }

    /// Turns one byte in the middle of a stored blob over, as a bad disk would: it is served with the same length.
    ///
    /// # Errors
    /// The registry does not hold it.
    pub fn damage(&self, digest: &str) -> Result<()> {
        let path = self.blob_path(digest)?;
        let mut bytes = fs::read(&path).with_context(|| format!("{} to damage", path.display()))?;
        let middle = bytes.len() / 2;
        let byte = bytes.get_mut(middle).context("an empty blob cannot be damaged")?;
        *byte = !*byte;
        fs::write(&path, bytes).with_context(|| format!("{} damaged", path.display()))
    }

    /// What was asked of it since the last call, our own requests left out. Every request that was answered before the
    /// call is in it.
    ///
    /// # Errors
    /// The access log cannot be read, or the registry runs and does not write it.
    pub async fn asked(&mut self) -> Result<Vec<Access>> {
        if self.process.is_some() {
            self.mark().await?;
        }
        let text = fs::read_to_string(self.access_log()).context("the registry's access log")?;
        let fresh = text.lines().skip(self.told);
        let asked = fresh.filter_map(Access::parse).filter(|access| access.client != OURSELVES).collect();
        self.told = text.lines().count();
        Ok(asked)
    }

    /// Asks for something unmistakable and waits until the access log shows it.
    async fn mark(&mut self) -> Result<()> {
        self.marks += 1;
        let mark = format!("/v2/?mark={}", self.marks);
        self.send(Method::GET, &mark, Bytes::new(), None).await?;
        let log = self.access_log();
        let seen = format!("{mark} ");
        until_time("the access log is written", START, async || {
            fs::read_to_string(&log).ok().filter(|text| text.contains(&seen))
        })
        .await;
        Ok(())
    }

    async fn push_blob(&self, repository: &str, blob: &Piece) -> Result<()> {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let opened = self.send(Method::POST, &uploads, Bytes::new(), None).await?;
        let location = opened.headers().get(header::LOCATION).context("an upload without Location")?;
        let location = location.to_str().context("a Location that is no text")?;
        let path = location.strip_prefix(&self.url()).unwrap_or(location);
        let joint = if path.contains('?') { '&' } else { '?' };
        let target = format!("{path}{joint}digest={}", blob.digest);
        self.send(Method::PUT, &target, blob.bytes.clone().into(), Some("application/octet-stream")).await?;
        Ok(())
    }

    async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        it: &Piece,
    ) -> Result<()> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let created = self.send(Method::PUT, &path, it.bytes.clone().into(), Some(media_type)).await?;
        ensure!(created.status() == StatusCode::CREATED, "{path}: {}", created.status());
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        media_type: Option<&str>,
    ) -> Result<Response<Bytes>> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.url()))
            .header(header::USER_AGENT, OURSELVES);
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let request = request.body(Full::new(body)).context("a request")?;
        let reply = self.client.request(request).await.with_context(|| format!("{method} {path}"))?;
        let (head, body) = reply.into_parts();
        let body = body.collect().await.with_context(|| format!("{method} {path}"))?.to_bytes();
        if !head.status.is_success() {
            bail!("{method} {path}: {} {}", head.status, String::from_utf8_lossy(&body));
        }
        Ok(Response::from_parts(head, body))
    }

    /// Where docker-registry 2.8 keeps a blob.
    fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        let (algorithm, hex) = digest.split_once(':').context("a digest has a colon")?;
        let shard = hex.get(..2).context("a digest has hex digits")?;
        Ok(self
            .dir
            .path()
            .join("storage/docker/registry/v2/blobs")
            .join(algorithm)
            .join(shard)
            .join(hex)
            .join("data"))
    }

    fn access_log(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }
}

/// The address in the registry's log line `listening on 127.0.0.1:PORT`.
fn listening(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on ")?;
    let end = rest.find(|letter: char| !(letter.is_ascii_digit() || ".:".contains(letter)))?;
    Some(rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_pushed_is_there_is_counted_and_can_be_damaged() {
        if !DockerRegistry::is_installed() {
            eprintln!("did not run: no Debian package `docker-registry`");
            return;
        }
        let mut registry = DockerRegistry::start().await.unwrap();
        let image = LayeredImage::new(1, &[100_000]).unwrap();
        let name = registry.push("demo/app", "v1", &image).await.unwrap();
        assert_eq!(name, format!("{}/demo/app:v1", registry.host()));
        assert!(registry.asked().await.unwrap().is_empty(), "our own requests are not counted");

        let stored = registry.blob_path(&image.layers[0].digest).unwrap();
        assert_eq!(fs::read(&stored).unwrap(), image.layers[0].bytes);
        registry.damage(&image.layers[0].digest).unwrap();
        assert_ne!(fs::read(&stored).unwrap(), image.layers[0].bytes);

        let host = registry.host().to_owned();
        registry.stop().await.unwrap();
        assert!(tokio::net::TcpStream::connect(&host).await.is_err());
        registry.resume().await.unwrap();
        assert_eq!(registry.host(), host);
    }
}
