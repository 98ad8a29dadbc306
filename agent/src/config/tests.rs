//! What an agent starts with and what a change gives, with files in real directories.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

/// A settings file with a data_dir beside it.
struct Place {
    dir: TempDir,
    file: PathBuf,
    data_dir: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, data_dir) = (dir.path().join("larder.toml"), dir.path().join("data"));
        fs::create_dir(&data_dir).unwrap();
        Self { dir, file, data_dir }
    }

    fn write(&self, rest: &str) -> String {
        let text = format!("data_dir = {:?}\n{rest}", self.data_dir);
        fs::write(&self.file, &text).unwrap();
        text
    }
}

#[test]
fn without_a_file_the_usual_registries_are_served() {
    let loaded = at_start(None).unwrap();
    assert_eq!(loaded.settings, Settings::without_file());
    assert_eq!((loaded.text, loaded.remarks.len()), (None, 0));
}

#[test]
fn running_is_kinder_than_checking() {
    let place = Place::new();
    place.write("colour = 1\n[[upstream]]\nregistry = \"A\"\n[[upstream]]\nregistry = \"good.example\"\n");
    let loaded = at_start(Some(&place.file)).unwrap();
    assert_eq!(loaded.settings.upstreams.len(), 1);
    assert_eq!(loaded.remarks.iter().map(|remark| remark.line).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(loaded.unknown_keys(), 1);
    assert!(loaded.instead_of.is_none());
    assert_eq!(check(Some(&place.file)), ExitCode::from(64));
}

#[test]
fn a_good_file_checks_without_a_word() {
    let place = Place::new();
    place.write("generation = 3\n");
    assert_eq!(check(Some(&place.file)), ExitCode::SUCCESS);
    assert_eq!(check(None), ExitCode::SUCCESS);
    assert_eq!(check(Some(&place.dir.path().join("absent"))), ExitCode::from(64));
}

#[test]
fn every_mistake_is_told_with_its_file_and_line() {
    let place = Place::new();
    place.write("[cache]\nttl = 1\n[log]\nformat = \"xml\"\n");
    let error = at_start(Some(&place.file)).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].starts_with(&format!("{}:3: cache.ttl: expected a duration", place.file.display())),
        "{error}"
    );
    assert!(lines[1].starts_with(&format!("{}:5: log.format: ", place.file.display())), "{error}");
}

#[test]
fn the_last_good_copy_stands_in_for_a_file_that_cannot_be_used() {
    let place = Place::new();
    let good = place.write("generation = 7\n");
    keep_last_good(&place.data_dir, &good).unwrap();
    let copy = place.data_dir.join("last-good.toml");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);

    for bad in ["generation = \"8\"\n", "[listen\n", "[cache]\nttl = 1"] {
        let bad = place.write(bad);
        let loaded = at_start(Some(&place.file)).unwrap();
        assert_eq!(loaded.settings.generation, 7);
        assert_eq!((loaded.text.as_deref(), loaded.seen), (Some(good.as_str()), bad));
        assert!(loaded.instead_of.is_some());
    }

    // A mirror off the loopback is never started around.
    place.write("[listen]\nmirror = \"0.0.0.0:19500\"\n");
    assert!(matches!(at_start(Some(&place.file)), Err(Unusable::Mistakes { .. })));

    place.write("[listen\n");
    fs::write(&copy, "no settings").unwrap();
    assert!(matches!(at_start(Some(&place.file)), Err(Unusable::Mistakes { .. })));
}

#[test]
fn a_look_tells_each_state_of_the_file_once() {
    let place = Place::new();
    let mut seen = place.write("generation = 1\n");
    let running = at_start(Some(&place.file)).unwrap().settings;
    let mut look = || again(&place.file, &mut seen, &running);
    assert!(matches!(look(), Again::Same));

    place.write("generation = 2\n");
    let Again::Changed { loaded, restart } = look() else { panic!("not seen") };
    assert_eq!((loaded.settings.generation, restart.len()), (2, 0));
    assert!(matches!(look(), Again::Same));

    place.write("generation = \"3\"\n");
    assert!(matches!(look(), Again::Refused(Unusable::Mistakes { .. })));
    assert!(matches!(look(), Again::Same));

    fs::remove_file(&place.file).unwrap();
    assert!(matches!(look(), Again::Refused(Unusable::Unreadable { .. })));
    assert!(matches!(look(), Again::Same));

    place.write("generation = 1\n");
    assert!(matches!(look(), Again::Changed { .. }));
}

#[test]
fn what_needs_a_restart_stays_as_it_was_and_is_named() {
    let place = Place::new();
    let mut seen = place.write("");
    let running = at_start(Some(&place.file)).unwrap().settings;
    fs::write(&place.file, "generation = 2\nrun_dir = \"/r\"\n[listen]\nmirror = \"127.0.0.1:1\"\n").unwrap();
    let Again::Changed { loaded, restart } = again(&place.file, &mut seen, &running) else {
        panic!("not seen")
    };
    assert_eq!(restart, ["listen", "data_dir", "run_dir"]);
    assert_eq!(loaded.settings, Settings { generation: 2, ..running });
}

#[test]
fn a_file_without_end_is_not_read() {
    assert!(matches!(read(Path::new("/dev/zero")), Err(Unusable::Unreadable { .. })));
}

#[test]
fn a_node_has_a_name() {
    let mut report = ReportSettings { node: "n1".to_owned(), ..ReportSettings::default() };
    assert_eq!(node_name(&report), "n1");
    report.node.clear();
    assert!(!node_name(&report).is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_never_started_around() {
    let place = Place::new();
    let good = place.write("");
    keep_last_good(&place.data_dir, &good).unwrap();
    fs::remove_file(&place.file).unwrap();
    assert!(matches!(at_start(Some(&place.file)), Err(Unusable::Unreadable { .. })));
    let no_text = |bytes: &[u8]| {
        fs::write(&place.file, bytes).unwrap();
        read(&place.file).unwrap_err().is_no_text()
    };
    assert!(no_text(b"\xff"));
    assert!(!read(&place.dir.path().join("absent")).unwrap_err().is_no_text());
    fs::remove_file(&place.file).unwrap();
    fs::create_dir(&place.file).unwrap();
    assert!(matches!(at_start(Some(&place.file)), Err(Unusable::Unreadable { .. })));
}

#[test]
fn forgetting_asks_the_agent_of_the_file_and_no_other() {
    let place = Place::new();
    let good = place.write("run_dir = \"/elsewhere\"\n");
    keep_last_good(&place.data_dir, &good).unwrap();
    assert_eq!(as_written(Some(&place.file)).unwrap().run_dir, Path::new("/elsewhere"));
    place.write("generation = true\n");
    assert!(at_start(Some(&place.file)).is_ok());
    assert!(as_written(Some(&place.file)).is_err());
}

#[test]
fn no_debug_line_shows_the_text() {
    let place = Place::new();
    let mut seen = String::new();
    place.write("password = \"hunter2\"\n");
    let running = Settings::default();
    assert!(!format!("{:?}", at_start(Some(&place.file)).unwrap()).contains("hunter2"));
    assert!(!format!("{:?}", again(&place.file, &mut seen, &running)).contains("hunter2"));
}

#[test]
fn mistakes_elsewhere_still_say_where_the_entries_are() {
    let place = Place::new();
    place.write("generation = true\n[installer]\nenabled = true\ncerts_dir = \"/c\"\n");
    let Err(Unusable::Mistakes { entries: Some(settings), .. }) = at_start(Some(&place.file)) else {
        panic!()
    };
    assert!(settings.installer.enabled && settings.installer.certs_dir == Path::new("/c"));
}
