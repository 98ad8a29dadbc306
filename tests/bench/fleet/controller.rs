//! larder-controller as the program that is shipped, at addresses that outlive it, as its Service does, and what it
//! counts of itself. Must not judge the numbers.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use larder_tests::client::{Request, fetch};
use larder_tests::containerd::daemon::Daemon;
use larder_tests::node::metric_sum;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval};

use crate::server::cpu_seconds;

/// A look costs the controller a page of metrics.
const LOOK: Duration = Duration::from_millis(500);
const STOP: Duration = Duration::from_secs(60);

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) reports: SocketAddr,
    metrics: SocketAddr,
    health: SocketAddr,
}

/// Killed and reaped when dropped.
pub(super) struct Controller {
    process: Daemon,
    addresses: Addresses,
}

/// What it has done since it started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) at: Instant,
    /// Seconds of processor time.
    pub(super) processor: f64,
    pub(super) reads: f64,
    /// Besides the Lease's renewals and reviews of tokens.
    pub(super) writes: f64,
    pub(super) reviews: f64,
    /// Reports that were taken.
    pub(super) reports: f64,
    /// Nodes as it knows them now.
    pub(super) known: f64,
    pub(super) ready: f64,
    /// Reconciles that did not end well.
    pub(super) failed: f64,
}

impl Addresses {
    /// Below the ports that the system gives to connections: agents that find nobody there must not find themselves.
    pub(super) fn free() -> Result<Self> {
        let mut free = (20_000 + u16::try_from(std::process::id() % 9000).unwrap_or(0)..30_000)
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .filter(|address| TcpListener::bind(address).is_ok());
        let mut next = || free.next().context("a free port");
        Ok(Self { reports: next()?, metrics: next()?, health: next()? })
    }
}

impl Controller {
    /// Its log stands beside the kubeconfig.
    pub(super) fn start(kubeconfig: &Path, addresses: Addresses) -> Result<Self> {
        let dir = kubeconfig.parent().context("a kubeconfig stands in a directory")?;
        // It ends when we do, however that comes.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program()?).arg("run").args([
            format!("--bind-address={}", addresses.reports),
            format!("--metrics-bind-address={}", addresses.metrics),
            format!("--health-bind-address={}", addresses.health),
        ]);
        command.env("KUBECONFIG", kubeconfig).current_dir(dir);
        let log = dir.join("larder-controller.log");
        Ok(Self { process: Daemon::spawn(&mut command, &log, &log)?, addresses })
    }

    /// As of now.
    pub(super) async fn counts(&self) -> Result<Counts> {
        // Who asks where nobody listens is not told, but panics.
        drop(TcpStream::connect(self.addresses.metrics).await.context("the controller's metrics")?);
        let page = fetch(self.addresses.metrics, Request::get("/metrics")).await;
        let page = String::from_utf8_lossy(&page.body);
        let sum = |name: &str, labels: &[(&str, &str)]| {
            metric_sum(&page, &format!("larder_controller_{name}"), labels)
        };
        let requests = |verb: &str| sum("api_requests_total", &[("verb", verb)]);
        let asked = |result: &str| sum("token_reviews_total", &[("result", result)]);
        let reviews = asked("accepted") + asked("denied") + asked("error");
        Ok(Counts {
            at: Instant::now(),
            processor: cpu_seconds(self.process.id())?,
            reads: requests("read"),
            // Reviews are created, and only the Lease is updated; all else is applied.
            writes: requests("create") - reviews + requests("patch") + requests("delete"),
            reviews,
            reports: sum("reports_total", &[("code", "200")]),
            known: sum("report_nodes", &[]),
            failed: sum("reconciles_total", &[]) - sum("reconciles_total", &[("result", "ok")]),
            ready: sum("nodes", &[("state", "ready")]),
        })
    }

    /// Waits until it says so of itself.
    pub(super) async fn until(
        &mut self,
        what: &str,
        within: Duration,
        is_so: impl Fn(&Counts) -> bool,
    ) -> Result<()> {
        let (end, mut looks) = (Instant::now() + within, interval(LOOK));
        loop {
            looks.tick().await;
            // Nobody listens there before it is up.
            if self.counts().await.is_ok_and(|counts| is_so(&counts)) {
                return Ok(());
            }
            if let Some(status) = self.process.ended()? {
                bail!("the controller ended ({status}) before {what}\n{}", self.process.log());
            }
            ensure!(Instant::now() < end, "{what}: not within {within:?}\n{}", self.process.log());
        }
    }

    /// The most memory that it ever held, in MiB.
    pub(super) fn peak_memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.context("the controller's process")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let peak: f64 = peak.context("VmHWM")?.parse().context("VmHWM")?;
        Ok(peak / 1024.0)
    }

    /// As a node that loses power.
    pub(super) async fn kill(self) -> Result<()> {
        self.process.end(Signal::SIGKILL, STOP).await.map(drop)
    }
}

/// Beside our own program.
fn program() -> Result<PathBuf> {
    let path = env::current_exe().context("our own path")?.with_file_name("larder-controller");
    ensure!(path.is_file(), "{} is not built: `make bench` builds it", path.display());
    Ok(path)
}
