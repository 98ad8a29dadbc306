//! A registry of either version as a process with an empty storage, which can be stopped and started again where it was,
//! and tells what it was asked. Must not know of the gateway.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use larder_tests::containerd::daemon::Daemon;
use larder_tests::registry::Access;
use larder_tests::wait::until;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::web::Web;

const START: Duration = Duration::from_secs(20);
/// Our own looks at the registry, so that they are not counted.
const MARK: &str = "/v2/?mark=";

/// A registry's program.
#[derive(Clone)]
pub(crate) struct Program {
    path: PathBuf,
    pub(crate) major: u8,
}

/// Those that are here; what is not says so in a line.
pub(crate) fn programs() -> Vec<Program> {
    let mut found = Vec::new();
    let debian = PathBuf::from("/usr/bin/docker-registry");
    if debian.exists() {
        found.push(Program { path: debian, major: 2 });
    } else {
        eprintln!("did not run with 2.8: no Debian package `docker-registry`");
    }
    let exe = std::env::current_exe().unwrap();
    let mut places = exe.ancestors().map(|dir| dir.join("tools/distribution-3/registry"));
    match places.find(|path| path.exists()) {
        Some(path) => found.push(Program { path, major: 3 }),
        None => eprintln!(
            "did not run with 3.x: no target/tools/distribution-3 (`make test` builds it where Go is found)"
        ),
    }
    found
}

/// One that runs, or did.
pub(crate) struct Registry {
    process: Option<Daemon>,
    program: Program,
    dir: TempDir,
    /// `127.0.0.1:PORT`, the same after a restart.
    pub(crate) host: String,
    marks: usize,
    told: usize,
}

impl Registry {
    pub(crate) async fn start(program: &Program) -> Self {
        let dir = TempDir::with_prefix("larder-behind-gateway-").unwrap();
        let host = "127.0.0.1:0".to_owned();
        let mut registry = Self { process: None, program: program.clone(), dir, host, marks: 0, told: 0 };
        registry.resume().await;
        registry
    }

    /// Starts it where it was.
    pub(crate) async fn resume(&mut self) {
        let dir = self.dir.path();
        let (settings, log) = (dir.join("config.yml"), dir.join("registry.log"));
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: false}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n  \
             maintenance: {{uploadpurging: {{enabled: false}}}}\n\
             http: {{addr: '{}', secret: tests, draintimeout: 1s}}\n",
            dir.join("storage").display(),
            self.host
        );
        fs::write(&settings, text).unwrap();
        fs::write(&log, "").unwrap();
        self.told = 0;
        let mut command = Command::new(&self.program.path);
        // What this machine tells its programs about proxies is not what a pod has.
        command.arg("serve").arg(&settings).env_clear().env("OTEL_TRACES_EXPORTER", "none");
        // 2.8 logs to the one, 3 to the other.
        let mut process = Daemon::spawn(&mut command, &log, &log).unwrap();
        self.host = process.until("the registry listens", START, async |log| listening(log)).await.unwrap();
        self.process = Some(process);
    }

    pub(crate) async fn stop(&mut self) {
        let process = self.process.take().expect("it runs");
        process.end(Signal::SIGTERM, START).await.unwrap();
    }

    /// What was asked of it since the last call. Every request that was answered before is in it.
    pub(crate) async fn asked(&mut self, web: &Web) -> Vec<Access> {
        self.marks += 1;
        let mark = format!("{MARK}{}", self.marks);
        web.get(&self.host, &mark).await;
        let process = self.process.as_ref().expect("it runs");
        let lines = until("the access log is written", async || {
            let lines = accesses(&process.log());
            lines.iter().any(|access| access.path == mark).then_some(lines)
        })
        .await;
        let fresh = lines.iter().skip(self.told).filter(|access| !access.path.starts_with(MARK));
        let fresh = fresh.cloned().collect();
        self.told = lines.len();
        fresh
    }

    /// Waits until the log shows a request that was asked since the last [`Registry::asked`].
    pub(crate) async fn until_asked(&self, method: &str, path: &str) {
        let process = self.process.as_ref().expect("it runs");
        until(format!("{method} {path} in the access log"), async || {
            let lines = accesses(&process.log());
            let mut fresh = lines.iter().skip(self.told);
            fresh.any(|access| access.method == method && access.path.starts_with(path)).then_some(())
        })
        .await;
    }

    /// Gives a manifest of a repository many tags, in the storage itself: pushing them takes minutes.
    pub(crate) fn add_tags(&self, repository: &str, digest: &str, count: usize) {
        let repositories = self.dir.path().join("storage/docker/registry/v2/repositories");
        let tags = repositories.join(repository).join("_manifests/tags");
        for number in 0..count {
            let current = tags.join(format!("old-{number}/current"));
            fs::create_dir_all(&current).unwrap();
            fs::write(current.join("link"), digest).unwrap();
        }
    }

    /// The tags of a repository, by the registry itself.
    pub(crate) async fn tags(&self, web: &Web, repository: &str) -> Vec<String> {
        let answer = web.get(&self.host, &format!("/v2/{repository}/tags/list")).await;
        let listed = answer.json()["tags"].as_array().cloned().unwrap_or_default();
        listed.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
    }
}

fn accesses(log: &str) -> Vec<Access> {
    // A line that is being written has no end yet.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(Access::parse).filter(|access| access.path.starts_with('/')).collect()
}

/// The address in the line `listening on 127.0.0.1:PORT`.
fn listening(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on 127")?;
    let end = rest.find(|letter: char| !(letter.is_ascii_digit() || ".:".contains(letter)))?;
    Some(format!("127{}", &rest[..end]))
}
