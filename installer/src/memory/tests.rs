//! What is remembered: pauses between writes, undoings, addresses.

use super::*;
use crate::tree::look;
use larder_wire::settings::UpstreamSettings;
use std::fs;
use std::path::{Path, PathBuf};

fn good(port: u16) -> Outcome {
    Outcome::Good(([127, 0, 0, 1], port).into())
}

/// A certs.d, a well agent, and rounds at chosen moments.
struct Node {
    dir: tempfile::TempDir,
    settings: Settings,
    memory: Memory,
    start: Instant,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            upstreams: vec![UpstreamSettings::new("docker.io".parse().unwrap())],
            ..Settings::default()
        };
        settings.installer.certs_dir = dir.path().join("certs.d");
        let mut node = Self { dir, settings, memory: Memory::new(), start: Instant::now() };
        let now = node.start;
        let _ = [node.memory.judge(good(1), now), node.memory.judge(good(1), now)];
        node
    }

    /// A round so many seconds after the start.
    fn round(&mut self, seconds: u64) -> RegistryState {
        self.round_with(seconds, good(1))
    }

    fn round_with(&mut self, seconds: u64, outcome: Outcome) -> RegistryState {
        let now = self.start + Duration::from_secs(seconds);
        let verdict = self.memory.judge(outcome, now);
        let certs = &self.settings.installer.certs_dir;
        let ground = Ground { roots: vec![certs.clone()], refusal: None, note: String::new() };
        let seen = look(certs, &ground.roots).unwrap();
        let book = &mut self.memory.book;
        book.notice(&self.settings, &seen, now);
        let known = Known { mirror: Some(([127, 0, 0, 1], 1).into()), ..book.known(&ground, &verdict) };
        let plan = plan::plan(&self.settings, &seen, &known);
        book.carry_out(plan, &seen, &verdict, now).registries.remove(0)
    }

    fn hosts(&self) -> PathBuf {
        self.dir.path().join("certs.d/docker.io/hosts.toml")
    }

    fn take_out(&self) {
        fs::remove_dir_all(self.hosts().parent().unwrap()).unwrap();
    }
}

fn is(state: &RegistryState, standing: Standing, reason: &str) {
    assert_eq!(
        (state.state.as_str(), state.reason.as_str()),
        (standing.as_str(), reason),
        "{}",
        state.message
    );
}

#[test]
fn what_somebody_took_out_comes_back_after_30_seconds_and_a_second_time_is_a_fight() {
    let mut node = Node::new();
    is(&node.round(1), Standing::Installed, "");
    node.take_out();
    is(&node.round(4), Standing::Waiting, "");
    is(&node.round(30), Standing::Waiting, "");
    is(&node.round(31), Standing::Installed, "");
    assert!(node.hosts().exists());
    node.take_out();
    is(&node.round(70), Standing::Refused, "FightingWriter");
    is(&node.round(700), Standing::Refused, "FightingWriter");
    assert!(!node.hosts().exists());
}

#[test]
fn undoings_far_apart_are_no_fight() {
    let mut node = Node::new();
    is(&node.round(1), Standing::Installed, "");
    node.take_out();
    is(&node.round(40), Standing::Installed, "");
    node.take_out();
    is(&node.round(641), Standing::Installed, "");
}

#[test]
fn our_own_removal_is_no_fight() {
    let mut node = Node::new();
    let bypass = || Outcome::Bad(crate::state::Reason::Bypass.because("set"));
    for minute in 0..3 {
        node.round(minute * 60);
        is(&node.round_with(minute * 60 + 1, bypass()), Standing::Withdrawn, "Bypass");
        is(&node.round(minute * 60 + 2), Standing::Withdrawn, "Bypass");
        is(&node.round(minute * 60 + 40), Standing::Installed, "");
    }
}

#[test]
fn an_edit_around_our_block_is_no_undoing() {
    let mut node = Node::new();
    fs::create_dir_all(node.hosts().parent().unwrap()).unwrap();
    fs::write(node.hosts(), "# theirs\n").unwrap();
    for second in 1..5 {
        is(&node.round(second), Standing::Installed, "");
        let text = fs::read_to_string(node.hosts()).unwrap();
        fs::write(node.hosts(), format!("# more\n{text}")).unwrap();
    }
}

#[test]
fn another_address_starts_the_probes_anew() {
    let mut memory = Memory::new();
    let now = Instant::now();
    for _ in 0..2 {
        assert_eq!(memory.judge(good(1), now), Verdict::Unsure(None));
    }
    assert!(matches!(memory.judge(good(1), now), Verdict::In(_)));
    assert_eq!(memory.judge(good(2), now), Verdict::Unsure(None));
}

#[test]
fn a_write_that_fails_is_told() {
    let mut node = Node::new();
    node.settings.installer.certs_dir = Path::new("/proc/certs.d").to_owned();
    let state = node.round(1);
    is(&state, Standing::Waiting, "");
    assert!(state.message.starts_with("cannot write to /proc/certs.d: "), "{}", state.message);
}

#[test]
fn a_removal_that_fails_keeps_its_reason() {
    let mut node = Node::new();
    node.round(1);
    let seen = look(&node.settings.installer.certs_dir, &[]).unwrap();
    let removal = plan::removals(&seen).remove(0);
    let decision = Decision {
        registry: "docker.io".parse().unwrap(),
        install: None,
        removal: Some(removal),
        standing: Standing::Withdrawn,
        reason: Some(crate::state::Reason::Bypass),
        message: "set".to_owned(),
    };
    // Somebody else wrote since we looked.
    fs::write(node.hosts(), "# theirs\n").unwrap();
    let plan = Plan { decisions: vec![decision], strays: Vec::new() };
    let state = node.memory.book.carry_out(plan, &seen, &Verdict::Unsure(None), node.start);
    is(&state.registries[0], Standing::Installed, "Bypass");
    assert!(state.registries[0].message.starts_with("set; our entry is to go: "));
}

#[test]
fn what_cannot_be_read_is_no_undoing() {
    let mut node = Node::new();
    fs::create_dir_all(node.hosts().parent().unwrap()).unwrap();
    is(&node.round(1), Standing::Installed, "");
    let aside = node.dir.path().join("aside");
    for second in [2, 6, 10] {
        fs::rename(node.hosts(), &aside).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(node.hosts()).unwrap();
        is(&node.round(second), Standing::Refused, "Unparsable");
        drop(socket);
        fs::rename(&aside, node.hosts()).unwrap();
        is(&node.round(second + 1), Standing::Installed, "");
    }
}
