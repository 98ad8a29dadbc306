//! What containerd's config says about certs.d.

use super::*;
use larder_wire::settings::InstallerSettings;

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new(config: &str) -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(node.certs_dir()).unwrap();
        node.write("config.toml", config);
        node
    }

    fn certs_dir(&self) -> PathBuf {
        self.dir.path().join("certs.d")
    }

    /// `@` stands for certs.d.
    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace('@', self.certs_dir().to_str().unwrap())).unwrap();
    }

    fn check(&self) -> Ground {
        check(&InstallerSettings {
            certs_dir: self.certs_dir(),
            containerd_config: self.dir.path().join("config.toml"),
            ..InstallerSettings::default()
        })
    }

    fn reason(&self) -> Option<Reason> {
        self.check().refusal.map(|told| told.reason)
    }
}

const V2: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"@\"\n";
const V3: &str = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '@'\n";

#[test]
fn a_config_path_that_is_certs_d_is_good_in_every_version() {
    for config in [V2, V3, "[plugins.cri.registry]\nconfig_path = \"@/\"\n"] {
        let node = Node::new(config);
        let ground = node.check();
        assert_eq!((ground.refusal, ground.note.as_str()), (None, ""), "{config}");
        assert_eq!(ground.roots, [node.certs_dir()]);
    }
}

#[test]
fn no_config_path_is_told_in_these_words() {
    for config in [
        "",
        "version = 2\n",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path=\"\"\n",
    ] {
        let told = Node::new(config).check().refusal.unwrap();
        assert_eq!(told.reason, Reason::ConfigPathUnset);
        let words =
            "containerd ignores certs.d; set config_path and restart containerd; pulls go direct, unharmed";
        assert!(told.words.starts_with(words), "{}", told.words);
    }
}

#[test]
fn the_wrong_section_is_as_good_as_none_and_hinted_at() {
    for config in [V2.replace("version = 2", "version = 3"), V3.replace("version = 3", "version = 2")] {
        let told = Node::new(&config).check().refusal.unwrap();
        assert_eq!(told.reason, Reason::ConfigPathUnset);
        assert!(told.words.contains("another config version"), "{}", told.words);
    }
}

#[test]
fn another_directory_is_not_ours() {
    let told = Node::new(&V2.replace('@', "/etc/containerd/hosts.d")).check().refusal.unwrap();
    assert_eq!(told.reason, Reason::ConfigPathUnset);
    assert!(told.words.contains("/etc/containerd/hosts.d"));
}

#[test]
fn a_linked_certs_d_is_the_same_directory() {
    let node = Node::new("");
    let link = node.dir.path().join("link");
    std::os::unix::fs::symlink(node.certs_dir(), &link).unwrap();
    node.write("config.toml", &V2.replace('@', link.to_str().unwrap()));
    assert_eq!(node.reason(), None);
}

#[test]
fn two_roots_are_a_trap_where_the_transfer_service_may_pull() {
    let two = |config: &str| config.replace('@', "@:/etc/docker/certs.d");
    for config in [two(V2), two(V3)] {
        let told = Node::new(&config).check().refusal.unwrap();
        assert_eq!(told.reason, Reason::TwoRoots);
        assert!(told.words.contains("use_local_image_pull"));
    }
    for local in [
        "[plugins.'io.containerd.cri.v1.images']\nuse_local_image_pull = true\n",
        "[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n",
        "[plugins.'io.containerd.cri.v1.images']\nmax_concurrent_downloads = 10\n",
    ] {
        let config = format!("{}{local}", two(V3));
        let node = Node::new(&config);
        let ground = node.check();
        assert_eq!(ground.refusal, None, "{local}");
        assert_eq!(ground.roots, [node.certs_dir(), "/etc/docker/certs.d".into()]);
    }
    let old = format!(
        "{}[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n",
        two(V2)
    );
    assert_eq!(Node::new(&old).reason(), None);
}

#[test]
fn imports_count_and_later_ones_win() {
    let node = Node::new("version = 2\nimports = [\"parts/*.toml\"]\n");
    assert_eq!(node.reason(), Some(Reason::ConfigPathUnset));
    node.write("parts/10-a.toml", V2);
    assert_eq!(node.reason(), None);
    node.write("parts/20-b.toml", &V2.replace('@', "/elsewhere"));
    assert_eq!(node.reason(), Some(Reason::ConfigPathUnset));
    node.write("parts/30-c.toml", V2);
    node.write("parts/40-d.conf", &V2.replace('@', "/elsewhere"));
    assert_eq!(node.reason(), None);
}

#[test]
fn imports_may_import_and_even_in_a_ring() {
    let node = Node::new("version = 2\nimports = [\"a.toml\"]\n");
    node.write("a.toml", "imports = [\"b.toml\", \"config.toml\"]\n");
    node.write("b.toml", &format!("imports = [\"a.toml\"]\n{V2}").replace("version = 2\n", ""));
    assert_eq!(node.reason(), None);
}

#[test]
fn conf_d_counts_where_nothing_else_is_imported() {
    let node = Node::new("version = 3\n");
    node.write("conf.d/certs.toml", V3);
    assert_eq!(node.reason(), None);
    node.write("config.toml", "version = 3\nimports = []\n");
    assert_eq!(node.reason(), Some(Reason::ConfigPathUnset));
}

#[test]
fn a_config_that_cannot_be_read_is_noted_and_no_obstacle() {
    let node = Node::new("version = \n");
    assert!(node.check().refusal.is_none() && node.check().note.contains("does not parse"));
    fs::remove_file(node.dir.path().join("config.toml")).unwrap();
    assert!(node.check().refusal.is_none() && node.check().note.contains("cannot be read"));
}

#[test]
fn patterns() {
    assert!(fits("*.toml", "a.toml") && fits("a*b*c", "aXbYc") && fits("*", "") && fits("a", "a"));
    assert!(!fits("*.toml", "a.tom") && !fits("a*b", "ac") && !fits("a", "ab"));
}
