//! The binary as an administrator and a DaemonSet use it: exit codes, output, signals, reload.

#![cfg(test)]

#[path = "../src/fake_agent.rs"]
#[expect(dead_code, reason = "not every manner is needed here")]
mod fake_agent;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fake_agent::{FakeAgent, Manner};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ADMIN: &str = "# by hand\n[host.\"https://registry-1.docker.io\"]\n  capabilities=['pull']";

struct Node {
    dir: tempfile::TempDir,
    agent: FakeAgent,
}

impl Node {
    async fn new() -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap(), agent: FakeAgent::start(Manner::Well).await };
        fs::create_dir(node.path("run")).unwrap();
        fs::create_dir_all(node.path("certs.d/docker.io")).unwrap();
        fs::write(node.hub(), ADMIN).unwrap();
        node.agent.leave_key(&node.path("run"));
        node.configure(&["docker.io", "ghcr.io"]);
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn hub(&self) -> PathBuf {
        self.path("certs.d/docker.io/hosts.toml")
    }

    /// Writes the settings as a mounted ConfigMap changes them: a link is swapped.
    fn configure(&self, registries: &[&str]) {
        let upstreams: String =
            registries.iter().map(|registry| format!("[[upstream]]\nregistry = \"{registry}\"\n")).collect();
        let text = format!(
            "run_dir = {:?}\n[listen]\nmirror = \"{}\"\n[installer]\ncerts_dir = {:?}\ncontainerd_config = {:?}\n{upstreams}",
            self.path("run"),
            self.agent.address,
            self.path("certs.d"),
            self.path("no-containerd.toml"),
        );
        let version = format!("larder-{}.toml", registries.len());
        fs::write(self.path(&version), text).unwrap();
        std::os::unix::fs::symlink(&version, self.path("swap")).unwrap();
        fs::rename(self.path("swap"), self.path("larder.toml")).unwrap();
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-installer"));
        command.arg(word).arg("--config").arg(self.path("larder.toml")).stderr(Stdio::piped());
        command
    }

    fn output(&self, word: &str) -> (Option<i32>, String) {
        let Output { status, stdout, .. } = self.command(word).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap())
    }

    /// Starts `run`, which ends with the test.
    fn run(&self) -> Run {
        Run(self.command("run").stderr(Stdio::null()).spawn().unwrap())
    }
}

struct Run(Child);

impl Run {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        looks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_status_and_sigterm() {
    let node = Node::new().await;
    assert_eq!(node.output("status"), (Some(1), "docker.io\twaiting\t\nghcr.io\twaiting\t\n".to_owned()));
    let mut run = node.run();
    let installed = "docker.io\tinstalled\t\nghcr.io\tinstalled\t\n";
    until("all installed", || node.output("status") == (Some(0), installed.to_owned())).await;
    assert_eq!(node.output("uninstall").0, Some(75));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.0.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_to_string(node.hub()).unwrap(), ADMIN);
    assert!(!node.path("certs.d/ghcr.io").exists());
    assert_eq!(node.output("status").1, "docker.io\twithdrawn\t\nghcr.io\twithdrawn\t\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_installer_leaves_what_uninstall_takes_out() {
    let node = Node::new().await;
    let mut run = node.run();
    until("installed", || node.path("certs.d/ghcr.io/hosts.toml").exists()).await;
    run.signal(Signal::SIGKILL);
    run.0.wait().unwrap();
    assert_eq!(node.output("uninstall"), (Some(0), String::new()));
    assert_eq!(fs::read_to_string(node.hub()).unwrap(), ADMIN);
    assert_eq!(fs::read_dir(node.path("certs.d")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_settings_file_is_taken_over() {
    let node = Node::new().await;
    let run = node.run();
    let ghcr = node.path("certs.d/ghcr.io");
    until("installed", || ghcr.exists()).await;
    node.configure(&["docker.io"]);
    run.signal(Signal::SIGHUP);
    until("the dropped registry gone", || !ghcr.exists()).await;
    fs::write(node.path("larder-1.toml"), "run_dir = \n").unwrap();
    run.signal(Signal::SIGHUP);
    node.agent.behave(Manner::Bypass);
    until("the kill switch seen", || fs::read_to_string(node.hub()).unwrap() == ADMIN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_words_and_bad_settings_exit_64() {
    let node = Node::new().await;
    let code = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-installer"));
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(code(&[]), Some(64));
    assert_eq!(code(&["run"]), Some(64));
    assert_eq!(code(&["status", "--config", "/nowhere/larder.toml"]), Some(64));
    assert_eq!(code(&["--help"]), Some(0));
    fs::write(node.path("larder.toml"), "[installer]\nmode = \"often\"\n").unwrap();
    for word in ["run", "status", "uninstall"] {
        let output = node.command(word).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{word}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("larder.toml:2: "), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_went_bad_leave_no_entry_behind() {
    let node = Node::new().await;
    let mut run = node.run();
    until("installed", || node.path("certs.d/ghcr.io/hosts.toml").exists()).await;
    run.signal(Signal::SIGKILL);
    run.0.wait().unwrap();
    let good = fs::read_to_string(node.path("larder.toml")).unwrap();
    fs::write(node.path("larder.toml"), format!("generation = true\n{good}")).unwrap();
    assert_eq!(node.output("status").0, Some(64));
    assert!(node.path("certs.d/ghcr.io").exists());
    assert_eq!(node.output("run").0, Some(64));
    assert_eq!(fs::read_to_string(node.hub()).unwrap(), ADMIN);
    assert!(!node.path("certs.d/ghcr.io").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_does_not_give_exits_70() {
    let node = Node::new().await;
    fs::remove_dir_all(node.path("certs.d")).unwrap();
    fs::write(node.path("certs.d"), "").unwrap();
    assert_eq!(node.output("status").0, Some(70));
}
