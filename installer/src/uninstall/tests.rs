//! Uninstalling without an installer around.

use super::*;
use std::fs;

#[test]
fn nothing_there_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings { run_dir: dir.path().join("run"), ..Settings::default() };
    settings.installer.certs_dir = dir.path().join("certs.d");
    assert_eq!(uninstall(&settings).unwrap(), Uninstalled::Clean);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_left_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings { run_dir: dir.path().to_owned(), ..Settings::default() };
    settings.installer.certs_dir = dir.path().join("certs.d");
    let trash = settings.installer.certs_dir.join(".larder-trash.quay.io.0");
    fs::create_dir_all(&trash).unwrap();
    fs::write(trash.join("hosts.toml"), "# theirs\n").unwrap();
    fs::create_dir(settings.installer.certs_dir.join("quay.io")).unwrap();
    let Uninstalled::Left(left) = uninstall(&settings).unwrap() else { panic!() };
    assert_eq!(left[0].0, trash);
}

#[test]
fn mistakes_that_say_where_we_are_not_are_no_reason_to_leave_entries() {
    let relies = |text: &str| names_certs_dir(&larder_wire::settings::parse(text));
    assert!(relies("[cache]\nttl = 1\n[installer]\ncerts_dir = \"/c\"\n"));
    for text in ["[installer]\ncerts_dir = 1\n", "run_dir = 1\n", "[installer\n", "installer = 1\n"] {
        assert!(!relies(text), "{text}");
    }
}
