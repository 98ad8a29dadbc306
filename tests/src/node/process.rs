//! Agent and installer as the processes that are shipped, on directories and ports of their own. A process is killed and
//! reaped when its handle is dropped. Must not build the binaries: `make test` does.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::{REGISTRY, temp_dir};
use crate::client::{self, Reply, Request};
use crate::invariants;
use crate::upstream::Upstream;
use crate::wait::until;

/// Directories and a settings file for one node's processes.
pub struct Site {
    dir: TempDir,
    root: String,
    listen: String,
    cache: String,
    installer: String,
    rest: String,
}

/// A started binary, whose stderr goes into a file.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Site {
    /// Empty certs.d, data and run directories; every listener on port 0.
    #[must_use]
    pub fn new() -> Self {
        let dir = temp_dir();
        for name in ["certs.d", "run"] {
            fs::create_dir(dir.path().join(name)).expect("a directory can be made");
        }
        let config = dir.path().join("containerd.toml");
        let certs = dir.path().join("certs.d").display().to_string();
        let table = "[plugins.\"io.containerd.grpc.v1.cri\".registry]";
        fs::write(&config, format!("version = 2\n{table}\nconfig_path = \"{certs}\"\n"))
            .expect("a file can be written");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let root = format!("data_dir = \"{}\"\nrun_dir = \"{}\"\n", at("data"), at("run"));
        let installer =
            format!("certs_dir = \"{certs}\"\ncontainerd_config = \"{}\"\n", at("containerd.toml"));
        let listen = "mirror = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n".to_owned();
        let cache = "min_free = \"0\"\nmax_size = \"0\"\n".to_owned();
        let site = Self { dir, root, listen, cache, installer, rest: String::new() };
        site.write();
        site
    }

    /// Adds an upstream called [`REGISTRY`], with more lines of its table.
    #[must_use]
    pub fn upstream(self, upstream: &Upstream, more: &str) -> Self {
        self.upstream_as(REGISTRY, &upstream.url(), more)
    }

    /// Adds an upstream by name and URL.
    #[must_use]
    pub fn upstream_as(mut self, registry: &str, url: &str, more: &str) -> Self {
        let table = format!("[[upstream]]\nregistry = \"{registry}\"\nurl = \"{url}\"\n{more}\n");
        self.rest.push_str(&table);
        self.write();
        self
    }

    /// Replaces the lines of `[listen]`.
    #[must_use]
    pub fn listen(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.listen);
        self.write();
        self
    }

    /// Adds lines to `[cache]`.
    #[must_use]
    pub fn cache(mut self, lines: &str) -> Self {
        self.cache.push_str(lines);
        self.write();
        self
    }

    /// Adds lines to `[installer]`.
    #[must_use]
    pub fn installer(mut self, lines: &str) -> Self {
        self.installer.push_str(lines);
        self.write();
        self
    }

    /// Adds whole tables.
    #[must_use]
    pub fn tables(mut self, text: &str) -> Self {
        self.rest.push_str(text);
        self.write();
        self
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("larder.toml")
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    #[must_use]
    pub fn certs_dir(&self) -> PathBuf {
        self.dir.path().join("certs.d")
    }

    /// The settings file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { root, listen, cache, installer, rest, .. } = self;
        format!("{root}\n[listen]\n{listen}\n[cache]\n{cache}\n[installer]\n{installer}\n{rest}")
    }

    /// Starts `larder-agent --config F` without waiting for it.
    #[must_use]
    pub fn spawn_agent(&self) -> Process {
        let config = self.config().display().to_string();
        Process::spawn(&agent_binary(), &["--config", &config], self.dir.path())
    }

    /// Starts the agent by another program, such as `prlimit`, which is given its own arguments first.
    #[must_use]
    pub fn spawn_agent_by(&self, program: &str, args: &[&str]) -> Process {
        let (agent, config) = (agent_binary().display().to_string(), self.config().display().to_string());
        let args: Vec<&str> =
            args.iter().copied().chain([agent.as_str(), "--config", config.as_str()]).collect();
        Process::spawn(Path::new(program), &args, self.dir.path())
    }

    /// Starts the agent and waits until its mirror listens and has written down where.
    pub async fn start_agent(&self) -> Process {
        let mut agent = self.spawn_agent();
        let mirror = agent.listening("mirror").await.to_string();
        until("the agent's address is written down", async || {
            let written = fs::read_to_string(self.run_dir().join("address")).ok()?;
            (written.trim() == mirror).then_some(())
        })
        .await;
        agent
    }

    /// Starts `larder-installer run`.
    #[must_use]
    pub fn start_installer(&self) -> Process {
        let config = self.config().display().to_string();
        Process::spawn(&installer_binary(), &["run", "--config", &config], self.dir.path())
    }

    /// Runs a command of one of the binaries to its end: its exit code, standard output and error.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn run(&self, binary: &Path, args: &[&str]) -> (Option<i32>, String, String) {
        let config = self.config();
        let mut command = tokio::process::Command::new(binary);
        command.args(args).arg("--config").arg(config).kill_on_drop(true).stdin(Stdio::null());
        let output = crate::wait::within(format!("{} {args:?}", binary.display()), command.output()).await;
        let output = output.expect("the binary can be started");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Writes the settings file, also over what a test has put there.
    pub fn write(&self) {
        fs::write(self.config(), self.text()).expect("the settings file can be written");
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    /// Starts a binary with its stderr in a file of `dir`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(binary: &Path, args: &[&str], dir: &Path) -> Self {
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = (0..).map(|n| dir.join(format!("{name}-{n}.log"))).find(|path| !path.exists());
        let log = log.expect("some number is free");
        let stderr = File::create_new(&log).expect("a log file can be made");
        let mut command = Command::new(binary);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.current_dir(dir).spawn();
        assert!(child.is_ok(), "{} cannot be started: {child:?}", binary.display());
        Self { name, child: child.expect("asserted above"), log }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. A process that has ended already is no mistake.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.raw_pid(), signal);
    }

    /// The exit code, once it has ended; nothing when a signal ended it.
    pub async fn exit(&mut self) -> Option<i32> {
        let what = format!("{} ends", self.name);
        let child = &mut self.child;
        let status = until(what, async || child.try_wait().expect("our own child can be waited for")).await;
        status.code()
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.exit().await;
    }

    /// SIGTERM, and the exit code after it.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.exit().await
    }

    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child can be waited for").is_none()
    }

    /// Everything it has written to stderr.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its log lines that are JSON.
    #[must_use]
    pub fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The address of a listener (`mirror`, `admin`, `metrics`), once it is told in the log. Fails when the process
    /// ends before that.
    pub async fn listening(&mut self, listener: &str) -> SocketAddr {
        let what = format!("{} says where its {listener} listens", self.name);
        until(what, async || {
            let ended = self.child.try_wait().expect("our own child can be waited for");
            assert!(ended.is_none(), "{} ended with {ended:?}:\n{}", self.name, self.log());
            self.log_lines().iter().find_map(|line| {
                let here = line["message"] == "listening" && line["listener"] == listener;
                here.then(|| line["address"].as_str()?.parse().ok())?
            })
        })
        .await
    }

    /// GET of the admin listener.
    pub async fn admin(&mut self, path: &str) -> Reply {
        let address = self.listening("admin").await;
        client::fetch(address, Request::get(path)).await
    }

    /// How many descriptors it has open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        invariants::open_files(Some(self.pid())).len()
    }

    /// Its memory in bytes, without what is mapped from files: a build for tests has a large binary.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    }

    /// I7 and an end without a panic: its whole log tells no secret and no panic.
    pub fn check_log(&self) {
        let log = self.log();
        invariants::tells_no_secret(&self.name, &log);
        assert!(!log.contains("panicked at"), "{} panicked:\n{log}", self.name);
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL too; after that the wait is short.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[must_use]
pub fn agent_binary() -> PathBuf {
    binary("larder-agent")
}

#[must_use]
pub fn installer_binary() -> PathBuf {
    binary("larder-installer")
}

/// Whether this is root. When not, says in one line what is therefore left out.
#[must_use]
#[expect(clippy::print_stderr, reason = "a test that leaves something out says so where people look")]
pub fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("not root: {what} was not run");
    }
    root
}

/// A binary beside the directory that this test executable stands in.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let dir = test.parent().and_then(Path::parent).expect("tests stand in target/PROFILE/deps");
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: `make test` builds it", path.display());
    path
}
