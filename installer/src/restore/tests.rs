//! Out again: nothing of ours is left, everything else is as it was.

use super::*;
use crate::entry::{Certificates, Entry, Made};
use larder_wire::settings::Capability;
use std::os::unix::fs::symlink;

fn owned(made: Made) -> Vec<u8> {
    let capabilities = &[Capability::Pull];
    Entry { mirror: ([127, 0, 0, 1], 19500).into(), capabilities, certificates: Certificates::default() }
        .file(made)
}

const MADE: Made = Made { dir: true, root: false };

struct Certs {
    dir: tempfile::TempDir,
}

impl Certs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("certs.d")).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("certs.d")
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Every path below certs.d.
    fn all(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(root).unwrap().display().to_string());
                if path.is_dir() && !path.is_symlink() {
                    walk(&path, root, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path(), &self.path(), &mut found);
        found.sort();
        found
    }

    fn withdraw(&self) -> Vec<(PathBuf, String)> {
        withdraw_all(&self.path())
    }
}

#[test]
fn a_directory_that_we_made_goes_one_that_was_there_stays() {
    let certs = Certs::new();
    certs.write("docker.io/hosts.toml", &owned(MADE));
    certs.write("ghcr.io/hosts.toml", &owned(Made::default()));
    certs.write("quay.io/hosts.toml", &owned(MADE));
    certs.write("quay.io/later.crt", b"theirs");
    certs.write("gcr.io/hosts.toml", b"# theirs\n");
    assert_eq!(certs.withdraw(), []);
    assert_eq!(certs.all(), ["gcr.io", "gcr.io/hosts.toml", "ghcr.io", "quay.io", "quay.io/later.crt"]);
    assert_eq!(certs.withdraw(), []);
}

#[test]
fn certs_d_itself_goes_if_we_made_it_and_nothing_else_is_in_it() {
    let root = Made { dir: true, root: true };
    let certs = Certs::new();
    certs.write("docker.io/hosts.toml", &owned(root));
    certs.write("ghcr.io/hosts.toml", &owned(root));
    certs.write("quay.io/hosts.toml", b"# theirs\n");
    assert_eq!(certs.withdraw(), []);
    assert_eq!(certs.all(), ["quay.io", "quay.io/hosts.toml"]);
    fs::remove_dir_all(certs.path().join("quay.io")).unwrap();
    certs.write("docker.io/hosts.toml", &owned(root));
    assert_eq!(certs.withdraw(), []);
    assert!(!certs.path().exists());
    assert_eq!(certs.withdraw(), []);
}

#[test]
fn an_entry_is_out_though_certs_d_itself_stays() {
    let certs = Certs::new();
    certs.write("docker.io/hosts.toml", &owned(Made { dir: true, root: true }));
    // A link is no directory to remove.
    let link = certs.dir.path().join("link");
    symlink(certs.path(), &link).unwrap();
    let seen = look(&link, &[]).unwrap();
    assert_eq!(remove(&seen, &plan::removals(&seen)[0]).unwrap(), Done::Written);
    assert!(link.exists() && certs.all().is_empty());
}

#[test]
fn what_somebody_added_to_an_owned_file_stays() {
    let certs = Certs::new();
    certs.write("docker.io/hosts.toml", &[owned(MADE).as_slice(), b"# theirs\n"].concat());
    assert_eq!(certs.withdraw(), []);
    assert_eq!(fs::read(certs.path().join("docker.io/hosts.toml")).unwrap(), b"# theirs\n");
}

#[test]
fn a_directory_that_changed_since_we_looked_keeps_its_name_and_content() {
    let certs = Certs::new();
    certs.write("docker.io/hosts.toml", &owned(MADE));
    let seen = look(&certs.path(), &[]).unwrap();
    let removal = plan::removals(&seen).remove(0);
    certs.write("docker.io/a.crt", b"theirs");
    assert_eq!(remove(&seen, &removal).unwrap(), Done::Lost);
    assert_eq!(certs.all(), ["docker.io", "docker.io/a.crt", "docker.io/hosts.toml"]);
    certs.write("docker.io/hosts.toml", b"# theirs\n");
    assert_eq!(remove(&seen, &removal).unwrap(), Done::Lost);
    assert_eq!(fs::read(certs.path().join("docker.io/hosts.toml")).unwrap(), b"# theirs\n");
    fs::remove_dir_all(certs.path().join("docker.io")).unwrap();
    assert_eq!(remove(&seen, &removal).unwrap(), Done::Lost);
}

#[test]
fn what_a_crash_left_is_cleared_up() {
    let certs = Certs::new();
    certs.write(".larder-new.0123/hosts.toml", b"half");
    certs.write(".larder-new.4567/x", b"");
    fs::remove_file(certs.path().join(".larder-new.4567/x")).unwrap();
    certs.write(".larder-trash.docker.io.0123/hosts.toml", &owned(MADE));
    certs.write(".larder-trash.ghcr.io.0123/hosts.toml", &owned(MADE));
    certs.write(".larder-trash.ghcr.io.0123/a.crt", b"theirs");
    certs.write(".larder-trash.quay.io.0123/hosts.toml", b"# theirs\n");
    fs::create_dir(certs.path().join(".larder-trash.gcr.io.0123")).unwrap();
    tidy(&certs.path()).unwrap();
    let expected = ["ghcr.io", "ghcr.io/a.crt", "ghcr.io/hosts.toml", "quay.io", "quay.io/hosts.toml"];
    assert_eq!(certs.all(), expected);
}

#[test]
fn what_cannot_be_taken_out_is_named() {
    let certs = Certs::new();
    fs::create_dir(certs.path().join("docker.io")).unwrap();
    fs::write(certs.dir.path().join("elsewhere"), owned(MADE)).unwrap();
    symlink("../../elsewhere", certs.path().join("docker.io/hosts.toml")).unwrap();
    certs.write("quay.io/hosts.toml", b"# theirs, newer\n");
    certs.write(".larder-trash.quay.io.0123/hosts.toml", b"# theirs\n");
    let left = certs.withdraw();
    let paths: Vec<_> =
        left.iter().map(|(path, _)| path.strip_prefix(certs.path()).unwrap().to_owned()).collect();
    assert_eq!(paths, [Path::new("docker.io/hosts.toml"), Path::new(".larder-trash.quay.io.0123")]);
    assert!(left[0].1.contains("symbolic link"));
}

#[test]
fn one_that_cannot_be_read_keeps_no_other_in() {
    let certs = Certs::new();
    certs.write("quay.io/hosts.toml", &owned(MADE));
    fs::create_dir(certs.path().join("docker.io")).unwrap();
    let socket = certs.path().join("docker.io/hosts.toml");
    let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let left = certs.withdraw();
    assert_eq!(left.iter().map(|(path, _)| path).collect::<Vec<_>>(), [&socket]);
    assert_eq!(certs.all(), ["docker.io", "docker.io/hosts.toml"]);
}

#[test]
fn a_directory_with_a_name_that_is_no_text_keeps_its_name() {
    let certs = Certs::new();
    certs.write("docker.io/hosts.toml", &owned(MADE));
    let seen = look(&certs.path(), &[]).unwrap();
    let removal = plan::removals(&seen).remove(0);
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.crt");
    fs::write(certs.path().join("docker.io").join(name), "theirs").unwrap();
    assert_eq!(remove(&seen, &removal).unwrap(), Done::Lost);
    assert!(certs.path().join("docker.io").join(name).exists());
}

#[test]
fn a_directory_whose_file_became_unreadable_keeps_its_name() {
    let certs = Certs::new();
    certs.write("docker.io/hosts.toml", &owned(MADE));
    let seen = look(&certs.path(), &[]).unwrap();
    let removal = plan::removals(&seen).remove(0);
    fs::remove_file(certs.path().join("docker.io/hosts.toml")).unwrap();
    symlink("theirs", certs.path().join("docker.io/hosts.toml")).unwrap();
    assert_eq!(remove(&seen, &removal).unwrap(), Done::Lost);
    assert_eq!(certs.all(), ["docker.io", "docker.io/hosts.toml"]);
}
