//! What is seen of a directory, and what is not to be touched.

use super::*;
use std::os::unix::fs::{chown, symlink};

fn certs_d() -> tempfile::TempDir {
    let certs = tempfile::tempdir().unwrap();
    fs::create_dir(certs.path().join("docker.io")).unwrap();
    certs
}

fn hosts_of(certs: &tempfile::TempDir) -> Hosts {
    look(certs.path(), &[]).unwrap().dirs["docker.io"].hosts.clone()
}

fn reason(hosts: &Hosts) -> Reason {
    let Hosts::Untouchable(told) = hosts else { panic!("{hosts:?}") };
    assert!(told.words.contains("docker.io"), "{}", told.words);
    told.reason
}

#[test]
fn files_and_names_are_seen_but_for_our_passing_ones() {
    let certs = certs_d();
    let dir = certs.path().join("docker.io");
    assert_eq!(hosts_of(&certs), Hosts::Absent);
    for name in ["hosts.toml", "a.crt", ".hosts.toml.larder.a-b.c"] {
        fs::write(dir.join(name), name).unwrap();
    }
    fs::create_dir(certs.path().join(".larder-new.x")).unwrap();
    fs::write(certs.path().join("quay.io"), "").unwrap();
    let seen = look(certs.path(), &[]).unwrap();
    assert_eq!(seen.dirs.keys().collect::<Vec<_>>(), ["docker.io", "quay.io"]);
    assert!(
        matches!(&seen.dirs["quay.io"].hosts, Hosts::Untouchable(told) if told.words.contains("no directory"))
    );
    assert_eq!(seen.dirs["docker.io"].hosts, Hosts::Text(b"hosts.toml".to_vec()));
    assert_eq!(seen.dirs["docker.io"].names, ["a.crt".to_owned()].into());
}

#[test]
fn a_directory_with_the_name_of_a_certificate_is_none() {
    let certs = certs_d();
    let dir = certs.path().join("docker.io");
    fs::create_dir(dir.join("a.crt")).unwrap();
    fs::write(dir.join("b.crt"), "").unwrap();
    symlink("b.crt", dir.join("c.crt")).unwrap();
    let seen = look(certs.path(), &[]).unwrap();
    let seen = &seen.dirs["docker.io"];
    assert_eq!(seen.names, ["a.crt", "b.crt", "c.crt"].map(str::to_owned).into());
    assert_eq!(seen.files, ["b.crt", "c.crt"].map(str::to_owned).into());
}

#[test]
fn links_are_not_followed() {
    let certs = certs_d();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), certs.path().join("ghcr.io")).unwrap();
    symlink("/etc/hostname", certs.path().join("docker.io/hosts.toml")).unwrap();
    let seen = look(certs.path(), &[]).unwrap();
    assert_eq!(reason(&seen.dirs["docker.io"].hosts), Reason::Symlink);
    assert!(
        matches!(&seen.dirs["ghcr.io"].hosts, Hosts::Untouchable(told) if told.reason == Reason::Symlink)
    );
}

#[test]
fn other_owners_are_told() {
    if !nix::unistd::geteuid().is_root() {
        println!("not root: skipped, only root can give a file away");
        return;
    }
    let certs = certs_d();
    let file = certs.path().join("docker.io/hosts.toml");
    fs::write(&file, "").unwrap();
    chown(&file, Some(12345), None).unwrap();
    assert_eq!(reason(&hosts_of(&certs)), Reason::ForeignOwner);
    chown(&file, Some(0), None).unwrap();
    assert_eq!(hosts_of(&certs), Hosts::Text(Vec::new()));
    chown(certs.path().join("docker.io"), Some(12345), None).unwrap();
    assert_eq!(reason(&hosts_of(&certs)), Reason::ForeignOwner);
}

#[test]
fn what_is_no_small_regular_file_is_not_read() {
    let certs = certs_d();
    let file = certs.path().join("docker.io/hosts.toml");
    fs::create_dir(&file).unwrap();
    assert_eq!(reason(&hosts_of(&certs)), Reason::Unparsable);
    fs::remove_dir(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(reason(&hosts_of(&certs)), Reason::Unparsable);
    fs::remove_file(&file).unwrap();
    File::create(&file).unwrap().set_len(LONGEST + 1).unwrap();
    assert_eq!(reason(&hosts_of(&certs)), Reason::Unparsable);
}

#[test]
fn other_roots_are_seen_with_their_order() {
    let (first, ours, last) = (certs_d(), certs_d(), certs_d());
    let roots: Vec<PathBuf> = [&first, &ours, &last].map(|dir| dir.path().to_owned()).into();
    let seen = look(ours.path(), &roots).unwrap();
    let others: Vec<_> = seen
        .others
        .iter()
        .map(|other| (other.path.clone(), other.first, other.names.as_ref().unwrap().len()))
        .collect();
    assert_eq!(others, [(roots[0].clone(), true, 1), (roots[2].clone(), false, 1)]);
    let gone = look(ours.path(), &["/nowhere".into(), roots[1].clone()]).unwrap();
    assert!(gone.others.is_empty());
}

#[test]
fn what_cannot_be_read_hides_nothing_else() {
    let certs = certs_d();
    fs::create_dir(certs.path().join("quay.io")).unwrap();
    fs::write(certs.path().join("quay.io/hosts.toml"), "text").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(certs.path().join("docker.io/hosts.toml")).unwrap();
    let seen = look(certs.path(), &[]).unwrap();
    assert!(
        matches!(&seen.dirs["docker.io"].hosts, Hosts::Unreadable(told) if told.reason == Reason::Unparsable)
    );
    assert_eq!(seen.dirs["quay.io"].hosts, Hosts::Text(b"text".to_vec()));
    let denied = Hosts::unreadable(Path::new("/certs.d/quay.io"), &io::ErrorKind::PermissionDenied.into());
    assert!(matches!(denied, Hosts::Unreadable(told) if told.reason == Reason::ForeignOwner));
}

#[test]
fn a_root_that_cannot_be_seen_is_no_empty_one() {
    let ours = certs_d();
    let file = ours.path().join("file");
    fs::write(&file, "").unwrap();
    let seen = look(ours.path(), &[ours.path().to_owned(), file.clone()]).unwrap();
    assert_eq!(seen.others, [Other { path: file, first: false, names: None }]);
    assert!(is_mount(Path::new("/proc")) && !is_mount(ours.path()));
}

#[test]
fn a_name_that_is_no_text_is_seen_all_the_same() {
    let certs = certs_d();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.crt");
    fs::write(certs.path().join("docker.io").join(name), "").unwrap();
    assert_eq!(look(certs.path(), &[]).unwrap().dirs["docker.io"].names.len(), 1);
}
