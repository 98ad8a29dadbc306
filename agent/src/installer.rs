//! Runs the installer within the agent while `[installer] enabled` says so.
//! Must not touch certs.d itself, and must not take the cache down when the installer fails.

use std::time::Duration;

use larder_wire::settings::{InstallerSettings, Settings};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// An installer that failed is started again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// Returns once `stop` is cancelled and the installer, when one ran, has taken its entries out.
///
/// It has a thread and a runtime of its own, so that neither a busy worker nor a full pool of blocking threads delays
/// the removal of an entry.
pub(crate) async fn supervise(settings: watch::Receiver<Settings>, stop: CancellationToken) {
    let (done, ended) = oneshot::channel();
    let own = stop.clone();
    let live = move || {
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(follow(settings, own)),
            Err(error) => {
                error!(%error, "no runtime for the installer; pulls go on");
                return;
            }
        }
        // Nobody waits when the agent ends by itself.
        let _ = done.send(());
    };
    if let Err(error) = std::thread::Builder::new().name("installer".to_owned()).spawn(live) {
        error!(%error, "no thread for the installer; pulls go on");
        return stop.cancelled().await;
    }
    if ended.await.is_err() {
        error!("the installer's thread is gone");
    }
}

/// Takes out what an agent before left, when this one cannot start and the settings want entries managed.
pub(crate) fn take_out_left_over(settings: &Settings) {
    if settings.installer.enabled {
        take_out(settings);
    }
}

fn take_out(settings: &Settings) {
    match larder_installer::take_out_left_over(settings) {
        Ok(left) => {
            for (path, why) in left {
                error!(path = %path.display(), "cannot take our entry out: {why}");
            }
        }
        Err(error) => error!(%error, "cannot take our entries out of certs.d"),
    }
}

async fn follow(mut settings: watch::Receiver<Settings>, stop: CancellationToken) {
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
            if !stop.is_cancelled() {
                // Turned off: nobody is left to take out what `keep_on_shutdown` kept.
                take_out(&settings.borrow().clone());
            }
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
mod tests;
