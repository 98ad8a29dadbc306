//! A node's worth of Larder beside a containerd: settings, data directory and certs.d below one temporary directory,
//! larder-agent and larder-installer as processes of their own. Must not know what a test does to them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use larder_wire::report::Report;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::daemon::Daemon;

/// Until a process of ours is ready.
const START: Duration = Duration::from_secs(20);

/// Gone when dropped, with everything in it.
pub struct Stand {
    dir: TempDir,
    registry: String,
}

/// A running larder-agent.
pub struct Agent {
    pub process: Daemon,
    mirror: SocketAddr,
    admin: SocketAddr,
}

/// The agent's counters that tell where bytes came from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub upstream_requests: u64,
    pub upstream_bytes: u64,
    pub cache_bytes: u64,
}

impl Stand {
    /// Settings for one registry that is fetched from `url`. `registry` is what image names start with.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn new(registry: &str, url: &str) -> Result<Self> {
        let dir = TempDir::with_prefix("larder-stand-").context("a directory for Larder")?;
        let stand = Self { dir, registry: registry.to_owned() };
        for part in [stand.certs(), stand.data(), stand.run()] {
            fs::create_dir(&part).with_context(|| part.display().to_string())?;
        }
        let cri = "plugins.\"io.containerd.grpc.v1.cri\".registry";
        fs::write(
            stand.containerd_config(),
            format!("version = 2\n[{cri}]\nconfig_path = \"{}\"\n", stand.certs().display()),
        )
        .context("the containerd configuration that the installer reads")?;
        stand.fetch_from(url)?;
        Ok(stand)
    }

    /// Writes the settings again, with another address of the upstream. For agents that start after this.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn fetch_from(&self, url: &str) -> Result<()> {
        let settings = format!(
            "data_dir = \"{}\"\nrun_dir = \"{}\"\n\
             [listen]\nmirror = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
             [cache]\nmin_free = \"1MiB\"\n\
             [[upstream]]\nregistry = \"{}\"\nurl = \"{url}\"\n\
             [installer]\ncerts_dir = \"{}\"\ncontainerd_config = \"{}\"\n\
             [report]\nnode = \"stand\"\n",
            self.data().display(),
            self.run().display(),
            self.registry,
            self.certs().display(),
            self.containerd_config().display(),
        );
        fs::write(self.settings(), settings).context("Larder's settings")
    }

    /// Starts the agent and waits until it listens.
    ///
    /// # Errors
    /// It ends, or does not listen within 20 s; its log is told.
    pub async fn agent(&self) -> Result<Agent> {
        let log = self.dir.path().join("agent.log");
        fs::write(&log, "").context("the agent's log")?;
        let mut command = Command::new(program("larder-agent")?);
        command.arg("--config").arg(self.settings()).current_dir(self.dir.path());
        let mut process = Daemon::spawn(&mut command, &log, &log)?;
        let (mirror, admin) = process
            .until("the agent listens", START, async |log| {
                Some((listener(log, "mirror")?, listener(log, "admin")?))
            })
            .await?;
        Ok(Agent { process, mirror, admin })
    }

    /// Starts `larder-installer run`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn installer(&self) -> Result<Daemon> {
        let log = self.dir.path().join("installer.log");
        let mut command = Command::new(program("larder-installer")?);
        Daemon::spawn(command.args(["run", "--config"]).arg(self.settings()), &log, &log)
    }

    /// Runs `larder-installer status` or `uninstall` to its end; how it ended and what it printed.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn installer_says(&self, command: &str) -> Result<(ExitStatus, String)> {
        let output = Command::new(program("larder-installer")?)
            .args([command, "--config"])
            .arg(self.settings())
            .output()
            .with_context(|| format!("larder-installer {command}"))?;
        Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Starts the installer and waits until containerd is pointed at the agent.
    ///
    /// # Errors
    /// It ends, or the entry does not come within 20 s.
    pub async fn installed(&self, agent: &Agent) -> Result<Daemon> {
        let mut installer = self.installer()?;
        let what = "the entry is in certs.d";
        installer.until(what, START, async |_| self.points_at(agent).then_some(())).await?;
        Ok(installer)
    }

    /// Whether the registry's hosts.toml names the agent.
    #[must_use]
    pub fn points_at(&self, agent: &Agent) -> bool {
        fs::read_to_string(self.hosts_toml())
            .is_ok_and(|text| text.contains(&format!("http://{}", agent.mirror)))
    }

    /// The registry's file in certs.d, where containerd looks for it.
    #[must_use]
    pub fn hosts_toml(&self) -> PathBuf {
        let place = match self.registry.rsplit_once(':') {
            Some((host, port)) => format!("{host}_{port}_"),
            None => self.registry.clone(),
        };
        self.certs().join(place).join("hosts.toml")
    }

    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.dir.path().join("certs.d")
    }

    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn containerd_config(&self) -> PathBuf {
        self.dir.path().join("containerd.toml")
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join("larder.toml")
    }
}

impl Agent {
    /// Where containerd is to ask.
    #[must_use]
    pub fn mirror(&self) -> SocketAddr {
        self.mirror
    }

    /// `GET /stats`
    ///
    /// # Errors
    /// It gives no answer, or one that is no report.
    pub async fn stats(&self) -> Result<Report> {
        serde_json::from_slice(&self.fetch("/stats").await?).context("the agent's /stats")
    }

    /// What has moved since it started, from `/metrics`.
    ///
    /// # Errors
    /// It gives no answer.
    pub async fn traffic(&self) -> Result<Traffic> {
        let text = self.fetch("/metrics").await?;
        let text = String::from_utf8_lossy(&text);
        Ok(Traffic {
            upstream_requests: sum(&text, "larder_upstream_requests_total", ""),
            upstream_bytes: sum(&text, "larder_upstream_bytes_total", ""),
            cache_bytes: sum(&text, "larder_served_bytes_total", "source=\"cache\""),
        })
    }

    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    async fn fetch(&self, path: &str) -> Result<Bytes> {
        let uri: Uri = format!("http://{}{path}", self.admin).parse().context("an address")?;
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let reply = client.get(uri).await.with_context(|| format!("the agent's {path}"))?;
        ensure!(reply.status().is_success(), "the agent's {path}: {}", reply.status());
        Ok(reply.into_body().collect().await.with_context(|| format!("the agent's {path}"))?.to_bytes())
    }
}

impl Traffic {
    /// What has moved since an earlier look.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            upstream_requests: self.upstream_requests.saturating_sub(before.upstream_requests),
            upstream_bytes: self.upstream_bytes.saturating_sub(before.upstream_bytes),
            cache_bytes: self.cache_bytes.saturating_sub(before.cache_bytes),
        }
    }
}

/// One of the programs that are tested: cargo puts them beside ours, or one directory up.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let ours = std::env::current_exe().context("our own path")?;
    let found = ours.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build --workspace` first"))
}

/// The address in the agent's log line about one of its listeners.
fn listener(log: &str, name: &str) -> Option<SocketAddr> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == "listening" && line["listener"] == name)
        .and_then(|line| line["address"].as_str()?.parse().ok())
}

/// The sum of a metric's samples whose labels hold `label`.
fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let samples = metrics.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_the_samples_that_match() {
        let text = "# TYPE a counter\na_total{x=\"1\",source=\"cache\"} 3\na_total{x=\"2\",source=\"upstream\"} 4\na_total_b 9\n";
        assert_eq!(sum(text, "a_total", ""), 7);
        assert_eq!(sum(text, "a_total", "source=\"cache\""), 3);
    }

    #[test]
    fn a_listeners_address_is_read_from_the_log() {
        let log =
            "starting\n{\"message\":\"listening\",\"listener\":\"admin\",\"address\":\"127.0.0.1:4\"}\n";
        assert_eq!(listener(log, "admin"), Some(SocketAddr::from(([127, 0, 0, 1], 4))));
        assert_eq!(listener(log, "mirror"), None);
    }
}
