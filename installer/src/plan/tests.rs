//! The rule, case by case: what stands on the disk, what the probes say, what is to be done and told.

use super::*;
use crate::probe::{Health, Outcome};
use larder_wire::settings::{Access, Capability};
use std::collections::BTreeMap;
use std::time::Instant;

use crate::tree::Other;

const MIRROR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 19500);

/// A node: what lies there and what is known.
struct Node {
    settings: Settings,
    seen: Seen,
    ground: Ground,
    verdict: Verdict,
    recent: BTreeSet<Registry>,
    once_in: BTreeSet<Registry>,
    fought: BTreeSet<Registry>,
}

fn reachable() -> Verdict {
    let (mut health, now) = (Health::new(), Instant::now());
    let _ = [health.judge(Outcome::Good(MIRROR), now), health.judge(Outcome::Good(MIRROR), now)];
    health.judge(Outcome::Good(MIRROR), now)
}

fn failed() -> Verdict {
    Verdict::Out(Reason::ProbeFailed.because("no agent"))
}

fn registry(name: &str) -> Registry {
    name.parse().unwrap()
}

impl Node {
    fn new(registries: &[&str]) -> Self {
        let upstreams = registries.iter().map(|name| UpstreamSettings::new(registry(name))).collect();
        let seen = Seen { path: "/certs.d".into(), exists: true, dirs: BTreeMap::new(), others: Vec::new() };
        let ground = Ground { roots: vec!["/certs.d".into()], refusal: None, note: String::new() };
        Self {
            settings: Settings { upstreams, ..Settings::default() },
            seen,
            ground,
            verdict: reachable(),
            recent: BTreeSet::new(),
            once_in: BTreeSet::new(),
            fought: BTreeSet::new(),
        }
    }

    fn hub() -> Self {
        Self::new(&["docker.io"])
    }

    fn with(mut self, name: &str, hosts: Hosts, names: &[&str]) -> Self {
        let names: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
        self.seen.dirs.insert(name.to_owned(), Dir { hosts, files: names.clone(), names });
        self
    }

    fn saying(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    fn mode(mut self, mode: InstallerMode) -> Self {
        self.settings.installer.mode = mode;
        self
    }

    fn plan(&self) -> Plan {
        let known = Known {
            ground: &self.ground,
            verdict: &self.verdict,
            mirror: Some(MIRROR),
            recent: &self.recent,
            once_in: &self.once_in,
            fought: &self.fought,
        };
        plan(&self.settings, &self.seen, &known)
    }

    fn only(&self) -> Decision {
        let mut plan = self.plan();
        assert_eq!((plan.decisions.len(), plan.strays.as_slice()), (1, [].as_slice()));
        plan.decisions.remove(0)
    }

    /// The state and the reason, when nothing is to be written.
    fn idle(&self) -> (Standing, Option<Reason>) {
        let decision = self.only();
        assert_eq!((decision.install, decision.removal), (None, None));
        (decision.standing, decision.reason)
    }
}

fn owned(made: Made) -> Vec<u8> {
    let capabilities = &[Capability::Pull, Capability::Resolve];
    Entry { mirror: MIRROR, capabilities, certificates: Certificates::default() }.file(made)
}

fn made_dir() -> Hosts {
    Hosts::Text(owned(Made { dir: true, root: false }))
}

fn text(text: &str) -> Hosts {
    Hosts::Text(text.as_bytes().to_vec())
}

/// An administrator's file with our block in it.
fn spliced(admin: &str) -> Hosts {
    match Node::hub().with("docker.io", text(admin), &[]).only().install {
        Some(Install::Change { new, .. }) => Hosts::Text(new),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_there_becomes_a_directory_with_an_owned_file() {
    let decision = Node::hub().only();
    assert_eq!((decision.standing, decision.reason), (Standing::Installed, None));
    let file = owned(Made { dir: true, root: false });
    assert_eq!(decision.install, Some(Install::NewDir { dir: "docker.io".into(), file }));
    let mut node = Node::hub();
    node.seen.exists = false;
    let file = owned(Made { dir: true, root: true });
    assert_eq!(node.only().install, Some(Install::NewDir { dir: "docker.io".into(), file }));
}

#[test]
fn directories_are_named_as_containerd_looks_them_up() {
    let name = |node: Node| match node.only().install {
        Some(Install::NewDir { dir, .. } | Install::NewFile { dir, .. }) => dir,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(Node::new(&["registry.example:5000"])), "registry.example_5000_");
    assert_eq!(name(Node::new(&["[::1]:5000"])), "[::1]_5000_");
    let there = |dirs: &[&str]| {
        dirs.iter()
            .fold(Node::new(&["registry.example:5000"]), |node, dir| node.with(dir, Hosts::Absent, &[]))
    };
    assert_eq!(name(there(&["registry.example:5000"])), "registry.example:5000");
    assert_eq!(name(there(&["registry.example:5000", "registry.example_5000_"])), "registry.example_5000_");
}

#[test]
fn a_directory_of_ours_gives_way_to_one_that_an_administrator_makes() {
    let node = Node::new(&["registry.example:5000"]).with("registry.example_5000_", made_dir(), &[]).with(
        "registry.example:5000",
        text("skip_verify = true\n"),
        &[],
    );
    let plan = node.plan();
    assert!(
        matches!(&plan.decisions[0].install, Some(Install::Change { dir, .. }) if dir == "registry.example:5000")
    );
    assert!(matches!(&plan.strays[..], [Removal::Dir { dir, .. }] if dir == "registry.example_5000_"));
}

#[test]
fn docker_certificates_are_taken_along() {
    let node = Node::hub().with("docker.io", Hosts::Absent, &["a.crt"]);
    let Some(Install::NewFile { file, .. }) = node.only().install else { panic!() };
    assert!(String::from_utf8(file.clone()).unwrap().contains("\nca = [\"a.crt\"]\n"));
    // Once it is gone, a file that names it would make every pull fail.
    let node = Node::hub().with("docker.io", Hosts::Text(file.clone()), &[]);
    assert!(matches!(node.only().install, Some(Install::Change { old, .. }) if old == file));
}

#[test]
fn what_is_right_is_left() {
    for hosts in [made_dir(), spliced("# c\n[host.\"https://registry-1.docker.io\"]\n")] {
        assert_eq!(Node::hub().with("docker.io", hosts, &[]).idle(), (Standing::Installed, None));
    }
}

#[test]
fn new_capabilities_or_a_new_port_rewrite_the_entry() {
    let mut node = Node::hub().with("docker.io", made_dir(), &[]);
    node.settings.upstreams[0].access = Access::Shared;
    node.settings.upstreams[0].capabilities = vec![Capability::Pull];
    let Some(Install::Change { new, .. }) = node.only().install else { panic!() };
    assert!(String::from_utf8(new).unwrap().contains("capabilities = [\"pull\"]"));
    let capabilities = &[Capability::Pull, Capability::Resolve];
    let mirror = SocketAddr::from(([127, 0, 0, 1], 1));
    let old = Entry { mirror, capabilities, certificates: Certificates::default() };
    let node = Node::hub().with("docker.io", Hosts::Text(old.file(Made { dir: true, root: true })), &[]);
    let Some(Install::Change { new, .. }) = node.only().install else { panic!() };
    assert_eq!(new, owned(Made { dir: true, root: true }));
}

#[test]
fn no_second_write_within_30_seconds() {
    let mut node = Node::hub();
    node.recent.insert(registry("docker.io"));
    assert_eq!(node.idle(), (Standing::Waiting, None));
}

#[test]
fn without_a_proven_agent_nothing_goes_in() {
    let why = Reason::ProbeFailed.because("no agent");
    assert_eq!(Node::hub().saying(Verdict::Unsure(None)).idle(), (Standing::Waiting, None));
    let waiting = (Standing::Waiting, Some(Reason::ProbeFailed));
    assert_eq!(Node::hub().saying(Verdict::Unsure(Some(why.clone()))).idle(), waiting);
    assert_eq!(Node::hub().saying(failed()).idle(), waiting);
    let there = Node::hub().with("docker.io", made_dir(), &[]).saying(Verdict::Unsure(Some(why)));
    assert_eq!(there.idle(), (Standing::Installed, None));
}

#[test]
fn a_failed_agent_takes_the_entry_out() {
    let admin = "# c\n[host.\"https://registry-1.docker.io\"]\n";
    let out = |hosts: Hosts, names: &[&str]| {
        let decision = Node::hub().with("docker.io", hosts, names).saying(failed()).only();
        assert_eq!((decision.standing, decision.reason), (Standing::Withdrawn, Some(Reason::ProbeFailed)));
        decision.removal.unwrap()
    };
    assert!(matches!(out(made_dir(), &[]), Removal::Dir { root: false, .. }));
    assert!(matches!(out(made_dir(), &["a.crt"]), Removal::File { .. }));
    assert!(matches!(out(Hosts::Text(owned(Made::default())), &[]), Removal::File { .. }));
    assert!(matches!(out(spliced(admin), &[]), Removal::Change { new, .. } if new == admin.as_bytes()));
    let mut node = Node::hub().saying(failed());
    node.once_in.insert(registry("docker.io"));
    assert_eq!(node.idle(), (Standing::Withdrawn, Some(Reason::ProbeFailed)));
}

#[test]
fn bypass_is_withdrawn_always() {
    let node = Node::hub().saying(Verdict::Out(Reason::Bypass.because("set")));
    assert_eq!(node.idle(), (Standing::Withdrawn, Some(Reason::Bypass)));
}

#[test]
fn absent_takes_everything_out_and_puts_nothing_in() {
    assert_eq!(Node::hub().mode(InstallerMode::Absent).idle(), (Standing::Withdrawn, None));
    let node = Node::hub().with("docker.io", made_dir(), &[]).with("ghcr.io", made_dir(), &[]);
    let plan = node.mode(InstallerMode::Absent).plan();
    assert!(matches!(plan.decisions[0].removal, Some(Removal::Dir { .. })));
    assert!(matches!(&plan.strays[..], [Removal::Dir { dir, .. }] if dir == "ghcr.io"));
}

#[test]
fn registries_that_are_not_wanted_any_more_go() {
    let node = Node::hub().with("docker.io", made_dir(), &[]).with("ghcr.io", made_dir(), &[]);
    let plan = node.with("quay.io", text("server = \"https://quay.io\"\n"), &[]).plan();
    assert!(matches!(&plan.strays[..], [Removal::Dir { dir, .. }] if dir == "ghcr.io"));
}

#[test]
fn a_file_that_must_not_be_touched_is_not() {
    for (hosts, reason) in [
        (text("[host\n"), Reason::Unparsable),
        (text("host = {}\n"), Reason::InlineHosts),
        (text("# File generated by k3s. DO NOT EDIT.\n"), Reason::Generated),
        (text("server = \"https://corp\"\n"), Reason::OtherUpstream),
        (text("[host.\"http://127.0.0.1:19500\"]\n"), Reason::AlreadyListed),
        (Hosts::Untouchable(Reason::Symlink.because("a link")), Reason::Symlink),
        (Hosts::Untouchable(Reason::ForeignOwner.because("theirs")), Reason::ForeignOwner),
    ] {
        for verdict in [reachable(), failed(), Verdict::Unsure(None)] {
            let node = Node::hub().with("docker.io", hosts.clone(), &[]).saying(verdict);
            assert_eq!(node.idle(), (Standing::Refused, Some(reason)));
            assert!(!node.only().message.is_empty());
        }
    }
}

#[test]
fn a_file_that_turns_to_another_upstream_loses_our_block_one_that_breaks_does_not() {
    let Hosts::Text(good) = spliced("# c\n") else { panic!() };
    let turned = [&good, b"[host.\"https://corp\"]\n".as_slice()].concat();
    let decision = Node::hub().with("docker.io", Hosts::Text(turned), &[]).only();
    assert_eq!((decision.standing, decision.reason), (Standing::Refused, Some(Reason::OtherUpstream)));
    assert!(
        matches!(decision.removal, Some(Removal::Change { new, .. }) if new == b"# c\n[host.\"https://corp\"]\n")
    );
    let broken = [&good, b"[host\n".as_slice()].concat();
    let node = Node::hub().with("docker.io", Hosts::Text(broken), &[]);
    assert_eq!(node.idle(), (Standing::Refused, Some(Reason::Unparsable)));
}

#[test]
fn default_is_never_hidden() {
    let node = || Node::hub().with("_default", text("server = \"https://corp\"\n"), &[]);
    assert_eq!(node().idle(), (Standing::Refused, Some(Reason::DefaultShadowed)));
    // It came after us: our directory goes.
    let decision = node().with("docker.io", made_dir(), &[]).only();
    assert_eq!(decision.reason, Some(Reason::DefaultShadowed));
    assert!(matches!(decision.removal, Some(Removal::Dir { .. })));
    // A directory of the administrator's hides it already.
    assert!(node().with("docker.io", Hosts::Absent, &[]).only().install.is_some());
}

#[test]
fn a_second_root_is_never_hidden_and_a_first_one_not_ignored() {
    let other = |first: bool, name: &str| {
        let mut node = Node::new(&["registry.example:5000"]);
        node.seen.others =
            vec![Other { path: "/other".into(), first, names: Some([name.to_owned()].into()) }];
        node
    };
    for name in ["registry.example:5000", "registry.example_5000_", "_default"] {
        let mut node = other(false, name);
        assert_eq!(node.idle(), (Standing::Refused, Some(Reason::SecondRootShadowed)), "{name}");
        assert!(node.only().message.contains(&format!("/other/{name}")));
        node.ground.refusal = Some(Reason::TwoRoots.because("two"));
        assert_eq!(node.idle().1, Some(Reason::SecondRootShadowed));
        let node = node.with("registry.example:5000", Hosts::Absent, &[]);
        assert_eq!(node.idle().1, Some(Reason::TwoRoots));
        let first = other(true, name).with("registry.example:5000", Hosts::Absent, &[]);
        assert_eq!(first.idle(), (Standing::Refused, Some(Reason::SecondRootShadowed)));
    }
    assert!(other(false, "ghcr.io").only().install.is_some());
}

#[test]
fn a_config_that_makes_us_useless_refuses_all_and_takes_out() {
    for reason in [Reason::ConfigPathUnset, Reason::TwoRoots] {
        let mut node = Node::hub();
        node.ground.refusal = Some(reason.because("why"));
        assert_eq!(node.idle(), (Standing::Refused, Some(reason)));
        assert!(node.with("docker.io", made_dir(), &[]).only().removal.is_some());
    }
}

#[test]
fn a_fight_is_given_up() {
    let mut node = Node::hub();
    node.fought.insert(registry("docker.io"));
    assert_eq!(node.idle(), (Standing::Refused, Some(Reason::FightingWriter)));
}

#[test]
fn observe_writes_nothing_whatever_is_there() {
    let observe = |node: Node| node.mode(InstallerMode::Observe);
    assert_eq!(observe(Node::hub()).idle(), (Standing::Waiting, None));
    assert_eq!(observe(Node::hub().with("docker.io", made_dir(), &[])).idle(), (Standing::Installed, None));
    let theirs = || text("[host.\"http://127.0.0.1:19500/v2\"]\n");
    let k3s = || text("# File generated by k3s. DO NOT EDIT.\n[host.\"http://127.0.0.1:19500\"]\n");
    for (name, hosts) in [("docker.io", theirs()), ("docker.io", k3s()), ("_default", theirs())] {
        let node = observe(Node::hub().with(name, hosts, &[]));
        assert_eq!(node.idle(), (Standing::External, None));
        let node = node.saying(failed());
        assert_eq!(node.idle(), (Standing::External, Some(Reason::ProbeFailed)));
    }
    let hidden = Node::hub().with("_default", theirs(), &[]).with("docker.io", Hosts::Absent, &[]);
    assert_eq!(observe(hidden).idle(), (Standing::Waiting, None));
    let stray = observe(Node::hub().with("ghcr.io", made_dir(), &[]).saying(failed()));
    assert_eq!(stray.idle(), (Standing::Waiting, Some(Reason::ProbeFailed)));
}

/// The certificates that a file names at its root.
fn named(file: &[u8]) -> (usize, usize) {
    let table: toml::Table = std::str::from_utf8(file).unwrap().parse().unwrap();
    let count = |key: &str| table.get(key).map_or(0, |value| value.as_array().unwrap().len());
    (count("ca"), count("client"))
}

#[test]
fn what_an_administrator_names_themselves_is_not_named_twice() {
    let names = ["a.crt", "c.cert", "c.key"];
    let Some(Install::NewFile { file, .. }) =
        Node::hub().with("docker.io", Hosts::Absent, &names).only().install
    else {
        panic!()
    };
    let theirs = b"ca = [\"x.crt\", \"y.crt\", \"z.crt\"]\n";
    let file = [theirs.as_slice(), &file].concat();
    let node = Node::hub().with("docker.io", Hosts::Text(file), &names);
    let Some(Install::Change { new, .. }) = node.only().install else { panic!("{:?}", node.only()) };
    assert_eq!(named(&new), (3, 1));
    let node = Node::hub().with("docker.io", Hosts::Text(new), &names);
    assert_eq!(node.idle(), (Standing::Installed, None));
    let Some(Removal::Change { new, .. }) = node.saying(failed()).only().removal else { panic!() };
    assert_eq!(named(&new), (3, 1));
}

#[test]
fn an_entry_that_names_a_vanished_certificate_goes_at_once() {
    let there = Node::hub().with("docker.io", Hosts::Absent, &["a.crt"]);
    let Some(Install::NewFile { file, .. }) = there.only().install else { panic!() };
    let node = || Node::hub().with("docker.io", Hosts::Text(file.clone()), &["b.crt"]);
    assert!(node().only().install.is_some());
    let (mut recent, mut fought) = (node(), node());
    recent.recent.insert(registry("docker.io"));
    fought.fought.insert(registry("docker.io"));
    for node in [recent, fought, node().saying(Verdict::Unsure(None))] {
        let decision = node.only();
        assert_eq!((decision.standing, decision.reason), (Standing::Withdrawn, None));
        assert_eq!(decision.message, "a certificate that our entry names changed");
        assert!(matches!(decision.removal, Some(Removal::File { .. })));
    }
    let mut added = Node::hub().with("docker.io", Hosts::Text(file), &["a.crt", "b.crt"]);
    added.recent.insert(registry("docker.io"));
    assert_eq!(added.idle(), (Standing::Installed, None));
}

#[test]
fn a_file_that_broke_around_our_block_loses_it_with_the_agent() {
    let Hosts::Text(good) = spliced("# c\n") else { panic!() };
    let broken = [&good, b"[host\n".as_slice()].concat();
    let decision = Node::hub().with("docker.io", Hosts::Text(broken), &[]).saying(failed()).only();
    assert_eq!(decision.reason, Some(Reason::Unparsable));
    assert!(matches!(decision.removal, Some(Removal::Change { new, .. }) if new == b"# c\n[host\n"));
}

#[test]
fn nothing_new_is_made_beside_a_root_that_cannot_be_seen() {
    let mut node = Node::hub();
    node.seen.others = vec![Other { path: "/other".into(), first: false, names: None }];
    assert_eq!(node.idle(), (Standing::Refused, Some(Reason::SecondRootShadowed)));
    assert_eq!(node.only().message, "/other cannot be read from here; mount it read-only");
    assert!(node.with("docker.io", Hosts::Absent, &[]).only().install.is_some());
}
