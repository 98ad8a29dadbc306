//! A report of a real, empty mirror.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

/// A mirror on a new store below `dir`, with its settings.
pub(crate) async fn facts(dir: &Path) -> (Facts, watch::Sender<Settings>) {
    let settings = Settings {
        generation: 7,
        data_dir: dir.join("data"),
        run_dir: dir.to_owned(),
        ..Settings::default()
    };
    let mirror = Mirror::open(&settings, "n1", b"key".to_vec()).await.unwrap();
    let (sender, settings) = watch::channel(settings);
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_165_200);
    (Facts { mirror, settings, instance: "i1".to_owned(), started }, sender)
}

#[tokio::test]
async fn the_installers_words_stand_beside_the_mirrors_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (facts, settings) = facts(dir.path()).await;
    settings.send_modify(|settings| settings.report.node = "n1".to_owned());
    let state = r#"{"registries":[
        {"registry":"quay.io","state":"refused","reason":"OtherUpstream","message":"m","since":"s"},
        {"registry":"elsewhere.example","state":"installed","reason":"","message":"","since":"s"}]}"#;
    fs::write(dir.path().join("installer.json"), state).unwrap();
    let report = facts.report();
    assert_eq!((report.schema, report.generation, report.node.as_str()), (1, 7, "n1"));
    assert_eq!((report.started.as_str(), report.instance.as_str()), ("2026-11-20T09:00:00Z", "i1"));
    assert_eq!(report.version, env!("CARGO_PKG_VERSION"));
    let words =
        |r: &larder_wire::report::RegistryReport| (r.registry.clone(), r.state.clone(), r.reason.clone());
    let states: Vec<_> = report.registries.iter().map(words).collect();
    let told = |registry: &str, state: &str, reason: &str| {
        states.contains(&(registry.to_owned(), state.to_owned(), reason.to_owned()))
    };
    assert_eq!(states.len(), settings.borrow().upstreams.len());
    assert!(told("quay.io", "refused", "OtherUpstream"), "{states:?}");
    assert!(told("docker.io", "", ""), "{states:?}");
    facts.mirror.close().await;
}
