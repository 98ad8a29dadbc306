//! Only the agent that holds the key of this node's run_dir is reachable.

use super::*;
use crate::fake_agent::{FakeAgent, KEY, Manner};
use std::os::unix::fs::symlink;

fn settings(run_dir: &Path, mirror: SocketAddr) -> Settings {
    let mut settings = Settings { run_dir: run_dir.to_owned(), ..Settings::default() };
    settings.listen.mirror = mirror;
    settings
}

async fn reason_with_key(manner: Manner) -> Option<Reason> {
    let run_dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(manner).await;
    agent.leave_key(run_dir.path());
    match probe(&settings(run_dir.path(), agent.address)).await {
        Outcome::Good(mirror) => {
            assert_eq!(mirror, agent.address);
            None
        }
        Outcome::Bad(told) => Some(told.reason),
    }
}

#[tokio::test]
async fn our_agent_is_reachable() {
    assert_eq!(reason_with_key(Manner::Well).await, None);
}

#[tokio::test]
async fn a_squatter_is_not_whatever_it_heard_before() {
    let old = proof::prove(KEY, &"ab".repeat(32));
    for manner in [Manner::Squatter, Manner::Replay(old), Manner::OtherKey, Manner::NoHttp] {
        assert_eq!(reason_with_key(manner.clone()).await, Some(Reason::NotOurAgent), "{manner:?}");
    }
}

#[tokio::test]
async fn a_hung_or_unwell_agent_fails_the_probe() {
    for manner in [Manner::Silent, Manner::Closing, Manner::Unwell] {
        assert_eq!(reason_with_key(manner.clone()).await, Some(Reason::ProbeFailed), "{manner:?}");
    }
}

#[tokio::test]
async fn the_kill_switch_is_told() {
    assert_eq!(reason_with_key(Manner::Bypass).await, Some(Reason::Bypass));
}

#[tokio::test]
async fn without_a_key_whatever_listens_is_not_ours() {
    let run_dir = tempfile::tempdir().unwrap();
    for manner in [Manner::Well, Manner::Squatter, Manner::NoHttp, Manner::Silent, Manner::Closing] {
        let agent = FakeAgent::start(manner.clone()).await;
        let Outcome::Bad(told) = probe(&settings(run_dir.path(), agent.address)).await else {
            panic!("{manner:?}")
        };
        assert_eq!(told.reason, Reason::PortInUse, "{manner:?}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let run_dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Outcome::Bad(told) = probe(&settings(run_dir.path(), free)).await else { panic!() };
    assert_eq!(told.reason, Reason::ProbeFailed);
    assert!(told.words.contains("refused"), "{}", told.words);
}

#[tokio::test]
async fn with_port_0_the_agent_says_where_it_is() {
    let run_dir = tempfile::tempdir().unwrap();
    let settings = settings(run_dir.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let Outcome::Bad(told) = probe(&settings).await else { panic!() };
    assert_eq!(told.reason, Reason::ProbeFailed);
    let agent = FakeAgent::start(Manner::Well).await;
    agent.leave_key(run_dir.path());
    assert_eq!(probe(&settings).await, Outcome::Good(agent.address));
}

#[test]
fn what_lies_in_run_dir_cannot_send_us_off_the_node() {
    let run_dir = tempfile::tempdir().unwrap();
    let settings = settings(run_dir.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let file = run_dir.path().join("address");
    for text in ["10.0.0.1:80", "0.0.0.0:19500", "127.0.0.1:0", "noise", ""] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(mirror_address(&settings), None, "{text}");
    }
    std::fs::write(&file, "[::1]:19500\n").unwrap();
    assert_eq!(mirror_address(&settings), Some("[::1]:19500".parse().unwrap()));
    std::fs::remove_file(&file).unwrap();
    std::fs::write(run_dir.path().join("real"), "127.0.0.1:1").unwrap();
    symlink("real", &file).unwrap();
    assert_eq!(mirror_address(&settings), None);
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(mirror_address(&settings), None);
}

#[test]
fn challenges_are_new_each_time() {
    assert!(proof::is_challenge(&challenge()));
    assert_ne!(challenge(), challenge());
}

#[test]
fn where_the_agent_says_it_is_counts_before_the_settings() {
    let run_dir = tempfile::tempdir().unwrap();
    let configured = SocketAddr::from(([127, 0, 0, 1], 19500));
    let settings = settings(run_dir.path(), configured);
    assert_eq!(mirror_address(&settings), Some(configured));
    let file = run_dir.path().join("address");
    std::fs::write(&file, "127.0.0.1:1").unwrap();
    assert_eq!(mirror_address(&settings), Some(SocketAddr::from(([127, 0, 0, 1], 1))));
    std::fs::write(&file, "10.0.0.1:1").unwrap();
    assert_eq!(mirror_address(&settings), Some(configured));
}
