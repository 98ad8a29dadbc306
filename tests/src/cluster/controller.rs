//! The controller as the program that is shipped, against a cluster, on ports of its own. Killed and reaped when dropped.
//! Must not build it: `make test` does.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

use super::{Programs, Said, plane};
use crate::client::{self, Reply, Request};
use crate::containerd::daemon::Daemon;
use crate::node::metric_sum;
use crate::wait::within_time;

const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

/// `larder-controller run` on loopback.
pub struct Controller {
    process: Daemon,
    reports: SocketAddr,
    metrics: SocketAddr,
    health: SocketAddr,
    log: PathBuf,
}

impl Controller {
    /// Starts one for the cluster that the kubeconfig names, without waiting for it. The listeners need not be in `args`.
    /// Its log stands beside the kubeconfig.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(kubeconfig: &Path, args: &[&str]) -> Self {
        let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, plane::free_port().expect("a port is free")));
        let (reports, metrics, health) = (address(), address(), address());
        let dir = kubeconfig.parent().expect("a kubeconfig stands in a directory");
        let mut command = Programs::bound(&binary());
        command.arg("run").args([
            format!("--bind-address={reports}"),
            format!("--metrics-bind-address={metrics}"),
            format!("--health-bind-address={health}"),
        ]);
        command.args(args).env("KUBECONFIG", kubeconfig).current_dir(dir);
        let log = dir.join(format!("larder-controller-{}.log", reports.port()));
        let process = Daemon::spawn(&mut command, &log, &log).expect("larder-controller can be started");
        Self { process, reports, metrics, health, log }
    }

    /// A subcommand that ends by itself: `crds`, `uninstall`.
    ///
    /// # Panics
    /// When it cannot be started, or does not end within a minute.
    pub async fn once(kubeconfig: &Path, args: &[&str]) -> Said {
        let mut command = Command::new(binary());
        command.args(args).env("KUBECONFIG", kubeconfig).kill_on_drop(true);
        let output = within_time(format!("larder-controller {args:?}"), STOP, command.output()).await;
        Said::of(&output.expect("larder-controller can be started"))
    }

    /// [`Controller::spawn`], and waits until it is ready.
    ///
    /// # Panics
    /// When it ends before that, or is not ready within a minute.
    pub async fn start(kubeconfig: &Path, args: &[&str]) -> Self {
        let mut controller = Self::spawn(kubeconfig, args);
        controller.ready().await;
        controller
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Panics
    /// When it ends before that, or does not say so within a minute.
    pub async fn ready(&mut self) {
        let health = self.health;
        let look = async |_: &str| {
            // Nobody listens there before it is up.
            tokio::net::TcpStream::connect(health).await.ok()?;
            let reply = client::fetch(health, Request::get("/readyz")).await;
            (reply.status == http::StatusCode::OK).then_some(())
        };
        self.process.until("the controller is ready", READY, look).await.expect("the controller gets ready");
    }

    /// Where nodes report.
    #[must_use]
    pub fn reports(&self) -> SocketAddr {
        self.reports
    }

    /// Where `/livez` and `/readyz` are.
    #[must_use]
    pub fn health(&self) -> SocketAddr {
        self.health
    }

    /// Where its metrics page is.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Its metrics page.
    pub async fn metrics(&self) -> Reply {
        client::fetch(self.metrics, Request::get("/metrics")).await
    }

    /// The sum of a metric's samples that have all these labels; 0 when there are none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric_sum(&String::from_utf8_lossy(&self.metrics().await.body), name, labels)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything it has written to stderr.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its log lines that are JSON.
    #[must_use]
    pub fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How it ended; nothing while it runs.
    ///
    /// # Panics
    /// When its state cannot be had.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended().expect("our own child can be waited for")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("the controller runs");
    }

    /// SIGTERM; the exit code and the log.
    ///
    /// # Panics
    /// When it does not end within a minute.
    pub async fn terminate(self) -> (Option<i32>, String) {
        self.end(Signal::SIGTERM).await
    }

    /// SIGKILL, as a node that loses power; its log.
    ///
    /// # Panics
    /// When it does not end within a minute.
    pub async fn kill(self) -> String {
        self.end(Signal::SIGKILL).await.1
    }

    async fn end(self, signal: Signal) -> (Option<i32>, String) {
        let status = self.process.end(signal, STOP).await.expect("the controller ends");
        (status.code(), std::fs::read_to_string(self.log).unwrap_or_default())
    }
}

/// Beside the directory that this test's own program stands in.
fn binary() -> PathBuf {
    let test = env::current_exe().expect("a running test has a path");
    let dir = test.parent().and_then(Path::parent).expect("tests stand in target/PROFILE/deps");
    let path = dir.join("larder-controller");
    assert!(path.exists(), "{} is missing: `make test` builds it", path.display());
    path
}
