//! Takes a changed settings file over while the installer runs. Reads the file again every few seconds, so that a
//! swapped link, as a mounted ConfigMap has it, is seen too. Must not end the installer: a bad file is told and left.

use std::path::Path;
use std::time::Duration;

use larder_wire::settings::Settings;
use tokio::signal::unix::Signal;
use tokio::sync::watch::Sender;
use tokio::time::sleep;

use crate::load;

const PERIOD: Duration = Duration::from_secs(5);

/// Never returns.
pub(crate) async fn follow(path: &Path, settings: Sender<Settings>, mut hangup: Signal) {
    let mut seen = larder_installer::read_settings(path).ok();
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            () = sleep(PERIOD) => {}
        }
        let now = larder_installer::read_settings(path).ok();
        if now == seen {
            continue;
        }
        seen = now;
        match load(path) {
            Ok((new, told)) => {
                told.iter().for_each(|line| tracing::warn!("{line}"));
                let changed = settings.send_if_modified(|old| {
                    let changed = *old != new;
                    *old = new;
                    changed
                });
                if changed {
                    tracing::info!(path = %path.display(), "took new settings over");
                }
            }
            Err(unusable) => {
                unusable.lines.iter().for_each(|line| tracing::error!("settings left as they were: {line}"));
            }
        }
    }
}
