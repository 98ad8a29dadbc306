//! The installer as it runs, against an agent over real TCP.

use super::*;
use crate::fake_agent::{FakeAgent, Manner};
use crate::state::Standing;
use crate::uninstall::{Uninstalled, uninstall};
use larder_wire::settings::{InstallerMode, UpstreamSettings};
use std::fs;
use tokio::task::JoinHandle;

const ADMIN: &str = "# by hand\r\nserver   = \"https://registry-1.docker.io\"\r\n\r\n# no newline at the end";

struct Node {
    dir: tempfile::TempDir,
    agent: FakeAgent,
    settings: watch::Sender<Settings>,
    stop: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Node {
    async fn new(manner: Manner) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("certs.d/docker.io")).unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(dir.path().join("certs.d/docker.io/hosts.toml"), ADMIN).unwrap();
        let config =
            format!("[plugins.cri.registry]\nconfig_path = '{}'\n", dir.path().join("certs.d").display());
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let agent = FakeAgent::start(manner).await;
        agent.leave_key(&dir.path().join("run"));
        let registries = ["docker.io", "registry.example:5000"];
        let mut settings = Settings {
            run_dir: dir.path().join("run"),
            upstreams: registries.map(|name| UpstreamSettings::new(name.parse().unwrap())).into(),
            ..Settings::default()
        };
        settings.listen.mirror.set_port(0);
        settings.installer.certs_dir = dir.path().join("certs.d");
        settings.installer.containerd_config = dir.path().join("config.toml");
        Self {
            dir,
            agent,
            settings: watch::Sender::new(settings),
            stop: CancellationToken::new(),
            running: None,
        }
    }

    async fn running(manner: Manner) -> Self {
        let mut node = Self::new(manner).await;
        node.running = Some(tokio::spawn(run(node.settings.subscribe(), node.stop.clone())));
        node
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap().unwrap();
    }

    fn hub(&self) -> String {
        fs::read_to_string(self.dir.path().join("certs.d/docker.io/hosts.toml")).unwrap()
    }

    fn own(&self) -> PathBuf {
        self.dir.path().join("certs.d/registry.example_5000_/hosts.toml")
    }

    async fn until(&self, registry: &str, standing: Standing, reason: &str) {
        let told = || state::read(&self.dir.path().join("run")).unwrap_or_default();
        let is_so = |last: &RegistryState| {
            (&*last.registry, &*last.state, &*last.reason) == (registry, standing.as_str(), reason)
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !told().registries.iter().any(is_so) {
            assert!(Instant::now() < deadline, "never {standing} {reason}: {:?}", told());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn is_clean(&self) {
        assert_eq!(self.hub(), ADMIN);
        let names: Vec<_> = fs::read_dir(self.dir.path().join("certs.d")).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(fs::read_dir(self.dir.path().join("certs.d/docker.io")).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn in_while_the_agent_is_well_out_when_it_stops() {
    let mut node = Node::running(Manner::Well).await;
    node.until("registry.example:5000", Standing::Installed, "").await;
    let url = format!("[host.\"http://{}\"]", node.agent.address);
    assert!(node.hub().contains(&url));
    assert!(fs::read_to_string(node.own()).unwrap().contains(&url));
    assert_eq!(uninstall(&node.settings.borrow()).unwrap(), Uninstalled::Running);
    node.stop().await;
    node.is_clean();
    node.until("docker.io", Standing::Withdrawn, "").await;
}

#[tokio::test]
async fn the_kill_switch_takes_everything_out() {
    let mut node = Node::running(Manner::Well).await;
    node.until("docker.io", Standing::Installed, "").await;
    node.agent.behave(Manner::Bypass);
    node.until("docker.io", Standing::Withdrawn, "Bypass").await;
    node.is_clean();
    node.stop().await;
}

#[tokio::test]
async fn a_squatter_never_gets_an_entry_and_a_hung_agent_loses_its() {
    let mut node = Node::running(Manner::Squatter).await;
    node.until("docker.io", Standing::Waiting, "NotOurAgent").await;
    node.is_clean();
    node.agent.behave(Manner::Well);
    node.until("docker.io", Standing::Installed, "").await;
    node.agent.behave(Manner::Silent);
    node.until("docker.io", Standing::Withdrawn, "ProbeFailed").await;
    node.is_clean();
    node.stop().await;
}

#[tokio::test]
async fn new_settings_are_taken_over_at_once() {
    let mut node = Node::running(Manner::Well).await;
    node.until("registry.example:5000", Standing::Installed, "").await;
    node.settings.send_modify(|settings| {
        settings.upstreams.pop();
    });
    node.until("docker.io", Standing::Installed, "").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.own().exists() {
        assert!(Instant::now() < deadline, "the entry of a registry that is not wanted stays");
        sleep(Duration::from_millis(10)).await;
    }
    node.settings.send_modify(|settings| settings.installer.mode = InstallerMode::Absent);
    node.until("docker.io", Standing::Withdrawn, "").await;
    node.is_clean();
    node.stop().await;
}

#[tokio::test]
async fn another_certs_dir_takes_the_entries_with_it() {
    let mut node = Node::running(Manner::Well).await;
    node.until("registry.example:5000", Standing::Installed, "").await;
    let other = node.dir.path().join("other");
    let config = format!("[plugins.cri.registry]\nconfig_path = '{}'\n", other.display());
    fs::write(node.dir.path().join("config.toml"), config).unwrap();
    node.settings.send_modify(|settings| settings.installer.certs_dir = other.clone());
    let there = other.join("registry.example_5000_/hosts.toml");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !there.exists() {
        assert!(Instant::now() < deadline, "no entry in the new certs_dir");
        sleep(Duration::from_millis(10)).await;
    }
    node.is_clean();
    node.stop().await;
    assert!(!other.exists(), "we made it");
}

#[tokio::test]
async fn keep_on_shutdown_keeps_and_uninstall_takes_out() {
    let mut node = Node::running(Manner::Well).await;
    node.settings.send_modify(|settings| settings.installer.keep_on_shutdown = true);
    node.until("registry.example:5000", Standing::Installed, "").await;
    node.stop().await;
    assert!(node.own().exists() && node.hub() != ADMIN);
    assert_eq!(uninstall(&node.settings.borrow()).unwrap(), Uninstalled::Clean);
    node.is_clean();
}

#[tokio::test]
async fn observe_writes_nothing() {
    let mut node = Node::new(Manner::Well).await;
    node.settings.send_modify(|settings| settings.installer.mode = InstallerMode::Observe);
    let theirs = format!("{ADMIN}\r\n[host.\"http://{}\"]\r\n", node.agent.address);
    fs::write(node.dir.path().join("certs.d/docker.io/hosts.toml"), &theirs).unwrap();
    node.running = Some(tokio::spawn(run(node.settings.subscribe(), node.stop.clone())));
    node.until("docker.io", Standing::External, "").await;
    node.until("registry.example:5000", Standing::Waiting, "").await;
    node.stop().await;
    assert_eq!(node.hub(), theirs);
    assert!(!node.own().exists());
}

#[tokio::test]
async fn a_second_installer_waits_for_the_first() {
    let mut node = Node::running(Manner::Well).await;
    node.until("docker.io", Standing::Installed, "").await;
    let second = tokio::spawn(run(node.settings.subscribe(), node.stop.child_token()));
    node.stop().await;
    second.await.unwrap().unwrap();
    node.is_clean();
}

#[tokio::test]
async fn what_cannot_be_taken_out_holds_nothing_else_back() {
    let mut node = Node::running(Manner::Well).await;
    node.until("registry.example:5000", Standing::Installed, "").await;
    let hosts = node.dir.path().join("certs.d/docker.io/hosts.toml");
    fs::rename(&hosts, node.dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink(node.dir.path().join("real"), &hosts).unwrap();
    node.stop().await;
    assert!(!node.own().exists());
    node.until("registry.example:5000", Standing::Withdrawn, "").await;
    let told = state::read(&node.dir.path().join("run")).unwrap();
    assert_ne!(told.registries[0].state, Standing::Withdrawn.as_str());
    assert!(told.registries[0].message.contains("symbolic link"), "{}", told.registries[0].message);
}

#[test]
fn what_was_logged_is_not_logged_again_while_it_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let state = || memory::withdrawn(&Settings::default(), "words");
    let mut told = Told::of(State::default());
    told.tell(state(), &run_dir);
    assert!(told.trouble.is_some());
    assert_eq!(told.take_in(state()), []);
    fs::create_dir(&run_dir).unwrap();
    told.tell(state(), &run_dir);
    assert_eq!(state::read(&run_dir), Some(told.logged));
    assert_eq!(told.trouble, None);
}

#[test]
fn a_certs_d_that_cannot_be_read_leaves_each_as_it_was() {
    let settings = Settings::default();
    let mut last = memory::withdrawn(&settings, "");
    for registry in &mut last.registries {
        registry.state = Standing::Installed.to_string();
    }
    let left = [(settings.installer.certs_dir.clone(), "no such luck".to_owned())];
    let state = left_as(&settings, &left, &last);
    assert!(!state.registries.is_empty());
    for registry in &state.registries {
        assert!(registry.is_installed() && registry.message.ends_with("no such luck"), "{registry:?}");
    }
}
