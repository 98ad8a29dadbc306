//! Watches the settings file's directory, since a ConfigMap changes by swapping a link beside the file, and hands
//! new settings to everybody. Must not stop the agent: a file that cannot be used changes nothing but a count.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_wire::settings::{Mistake, Settings, Spoils};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{self, Again};
use crate::metrics::Metrics;
use crate::run;

/// A file is looked at once nothing has moved for this long ...
const QUIET: Duration = Duration::from_millis(200);
/// ... or once things have been moving for this many times as long.
const RESTLESS: usize = 10;
/// And now and then in any case: links that lead elsewhere and directories that are replaced ring no bell.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

pub(crate) struct Reload {
    /// `None`: there is nothing to watch.
    pub(crate) file: Option<PathBuf>,
    /// What the last look found: the file's text, or why there was none.
    pub(crate) seen: String,
    pub(crate) settings: watch::Sender<Settings>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Takes changes of the file over until `stop`, on SIGHUP at once.
pub(crate) async fn run(mut reload: Reload, mut hangup: Signal, stop: CancellationToken) {
    let Some(file) = reload.file.take().map(Arc::<Path>::from) else { return stop.cancelled().await };
    let bell = Arc::new(Notify::new());
    let directory =
        file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let _watcher = match watcher(directory, Arc::clone(&bell)) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!(%error, directory = %directory.display(), "cannot watch the settings, looking every 30 s instead");
            None
        }
    };
    loop {
        // The first look is for what changed between the start and the watcher.
        let looked_at = Arc::clone(&file);
        let looking = spawn_blocking(move || {
            reload.look(&looked_at);
            reload
        });
        reload = match looking.await {
            Ok(reload) => reload,
            Err(error) => return error!(%error, "cannot look at the settings any more"),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = bell.notified() => quiet(&bell).await,
            _ = hangup.recv() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

impl Reload {
    /// Reads the file and keeps a copy of it: not for a thread that others wait for.
    fn look(&mut self, file: &Path) {
        let running = self.settings.borrow().clone();
        match config::again(file, &mut self.seen, &running) {
            Again::Same => {}
            Again::Refused(why) => {
                self.metrics.reload_failures.inc();
                error!(
                    reason = run::chain(&why),
                    "the settings file cannot be used, going on with the old settings"
                );
            }
            Again::Changed { loaded, restart } => {
                tell_remarks(file, &loaded.remarks);
                self.metrics.unknown_keys.set(i64::try_from(loaded.unknown_keys()).unwrap_or(i64::MAX));
                if !restart.is_empty() {
                    warn!(
                        settings = restart.join(", "),
                        "changed in the file, and taken over only by a restart"
                    );
                }
                let kept = config::keep_last_good(&running.data_dir, &self.seen);
                if let Err(error) = kept {
                    warn!(%error, "no copy of the settings kept in data_dir");
                }
                info!(generation = loaded.settings.generation, "settings taken over");
                self.settings.send_replace(loaded.settings);
            }
        }
    }
}

/// Tells upstreams that were left out and keys that are not known.
pub(crate) fn tell_remarks(file: &Path, remarks: &[Mistake]) {
    for Mistake { line, what, spoils } in remarks {
        match spoils {
            Spoils::Upstream => warn!(file = %file.display(), line, "this [[upstream]] is left out: {what}"),
            Spoils::Nothing | Spoils::File => warn!(file = %file.display(), line, "{what}"),
        }
    }
}

fn watcher(directory: &Path, bell: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reading the file is an event as well.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            bell.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

async fn quiet(bell: &Notify) {
    for _ in 0..RESTLESS {
        if timeout(QUIET, bell.notified()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
