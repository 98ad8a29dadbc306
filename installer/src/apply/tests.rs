//! Entries on a real directory: in, changed, and lost to somebody else.

use super::*;
use crate::probe::{Health, Outcome, Verdict};
use crate::tree::look;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

fn proof() -> Reachable {
    let (mut health, now) = (Health::new(), Instant::now());
    let good = || Outcome::Good(([127, 0, 0, 1], 19500).into());
    let _ = [health.judge(good(), now), health.judge(good(), now)];
    let Verdict::In(reachable) = health.judge(good(), now) else { panic!() };
    reachable
}

fn names(path: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_appears_with_its_file_and_certs_d_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs.d");
    let seen = look(&certs, &[]).unwrap();
    assert!(!seen.exists);
    let new = Install::NewDir { dir: "docker.io".into(), file: b"file".to_vec() };
    assert_eq!(install(&seen, &new, &proof()).unwrap(), Done::Written);
    assert_eq!(names(&certs), ["docker.io"]);
    assert_eq!(fs::read(certs.join("docker.io/hosts.toml")).unwrap(), b"file");
    assert_eq!(fs::metadata(certs.join("docker.io")).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_directory_that_came_meanwhile_is_left_alone() {
    let certs = tempfile::tempdir().unwrap();
    let seen = look(certs.path(), &[]).unwrap();
    fs::create_dir(certs.path().join("docker.io")).unwrap();
    let new = Install::NewDir { dir: "docker.io".into(), file: b"file".to_vec() };
    assert_eq!(install(&seen, &new, &proof()).unwrap(), Done::Lost);
    assert_eq!(names(certs.path()), ["docker.io"]);
    assert!(names(&certs.path().join("docker.io")).is_empty());
}

#[test]
fn a_missing_parent_is_an_error_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let seen = look(&dir.path().join("no/certs.d"), &[]).unwrap();
    let new = Install::NewDir { dir: "docker.io".into(), file: Vec::new() };
    assert!(install(&seen, &new, &proof()).is_err());
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_directory_that_turned_into_a_link_is_not_followed() {
    let certs = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(certs.path().join("docker.io")).unwrap();
    let seen = look(certs.path(), &[]).unwrap();
    fs::remove_dir(certs.path().join("docker.io")).unwrap();
    symlink(outside.path(), certs.path().join("docker.io")).unwrap();
    let new = Install::NewFile { dir: "docker.io".into(), file: b"file".to_vec() };
    assert_eq!(install(&seen, &new, &proof()).unwrap(), Done::Lost);
    fs::write(outside.path().join("hosts.toml"), "old").unwrap();
    let change = Install::Change { dir: "docker.io".into(), old: b"old".to_vec(), new: b"new".to_vec() };
    assert_eq!(install(&seen, &change, &proof()).unwrap(), Done::Lost);
    assert_eq!(fs::read(outside.path().join("hosts.toml")).unwrap(), b"old");
}

#[test]
fn an_old_proof_is_good_for_nothing() {
    let certs = tempfile::tempdir().unwrap();
    let seen = look(certs.path(), &[]).unwrap();
    let new = Install::NewDir { dir: "docker.io".into(), file: b"file".to_vec() };
    let then = Instant::now().checked_sub(std::time::Duration::from_secs(4)).unwrap();
    let mut health = Health::new();
    let good = || Outcome::Good(([127, 0, 0, 1], 19500).into());
    let _ = [health.judge(good(), then), health.judge(good(), then)];
    let Verdict::In(old) = health.judge(good(), then) else { panic!() };
    assert_eq!(install(&seen, &new, &old).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(names(certs.path()).is_empty());
}
