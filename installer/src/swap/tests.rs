//! Old or new, never between; and what somebody else wrote is there in the end, whenever they wrote it.

use super::*;
use crate::tree::open_dir;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(hosts: Option<&str>) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        if let Some(hosts) = hosts {
            fs::write(place.hosts(), hosts).unwrap();
        }
        place
    }

    fn fd(&self) -> OwnedFd {
        let root =
            rustix::fs::open(self.dir.path().parent().unwrap(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        open_dir(&root, self.dir.path().file_name().unwrap().to_str().unwrap()).unwrap()
    }

    fn hosts(&self) -> PathBuf {
        self.dir.path().join(HOSTS)
    }

    fn temp(&self, old: &str, new: &str, holds: &str) {
        fs::write(self.dir.path().join(temp_name(old, new)), holds).unwrap();
    }

    /// What hosts.toml says, and that nothing else is left.
    fn left(&self) -> Option<String> {
        let there = fs::read_dir(self.dir.path()).unwrap().count();
        let hosts = fs::read_to_string(self.hosts()).ok();
        assert_eq!(there, usize::from(hosts.is_some()), "something else is left");
        hosts
    }
}

fn hash(text: &str) -> String {
    short_digest(text.as_bytes())
}

#[test]
fn a_new_file_is_for_everyone_to_read() {
    let place = Place::new(None);
    assert_eq!(create(&place.fd(), b"new").unwrap(), Done::Written);
    assert_eq!(fs::metadata(place.hosts()).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(place.left().as_deref(), Some("new"));
}

#[test]
fn a_file_that_came_meanwhile_is_left_alone() {
    let place = Place::new(Some("theirs"));
    assert_eq!(create(&place.fd(), b"new").unwrap(), Done::Lost);
    assert_eq!(place.left().as_deref(), Some("theirs"));
}

#[test]
fn a_changed_file_keeps_mode_and_owner() {
    let place = Place::new(Some("old"));
    fs::set_permissions(place.hosts(), fs::Permissions::from_mode(0o640)).unwrap();
    let root = nix::unistd::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(place.hosts(), None, Some(12345)).unwrap();
    }
    assert_eq!(exchange(&place.fd(), b"old", b"new").unwrap(), Done::Written);
    let meta = fs::metadata(place.hosts()).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.gid() == 12345), (0o640, root));
    assert_eq!(place.left().as_deref(), Some("new"));
}

#[test]
fn what_changed_since_we_looked_is_not_overwritten() {
    for there in [Some("theirs"), None] {
        let place = Place::new(there);
        assert_eq!(exchange(&place.fd(), b"old", b"new").unwrap(), Done::Lost);
        assert_eq!(take_away(&place.fd(), b"old").unwrap(), Done::Lost);
        assert_eq!(place.left().as_deref(), there);
    }
}

#[test]
fn what_came_out_of_an_exchange_goes_back_if_it_is_not_what_was_read() {
    let place = Place::new(Some("new"));
    let fd = place.fd();
    fs::write(place.dir.path().join("temp"), "theirs").unwrap();
    assert_eq!(settle(&fd, "temp", b"old", b"new").unwrap(), Done::Lost);
    assert_eq!(fs::read_to_string(place.hosts()).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(place.dir.path().join("temp")).unwrap(), "new");
}

#[test]
fn the_newest_of_two_others_stays() {
    // hosts.toml was written once more, on top of ours, before we put the first one back.
    let place = Place::new(Some("newer"));
    fs::write(place.dir.path().join("temp"), "theirs").unwrap();
    assert_eq!(settle(&place.fd(), "temp", b"old", b"new").unwrap(), Done::Lost);
    assert_eq!(fs::read_to_string(place.hosts()).unwrap(), "newer");
}

#[test]
fn another_writer_never_loses_its_last_word() {
    let place = Place::new(Some("0"));
    let fd = place.fd();
    let hosts = place.hosts();
    let writer = std::thread::spawn(move || {
        for turn in 1..=500 {
            let temp = hosts.with_extension("theirs");
            fs::write(&temp, turn.to_string()).unwrap();
            fs::rename(&temp, &hosts).unwrap();
        }
    });
    while !writer.is_finished() {
        let there = fs::read(place.hosts()).unwrap();
        if !there.starts_with(b"ours") {
            let _ = exchange(&fd, &there, &[b"ours ", &*there].concat()).unwrap();
        }
    }
    writer.join().unwrap();
    let last = place.left().unwrap();
    assert!(["500", "ours 500"].contains(&&*last), "{last}");
}

#[test]
fn a_file_of_ours_is_taken_away() {
    let place = Place::new(Some("ours"));
    assert_eq!(take_away(&place.fd(), b"ours").unwrap(), Done::Written);
    assert_eq!(place.left(), None);
}

/// Every state that a kill can leave, step by step, and what must be there after tidying up.
#[test]
fn a_crash_at_any_step_leaves_old_or_new() {
    let (old, new, none) = (hash("old"), hash("new text"), NONE.to_owned());
    let cases = [
        ("exchange: temp begun", Some("old"), &old, &new, "new", Some("old")),
        ("exchange: temp written", Some("old"), &old, &new, "new text", Some("old")),
        ("exchange: done, old in temp", Some("new text"), &old, &new, "old", Some("new text")),
        ("exchange: done, theirs in temp", Some("new text"), &old, &new, "theirs", Some("theirs")),
        ("exchange: put back", Some("theirs"), &old, &new, "new text", Some("theirs")),
        ("exchange: done, hosts.toml taken away since", None, &old, &new, "old", None),
        ("create: temp begun", None, &none, &new, "new", None),
        ("create: temp written", None, &none, &new, "new text", None),
        ("create: theirs came", Some("theirs"), &none, &new, "new text", Some("theirs")),
        ("take away: moved", None, &old, &none, "old", None),
        ("take away: moved theirs", None, &old, &none, "theirs", Some("theirs")),
        ("take away: moved theirs, a newer came", Some("newer"), &old, &none, "theirs", Some("newer")),
    ];
    for (step, hosts, old, new, temp, after) in cases {
        let place = Place::new(hosts);
        place.temp(old, new, temp);
        tidy(&place.fd()).unwrap();
        assert_eq!(place.left().as_deref(), after, "{step}");
        tidy(&place.fd()).unwrap();
    }
}

#[test]
fn names_that_are_not_quite_ours_are_left() {
    let place = Place::new(None);
    let odd = place.dir.path().join(".hosts.toml.larder.backup");
    fs::write(&odd, "theirs").unwrap();
    tidy(&place.fd()).unwrap();
    assert!(odd.exists());
}

/// A link is what we never read.
fn unreadable(path: &std::path::Path) {
    std::os::unix::fs::symlink("theirs", path).unwrap();
}

fn is_theirs(path: &std::path::Path) -> bool {
    fs::read_link(path).is_ok_and(|to| to.as_os_str() == "theirs")
}

#[test]
fn what_came_out_unreadable_goes_back() {
    let place = Place::new(Some("new"));
    let temp = place.dir.path().join("temp");
    unreadable(&temp);
    assert_eq!(settle(&place.fd(), "temp", b"old", b"new").unwrap(), Done::Lost);
    assert!(is_theirs(&place.hosts()));
    assert_eq!(fs::read_to_string(temp).unwrap(), "new");

    let place = Place::new(None);
    unreadable(&place.hosts());
    assert_eq!(take_away(&place.fd(), b"old").unwrap(), Done::Lost);
    assert!(is_theirs(&place.hosts()));
}

#[test]
fn an_unreadable_leftover_goes_back_or_stays() {
    let (old, new) = (hash("old"), hash("new"));
    let cases = [
        (None, NONE.to_owned(), true),
        (None, new.clone(), true),
        (Some("new"), new, true),
        (Some("newer"), NONE.to_owned(), false),
    ];
    for (hosts, new, back) in cases {
        let place = Place::new(hosts);
        let temp = place.dir.path().join(temp_name(&old, &new));
        unreadable(&temp);
        tidy(&place.fd()).unwrap();
        assert_eq!((is_theirs(&place.hosts()), is_theirs(&temp)), (back, !back), "{hosts:?}");
        assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), if back { 1 } else { 2 });
    }
}
