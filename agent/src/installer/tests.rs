//! The installer in the agent's process: that it follows its setting, and that nothing can hold it up.

use super::*;
use std::path::Path;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);

async fn until_exists(path: &Path) {
    let exists = async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, exists).await.expect("in time");
}

fn settings(dir: &Path) -> Settings {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut settings = Settings { run_dir: dir.to_owned(), ..Settings::default() };
    settings.listen.mirror = free;
    settings.installer.certs_dir = dir.join("certs.d");
    settings.installer.containerd_config = dir.join("config.toml");
    settings
}

/// An entry as an agent before left it.
fn leave_entry(settings: &Settings) -> std::path::PathBuf {
    let dir = settings.installer.certs_dir.join("quay.io");
    std::fs::create_dir_all(&dir).unwrap();
    let block = "# BEGIN larder 0\n[host.\"http://127.0.0.1:19500\"]\n# END larder\n";
    std::fs::write(dir.join("hosts.toml"), format!("# theirs\n{block}")).unwrap();
    dir.join("hosts.toml")
}

#[test]
fn a_full_pool_does_not_hold_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.installer.enabled = true;
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        tokio::task::spawn_blocking(move || blocked.recv());
        let (_sender, receiver) = watch::channel(settings);
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise(receiver, stop.clone()));
        until_exists(&dir.path().join("installer.json")).await;
        stop.cancel();
        timeout(DEADLINE, task).await.expect("in time").unwrap();
    });
    drop(release);
}

#[tokio::test]
async fn turned_off_it_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.installer.enabled = true;
    settings.installer.keep_on_shutdown = true;
    let hosts = leave_entry(&settings);
    // It waits for the lock, so that no round of its own takes the entry out.
    let lock = std::fs::File::create(dir.path().join("installer.lock")).unwrap();
    lock.lock().unwrap();
    let (sender, receiver) = watch::channel(settings);
    let stop = CancellationToken::new();
    let run = while_enabled(receiver, &stop);
    tokio::pin!(run);
    tokio::select! {
        biased;
        _ = &mut run => panic!("ended by itself"),
        () = tokio::task::yield_now() => {}
    }
    drop(lock);
    sender.send_modify(|settings| settings.installer.enabled = false);
    timeout(DEADLINE, run).await.expect("in time").unwrap();
    assert_eq!(std::fs::read_to_string(hosts).unwrap(), "# theirs\n");
}

#[test]
fn an_agent_that_cannot_start_takes_out_what_it_manages() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    let hosts = leave_entry(&settings);
    let holds = || std::fs::read_to_string(&hosts).unwrap().contains("BEGIN larder");
    take_out_left_over(&settings);
    assert!(holds(), "the installer is another's business");
    settings.installer.enabled = true;
    let lock = std::fs::File::create(dir.path().join("installer.lock")).unwrap();
    lock.lock().unwrap();
    take_out_left_over(&settings);
    assert!(holds(), "another installer takes care of it");
    drop(lock);
    take_out_left_over(&settings);
    assert!(!holds());
}

#[tokio::test]
async fn the_installer_follows_its_setting_and_ends_with_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (sender, receiver) = watch::channel(settings);
    let stop = CancellationToken::new();
    let task = tokio::spawn(supervise(receiver, stop.clone()));
    tokio::task::yield_now().await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    let told = dir.path().join("installer.json");
    for _ in 0..2 {
        sender.send_modify(|settings| settings.installer.enabled = true);
        until_exists(&told).await;
        sender.send_modify(|settings| settings.installer.enabled = false);
        // The lock is free again once the run has ended.
        let ended = async {
            let lock = std::fs::File::open(dir.path().join("installer.lock")).unwrap();
            while lock.try_lock().is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, ended).await.expect("in time");
        std::fs::remove_file(&told).unwrap();
    }
    stop.cancel();
    timeout(DEADLINE, task).await.expect("in time").unwrap();
}
