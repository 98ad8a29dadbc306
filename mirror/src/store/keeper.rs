//! The one thread that owns the ledger, and what happens when it fails. Every call is a closure sent over a bounded
//! channel. An error, a panic or a call that takes too long degrades the index: pulls go on from the files, and a new
//! generation is built beside the old one, whose handles are left alone, since dropping them may hang. Must not be
//! waited for by anything that a pull cannot do without.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::index::{IndexError, MemoryRows, Rows, SledRows};
use super::ledger::{Ledger, SCHEMA, Totals};

type Call = Box<dyn FnOnce(&mut Ledger) -> Result<(), IndexError> + Send>;
type Opened = Result<Box<dyn Rows>, IndexError>;
type OpenRows = dyn Fn(&Path) -> Opened + Send + Sync;

/// A handle to the thread; calls through it never block the caller for long.
pub(crate) struct Keeper {
    data_dir: PathBuf,
    open: Arc<OpenRows>,
    current: Mutex<Arc<Generation>>,
    /// Generations built since the start because the one before failed.
    rebuilt: AtomicU64,
}

/// One index directory and the thread that works on it.
struct Generation {
    number: u64,
    calls: SyncSender<Call>,
    failed: AtomicBool,
    opened: AtomicBool,
    /// Generations before this one that did not even open, in a row.
    unopened: u32,
    /// Whether the rows must be compared with the files: they were not closed in good order, or are new.
    unsure: AtomicBool,
    epoch: Instant,
    /// Milliseconds since `epoch` at which the call under way began; zero when none is.
    busy_since: AtomicU64,
    closed: AtomicBool,
    totals: Arc<Totals>,
}

/// How long a caller waits before it goes on without the index.
const PATIENCE: Duration = Duration::from_secs(2);
/// A call that takes longer means that the database hangs.
const HUNG: Duration = Duration::from_secs(4);
const QUEUE: usize = 1024;
/// Generations that may fail to open before the disk is given up on.
const DISK_TRIES: u32 = 2;

impl Keeper {
    /// Starts the thread on the newest generation, which opens in its own time.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, |path| Ok(Box::new(SledRows::open(path)?)))
    }

    pub(crate) fn start_with(
        data_dir: &Path,
        open: impl Fn(&Path) -> Opened + Send + Sync + 'static,
    ) -> Self {
        let open: Arc<OpenRows> = Arc::new(open);
        let first = Generation::start(data_dir, newest(data_dir).unwrap_or(1), Some(Arc::clone(&open)), 0);
        Self { data_dir: data_dir.into(), open, current: Mutex::new(first), rebuilt: AtomicU64::new(0) }
    }

    /// Runs a call on the ledger. `None` when the index is degraded, too slow or too busy to say.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Ledger) -> Result<T, IndexError> + Send + 'static,
    ) -> Option<T> {
        self.ask_within(PATIENCE, call).await
    }

    /// [`Keeper::ask`] for whoever has more time than a pull.
    pub(crate) async fn ask_within<T: Send + 'static>(
        &self,
        patience: Duration,
        call: impl FnOnce(&mut Ledger) -> Result<T, IndexError> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let sent = self.tell(move |ledger| {
            let value = call(ledger)?;
            // Whoever asked may have gone on without us.
            let _ = answer.send(value);
            Ok(())
        });
        if !sent {
            return None;
        }
        tokio::time::timeout(patience, answered).await.ok()?.ok()
    }

    /// Queues a call that nobody waits for. Whether it was queued.
    pub(crate) fn tell(
        &self,
        call: impl FnOnce(&mut Ledger) -> Result<(), IndexError> + Send + 'static,
    ) -> bool {
        let current = self.current();
        !current.failed.load(Ordering::Acquire) && current.calls.try_send(Box::new(call)).is_ok()
    }

    pub(crate) fn degraded(&self) -> bool {
        self.current().failed.load(Ordering::Acquire)
    }

    pub(crate) fn rebuilt(&self) -> u64 {
        self.rebuilt.load(Ordering::Relaxed)
    }

    /// Bytes and blobs in all rows.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.current().totals.read()
    }

    /// The generation whose rows must still be compared with the files.
    pub(crate) fn unsure(&self) -> Option<u64> {
        let current = self.current();
        (current.opened.load(Ordering::Acquire) && current.unsure.load(Ordering::Acquire))
            .then_some(current.number)
    }

    /// A generation's rows were compared with all files.
    pub(crate) fn compared(&self, number: u64) {
        let current = self.current();
        if current.number == number {
            current.unsure.store(false, Ordering::Release);
        }
    }

    /// Looks for a failed or hung generation. True when it is (now) known to have failed.
    pub(crate) fn look(&self) -> bool {
        let current = self.current();
        let since = current.busy_since.load(Ordering::Acquire);
        let busy_for = current.epoch.elapsed().saturating_sub(Duration::from_millis(since));
        if since != 0 && busy_for > HUNG && !current.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(generation = current.number, "the index hangs; pulls go on without it");
        }
        current.failed.load(Ordering::Acquire)
    }

    /// Starts a new generation beside a failed one. Where the disk takes none, it is kept in memory.
    pub(crate) fn renew(&self) {
        let current = self.current();
        let unopened = if current.opened.load(Ordering::Acquire) { 0 } else { current.unopened + 1 };
        let number = current.number.max(newest(&self.data_dir).unwrap_or(0)) + 1;
        let open = (unopened < DISK_TRIES).then(|| Arc::clone(&self.open));
        let next = Generation::start(&self.data_dir, number, open, unopened);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = next;
        self.rebuilt.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes the index in good order, if it still answers.
    pub(crate) async fn close(&self) {
        let current = self.current();
        let closing = Arc::clone(&current);
        self.ask(move |ledger| {
            if closing.unsure.load(Ordering::Acquire) {
                ledger.flush()?;
            } else {
                ledger.close()?;
            }
            closing.closed.store(true, Ordering::Release);
            Ok(())
        })
        .await;
    }

    fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generation {
    /// `open` is `None` for rows in memory.
    fn start(data_dir: &Path, number: u64, open: Option<Arc<OpenRows>>, unopened: u32) -> Arc<Self> {
        let (calls, queue) = sync_channel(QUEUE);
        let generation = Arc::new(Self {
            number,
            calls,
            failed: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            unopened,
            unsure: AtomicBool::new(false),
            epoch: Instant::now(),
            busy_since: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            totals: Arc::default(),
        });
        let (thread, data_dir) = (Arc::downgrade(&generation), data_dir.to_owned());
        let spawned = std::thread::Builder::new().name("larder-index".to_owned()).spawn(move || {
            let Some(generation) = thread.upgrade() else { return };
            generation.work(&data_dir, open.as_deref(), &queue);
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for the index; pulls go on without it");
            generation.failed.store(true, Ordering::Release);
        }
        generation
    }

    /// The thread's life: open, then one call after the other.
    fn work(&self, data_dir: &Path, open: Option<&OpenRows>, queue: &Receiver<Call>) {
        let opened = self.guarded(|| {
            let path = data_dir.join(format!("index-{}", self.number));
            let rows = match open {
                Some(open) => marked(&path, open)?,
                None => {
                    tracing::warn!("the disk takes no index; it is kept in memory until the next start");
                    Box::<MemoryRows>::default()
                }
            };
            let (ledger, clean) = Ledger::open(rows, Arc::clone(&self.totals))?;
            self.unsure.store(!clean, Ordering::Release);
            Ok(ledger)
        });
        let Some(mut ledger) = opened else { return };
        self.opened.store(true, Ordering::Release);
        drop_older(data_dir, self.number);
        while let Ok(call) = queue.recv() {
            if self.failed.load(Ordering::Acquire) || self.guarded(|| call(&mut ledger)).is_none() {
                // Dropping a database that failed may block for ever.
                std::mem::forget(ledger);
                return;
            }
            if self.closed.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Runs one step of the database's, timed and with panics caught; `None` marks the generation as failed.
    fn guarded<T>(&self, step: impl FnOnce() -> Result<T, IndexError>) -> Option<T> {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.busy_since.store(now, Ordering::Release);
        let done = std::panic::catch_unwind(AssertUnwindSafe(step));
        self.busy_since.store(0, Ordering::Release);
        let reason = match done {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database panicked".to_owned(),
        };
        tracing::error!(generation = self.number, reason, "the index failed; pulls go on without it");
        self.failed.store(true, Ordering::Release);
        None
    }
}

/// Opens a generation's rows and leaves their schema's number beside them.
fn marked(path: &Path, open: &OpenRows) -> Opened {
    let mark = path.join("schema");
    let told = |error: std::io::Error| IndexError(format!("{}: {error}", path.display()));
    match std::fs::read_to_string(&mark) {
        Ok(text) if text.trim() != SCHEMA.to_string() => {
            return Err(IndexError(format!("schema {} is not ours", text.trim())));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(told)?;
            std::fs::write(&mark, SCHEMA.to_string()).map_err(told)?;
        }
        Err(error) => return Err(told(error)),
    }
    open(path)
}

/// The highest `index-<n>` below the data directory.
fn newest(data_dir: &Path) -> Option<u64> {
    generations(data_dir).into_iter().max()
}

fn generations(data_dir: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(data_dir) else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix("index-")?.parse().ok();
    entries.flatten().filter_map(number).collect()
}

/// Removes what failed generations left, but never one of a newer format, which a newer agent may want back.
fn drop_older(data_dir: &Path, number: u64) {
    for older in generations(data_dir).into_iter().filter(|&older| older < number) {
        let path = data_dir.join(format!("index-{older}"));
        let schema = std::fs::read_to_string(path.join("schema"))
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok());
        if schema.is_none_or(|schema| schema <= SCHEMA)
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::warn!(path = %path.display(), %error, "an old index stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(what: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while !what() {
                tokio::task::yield_now().await;
            }
        });
        waited.await.expect("the condition came true");
    }

    #[tokio::test]
    async fn a_panic_degrades_and_a_new_generation_serves() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::start_with(dir.path(), |_| Ok(Box::<MemoryRows>::default()));
        assert_eq!(keeper.ask(|_| Ok(1)).await, Some(1));
        assert_eq!(keeper.ask(|_| -> Result<(), IndexError> { panic!("as a database might") }).await, None);
        until(|| keeper.look()).await;
        assert!(keeper.degraded());
        keeper.renew();
        assert_eq!(keeper.ask(|_| Ok(2)).await, Some(2));
        assert_eq!(keeper.unsure(), Some(2), "a new generation is compared with the files");
        keeper.compared(1);
        assert_eq!(keeper.unsure(), Some(2));
        keeper.compared(2);
        assert_eq!(keeper.unsure(), None);
        assert_eq!((keeper.degraded(), keeper.rebuilt()), (false, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::start_with(dir.path(), |_| Ok(Box::<MemoryRows>::default()));
        let (release, held) = std::sync::mpsc::channel::<()>();
        keeper.tell(move |_| {
            let _ = held.recv();
            Ok(())
        });
        assert_eq!(keeper.ask(|_| Ok(1)).await, None);
        drop(release);
    }

    #[tokio::test]
    async fn noise_in_the_directory_makes_a_new_generation() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::start(dir.path());
        keeper.ask(|ledger| ledger.probe(1)).await.unwrap();
        keeper.close().await;
        drop(keeper);
        for file in std::fs::read_dir(dir.path().join("index-1")).unwrap().flatten() {
            if file.file_name() != "schema" && file.path().is_file() {
                std::fs::write(file.path(), [0xa5; 4096]).unwrap();
            }
        }
        let keeper = Keeper::start(dir.path());
        until(|| keeper.look()).await;
        keeper.renew();
        assert_eq!(keeper.ask(|ledger| ledger.probe(2)).await, Some(()));
        assert!(dir.path().join("index-2").is_dir());
    }

    #[tokio::test]
    async fn an_index_of_a_newer_format_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("index-4")).unwrap();
        std::fs::write(dir.path().join("index-4/schema"), "999").unwrap();
        let keeper = Keeper::start(dir.path());
        until(|| keeper.look()).await;
        keeper.renew();
        assert_eq!(keeper.ask(|ledger| ledger.probe(1)).await, Some(()));
        assert!(dir.path().join("index-4").is_dir() && dir.path().join("index-5").is_dir());
    }
}
