//! Runs the installer within the agent while `[installer] enabled` says so.
//! Must not touch certs.d itself, and must not take the cache down when the installer fails.

use std::time::Duration;

use larder_wire::settings::{InstallerSettings, Settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// An installer that failed is started again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// Returns once `stop` is cancelled and the installer, when one ran, has taken its entries out.
pub(crate) async fn supervise(mut settings: watch::Receiver<Settings>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = until(&mut settings, |installer| installer.enabled) => {}
        }
        let failed = while_enabled(settings.clone(), &stop).await;
        if failed.is_err() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

/// One run of the installer, ended by `stop` or by the settings.
async fn while_enabled(mut settings: watch::Receiver<Settings>, stop: &CancellationToken) -> Result<(), ()> {
    info!("installer starts within the agent");
    let own = stop.child_token();
    let run = larder_installer::run(settings.clone(), own.clone());
    tokio::pin!(run);
    let ended = tokio::select! {
        ended = &mut run => ended,
        () = until(&mut settings, |installer| !installer.enabled) => {
            own.cancel();
            run.await
        }
    };
    match ended {
        Ok(()) if own.is_cancelled() => {
            info!("installer ended");
            return Ok(());
        }
        Ok(()) => error!("installer ended by itself; pulls go on"),
        Err(error) => error!(error = format!("{error:#}"), "installer failed; pulls go on"),
    }
    Err(())
}

/// Waits for settings like that; for ever when nobody sets them any more.
async fn until(settings: &mut watch::Receiver<Settings>, like: fn(&InstallerSettings) -> bool) {
    let set = settings.wait_for(|settings| like(&settings.installer)).await.is_ok();
    if !set {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn until_exists(path: &std::path::Path) {
        let exists = async {
            while !path.exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, exists).await.expect("in time");
    }

    #[tokio::test]
    async fn the_installer_follows_its_setting_and_ends_with_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut settings = Settings { run_dir: dir.path().to_owned(), ..Settings::default() };
        settings.listen.mirror = free;
        settings.installer.certs_dir = dir.path().join("certs.d");
        settings.installer.containerd_config = dir.path().join("config.toml");
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
}
