//! Watches the policy file's directory, since a ConfigMap changes by swapping a link beside the file. Must
//! not stop the gateway: a file that cannot be used changes nothing but a count, and the last good policy
//! holds on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Policy, PolicyError};

/// The file is looked at once nothing has moved for this long ...
const QUIET: Duration = Duration::from_millis(200);
/// ... or once things have been moving for this many times as long.
const RESTLESS: usize = 10;
/// And now and then in any case: links that lead elsewhere and directories that are replaced ring no bell.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The longest policy file, in bytes: a thousand namespaces take about 200 KiB.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// The policy that holds now. Clones share it.
#[derive(Clone)]
pub struct PolicyWatch(Arc<Inner>);

struct Inner {
    file: PathBuf,
    current: watch::Sender<Arc<Policy>>,
    /// What the last look found: the text, or why there was none.
    seen: Mutex<String>,
    failures: Counter,
}

impl PolicyWatch {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// [`PolicyError`]: there is no last good policy yet to go on with.
    pub fn open(file: &Path) -> Result<Self, PolicyError> {
        let text = read(file)?;
        let policy = Arc::new(Policy::parse(&text)?);
        let current = watch::Sender::new(policy);
        let (seen, failures) = (Mutex::new(text), Counter::default());
        Ok(Self(Arc::new(Inner { file: file.to_owned(), current, seen, failures })))
    }

    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.0.current.borrow())
    }

    /// Changes of the file that could not be taken over; to be registered with the metrics.
    #[must_use]
    pub fn failures(&self) -> Counter {
        self.0.failures.clone()
    }

    /// Rings at each new policy.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Policy>> {
        self.0.current.subscribe()
    }

    /// Reads the file, and takes it over when it is another and good. Blocks on the disk.
    fn look(&self) {
        let inner = &self.0;
        let text = read(&inner.file);
        let found = text.as_ref().map_or_else(|error| format!("{error:?}"), Clone::clone);
        {
            let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == found {
                return;
            }
            *seen = found;
        }
        match text.and_then(|text| Policy::parse(&text)) {
            Ok(policy) => {
                info!(generation = policy.generation, hash = policy.hash, "policy taken over");
                inner.current.send_replace(Arc::new(policy));
            }
            Err(refused) => {
                inner.failures.inc();
                let source = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
                error!(
                    file = %inner.file.display(),
                    reason = %refused,
                    source,
                    "the policy file cannot be used, going on with the last good one"
                );
            }
        }
    }
}

/// Takes changes of the file over until `stop`.
pub async fn run(policy: PolicyWatch, stop: CancellationToken) {
    let bell = Arc::new(Notify::new());
    let parent = policy.0.file.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = parent.unwrap_or_else(|| Path::new(".")).to_owned();
    let _watcher = match watcher(&directory, Arc::clone(&bell)) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!(%error, directory = %directory.display(), "cannot watch the policy, looking now and then");
            None
        }
    };
    loop {
        // The first look is for what changed between the start and the watcher.
        let looking = policy.clone();
        if let Err(error) = spawn_blocking(move || looking.look()).await {
            error!(%error, "a look at the policy file ended badly");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = bell.notified() => quiet(&bell).await,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

fn read(file: &Path) -> Result<String, PolicyError> {
    let length = std::fs::metadata(file).map_err(PolicyError::Read)?.len();
    if length > MOST_BYTES {
        return Err(PolicyError::Mistakes(vec![format!(
            "the policy file is longer than {MOST_BYTES} bytes"
        )]));
    }
    std::fs::read_to_string(file).map_err(PolicyError::Read)
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
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn a_bad_file_keeps_the_last_good_policy_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.json");
        fs::write(&file, r#"{"generation":1,"limits":{"tags":5}}"#).unwrap();
        let policy = PolicyWatch::open(&file).unwrap();
        let mut changes = policy.changes();
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(policy.clone(), stop.clone()));

        fs::write(&file, r#"{"generation":2,"limits":{"tags":6}}"#).unwrap();
        timeout(Duration::from_secs(20), changes.wait_for(|policy| policy.generation == 2))
            .await
            .unwrap()
            .unwrap();

        fs::write(&file, r#"{"generation":3,"limits":{"tag":6}}"#).unwrap();
        policy.look();
        policy.look();
        assert_eq!(policy.failures().get(), 1, "told once, not at each look");
        assert_eq!(policy.current().generation, 2);

        fs::remove_file(&file).unwrap();
        policy.look();
        assert_eq!((policy.failures().get(), policy.current().generation), (2, 2));
        stop.cancel();
        running.await.unwrap();
    }
}
