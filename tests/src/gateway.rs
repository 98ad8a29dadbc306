//! The push gateway as the program that is shipped, with settings and a policy of its own, on ports that the system
//! chooses. Must not build it, nor know what registry stands behind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Reply, Request, fetch};
use crate::node::Process;

/// Gives a replica a hosts file and an address of its own; what it becomes keeps the process id.
const REPLICA: &str = r#"mount --bind "$1" /etc/hosts && POD_IP="$2" exec "$3" --config "$4""#;

/// A directory with a gateway's files, and the address that it keeps when it is started again.
pub struct Site {
    dir: TempDir,
    upstream: String,
    more: String,
    listen: String,
}

/// A gateway that runs; killed when dropped.
pub struct Gateway {
    pub process: Process,
    pub address: SocketAddr,
    admin: SocketAddr,
}

impl Site {
    /// `upstream` is the registry's `HOST:PORT`.
    ///
    /// # Panics
    /// When no files can be written.
    #[must_use]
    pub fn new(upstream: &str, policy: &Value) -> Self {
        let dir = TempDir::with_prefix("larder-gateway-").expect("a directory can be made");
        fs::create_dir(dir.path().join("policy")).expect("a directory can be made");
        let site = Self {
            dir,
            upstream: upstream.to_owned(),
            more: String::new(),
            listen: "127.0.0.1:0".to_owned(),
        };
        site.policy(&policy.to_string());
        site
    }

    /// Adds lines to the settings.
    #[must_use]
    pub fn settings(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// Replaces the policy file at one blow, as a mounted one changes.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn policy(&self, text: &str) {
        let fresh = self.path("fresh.json");
        fs::write(&fresh, text).expect("a file can be written");
        fs::rename(fresh, self.path("policy/policy.json")).expect("a file can be moved");
    }

    /// A file of this gateway's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the gateway, the next time where it was before.
    pub async fn start(&mut self) -> Gateway {
        let config = self.write();
        let process = Process::spawn(&binary(), &["--config", &config], self.dir.path());
        self.began(process).await
    }

    /// Starts one of several replicas, which are at the addresses that `hosts` gives their name.
    pub async fn start_replica(&mut self, address: &str, hosts: &Path) -> Gateway {
        let (config, binary, hosts) =
            (self.write(), binary().display().to_string(), hosts.display().to_string());
        let arguments = ["-rm", "sh", "-c", REPLICA, "replica", &hosts, address, &binary, &config];
        let process = Process::spawn(Path::new("/usr/bin/unshare"), &arguments, self.dir.path());
        self.began(process).await
    }

    async fn began(&mut self, mut process: Process) -> Gateway {
        // The admin listener is the last of a single one to be told.
        let admin = process.listening("admin").await;
        let address = process.listening("listen").await;
        self.listen = address.to_string();
        Gateway { process, address, admin }
    }

    fn write(&self) -> String {
        let Self { upstream, more, listen, .. } = self;
        let config = self.path("gateway.toml");
        let policy = self.path("policy/policy.json");
        let text = format!(
            "listen = \"{listen}\"\nadmin = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\n\
             policy_file = {policy:?}\nmax_writes = 512\n{more}"
        );
        fs::write(&config, text).expect("the settings can be written");
        config.display().to_string()
    }
}

impl Gateway {
    /// A page of the admin listener.
    pub async fn admin(&self, path: &str) -> Reply {
        fetch(self.admin, Request::get(path)).await
    }

    /// One sample of the metrics, by its name and labels as they are written; 0 when it is not there.
    pub async fn metric(&self, sample: &str) -> u64 {
        let page = self.admin("/metrics").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// How many pushes of manifests and uploads ended so.
    pub async fn decisions(&self, decision: &str, reason: &str) -> u64 {
        let labels = format!("{{decision=\"{decision}\",reason=\"{reason}\"}}");
        self.metric(&format!("larder_gateway_decisions_total{labels}")).await
    }

    /// The audit lines so far.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        let lines = self.process.log_lines().into_iter();
        lines.filter(|line| line["target"] == "audit").collect()
    }
}

/// The program beside the directory that this test executable stands in.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let dir = test.parent().and_then(Path::parent).expect("tests stand in target/PROFILE/deps");
    let path = dir.join("larder-gateway");
    assert!(path.exists(), "{} is missing: `make test` builds it", path.display());
    path
}
