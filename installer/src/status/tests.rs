//! What `status` prints.

use super::*;
use crate::state::{RegistryState, State};
use larder_wire::settings::UpstreamSettings;
use std::fs;

struct Node {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("certs.d/quay.io")).unwrap();
        let upstreams =
            ["docker.io", "quay.io"].map(|name| UpstreamSettings::new(name.parse().unwrap())).into();
        let mut settings = Settings { run_dir: dir.path().to_owned(), upstreams, ..Settings::default() };
        settings.installer.certs_dir = dir.path().join("certs.d");
        settings.installer.containerd_config = dir.path().join("config.toml");
        Self { dir, settings }
    }

    fn quay(&self, text: &str) {
        fs::write(self.dir.path().join("certs.d/quay.io/hosts.toml"), text).unwrap();
    }

    fn told(&self, state: &str, reason: &str) {
        let line = |registry: &str| RegistryState {
            registry: registry.to_owned(),
            state: state.to_owned(),
            reason: reason.to_owned(),
            message: "words".to_owned(),
            since: String::new(),
        };
        State { registries: vec![line("docker.io"), line("quay.io")] }.write(self.dir.path()).unwrap();
    }

    fn status(&self) -> (bool, String, String) {
        let (mut out, mut words) = (Vec::new(), Vec::new());
        let all = status(&self.settings, &mut out, &mut words).unwrap();
        (all, String::from_utf8(out).unwrap(), String::from_utf8(words).unwrap())
    }
}

#[test]
fn a_line_a_registry_and_the_words_apart() {
    let node = Node::new();
    node.quay("server = \"https://corp\"\n");
    let (all, out, words) = node.status();
    assert!(!all);
    assert_eq!(out, "docker.io\twaiting\t\nquay.io\trefused\tOtherUpstream\n");
    assert!(words.contains("quay.io: OtherUpstream: ") && words.contains("https://corp"));
}

#[test]
fn why_nothing_is_there_is_the_installers_last_word() {
    let node = Node::new();
    node.told("withdrawn", "Bypass");
    assert_eq!(node.status().1, "docker.io\twithdrawn\tBypass\nquay.io\twithdrawn\tBypass\n");
    // What it said last is not what is there.
    node.told("installed", "");
    assert_eq!(node.status().1, "docker.io\twaiting\t\nquay.io\twaiting\t\n");
}

#[test]
fn all_installed_or_external_is_good() {
    let mut node = Node::new();
    node.settings.upstreams.remove(0);
    node.settings.installer.mode = InstallerMode::Observe;
    node.quay("[host.\"http://127.0.0.1:19500\"]\n");
    let (all, out, _) = node.status();
    assert!(all);
    assert!(out.starts_with("quay.io\texternal\t\n\n# k3s"), "{out}");
    for program in ["k3s", "Talos", "Bottlerocket"] {
        assert!(out.contains(program));
    }
}

#[test]
fn an_entry_that_is_there_is_installed_whatever_was_said() {
    let mut node = Node::new();
    node.settings.upstreams.remove(0);
    let entry = crate::entry::Entry {
        mirror: node.settings.listen.mirror,
        capabilities: &node.settings.upstreams[0].capabilities,
        certificates: crate::entry::Certificates::default(),
    };
    node.quay(&String::from_utf8(entry.file(crate::entry::Made::default())).unwrap());
    node.told("withdrawn", "Bypass");
    let (all, out, _) = node.status();
    assert!(all);
    assert_eq!(out, "quay.io\tinstalled\t\n");
    // Unless it should have gone, and could not.
    node.told("installed", "Bypass");
    let (all, out, words) = node.status();
    assert!(!all);
    assert_eq!((&*out, &*words), ("quay.io\tinstalled\tBypass\n", "quay.io: Bypass: words\n"));
}

#[test]
fn a_config_that_makes_us_useless_is_told_for_all() {
    let node = Node::new();
    fs::write(node.dir.path().join("config.toml"), "version = 2\n").unwrap();
    let (_, out, words) = node.status();
    assert_eq!(out, "docker.io\trefused\tConfigPathUnset\nquay.io\trefused\tConfigPathUnset\n");
    assert!(words.contains("docker.io: ConfigPathUnset: containerd ignores certs.d; set config_path"));
}
