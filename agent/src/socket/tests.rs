//! Images as people write them, and the way over the socket to a real, empty mirror.

use std::os::unix::fs::FileTypeExt;

use super::client::{AskError, ask};
use super::*;
use crate::report::tests::facts;

#[test]
fn images() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for good in [
        "docker.io/library/alpine",
        "docker.io/library/alpine:3.20",
        "registry.example:5000/a:1",
        "registry.example:5000/a",
        &format!("docker.io/library/alpine@{digest}"),
    ] {
        assert_eq!(good.parse::<Image>().map(|image| image.to_string()), Ok(good.to_owned()));
    }
    for bad in
        ["alpine", "docker.io/", "docker.io/A", "docker.io/a:", "docker.io/a@sha256:1", "Docker.io/a", "/a"]
    {
        assert!(bad.parse::<Image>().is_err(), "{bad}");
    }
    assert!("alpine".parse::<Image>().unwrap_err().contains("REGISTRY/NAME"));
}

#[tokio::test]
async fn an_agent_is_asked_over_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path();
    let image: Image = "docker.io/library/alpine:3.20".parse().unwrap();
    assert!(matches!(ask(run_dir, &image).await, Err(AskError::NoAgent(..))));

    let (facts, _settings) = facts(run_dir).await;
    // One that was killed left its socket behind.
    drop(std::os::unix::net::UnixListener::bind(run_dir.join(SOCKET)).unwrap());
    assert!(matches!(ask(run_dir, &image).await, Err(AskError::NoAgent(..))));
    let socket = bind(run_dir).unwrap();
    let metadata = fs::symlink_metadata(run_dir.join(SOCKET)).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(socket, facts.mirror.clone(), facts.settings.clone(), stop.clone()));

    assert_eq!(ask(run_dir, &image).await.unwrap(), 0);
    let foreign: Image = "elsewhere.example/a".parse().unwrap();
    let refused = ask(run_dir, &foreign).await.unwrap_err();
    assert!(matches!(&refused, AskError::Refused(words) if words.contains("not one of")), "{refused}");

    stop.cancel();
    timeout(CONNECTION_TIME, task).await.expect("in time").unwrap();
    assert!(!run_dir.join(SOCKET).exists());
    assert!(matches!(ask(run_dir, &image).await, Err(AskError::NoAgent(..))));
    facts.mirror.close().await;
}

#[tokio::test]
async fn a_long_run_dir_has_a_socket_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("r".repeat(150));
    fs::create_dir(&run_dir).unwrap();
    let (facts, _settings) = facts(dir.path()).await;
    let stop = CancellationToken::new();
    let socket = bind(&run_dir).unwrap();
    tokio::spawn(serve(socket, facts.mirror.clone(), facts.settings.clone(), stop.clone()));
    assert_eq!(ask(&run_dir, &"docker.io/library/alpine".parse().unwrap()).await.unwrap(), 0);
    stop.cancel();
}
