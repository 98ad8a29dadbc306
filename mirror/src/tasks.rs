//! What the cache does by itself: looking at the disk and the index, writing uses down, sweeping, scrubbing. Each task ends
//! when the store is closed. Must not be needed by a pull.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::evict::{self, Pace};
use crate::store::{Store, now, now_millis};

/// A database that only pretends to work is found within so long.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// A failed index is built anew at most so often.
const RENEW_EVERY: Duration = Duration::from_secs(10);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// No tag is kept longer without upstream's word, whatever `max_stale` says.
const OLDEST_TAG: Duration = Duration::from_secs(30 * 86_400);
const SWEEP_AT_LEAST: Duration = Duration::from_secs(60);
const SCRUB_AFTER: Duration = Duration::from_secs(600);
/// What a scrub reads a second.
const SCRUB_RATE: u64 = 8 << 20;
const SCRUB_EVERY: Duration = Duration::from_secs(86_400);

/// Starts all of them.
pub(crate) fn start(store: &Arc<Store>, tick: Duration, stop: &CancellationToken, tracker: &TaskTracker) {
    let until = |task| {
        let stop = stop.clone();
        async move {
            stop.run_until_cancelled(task).await;
        }
    };
    tracker.spawn(until(Box::pin(watch(Arc::clone(store), tick)) as Task));
    tracker.spawn(until(Box::pin(sweep(Arc::clone(store), tick))));
    tracker.spawn(until(Box::pin(scrub(Arc::clone(store), stop.clone()))));
}

/// How long a scrub waits after reading so many bytes.
fn scrub_pause(bytes: u64) -> Duration {
    Duration::from_millis(1) + Duration::from_millis(bytes.saturating_mul(1000) / SCRUB_RATE)
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Looks at the disk and the index, and writes uses down.
async fn watch(store: Arc<Store>, tick: Duration) {
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut probed, mut pruned, mut renewed) = (Instant::now(), Instant::now(), None::<Instant>);
    let mut comparing: Option<JoinHandle<()>> = None;
    loop {
        ticks.tick().await;
        let looking = Arc::clone(&store);
        let _ = tokio::task::spawn_blocking(move || {
            looking.flush_uses();
            looking.look_for_room();
        })
        .await;
        if store.index_failed() && renewed.is_none_or(|at| at.elapsed() >= RENEW_EVERY) {
            renewed = Some(Instant::now());
            store.renew_index();
        }
        if probed.elapsed() >= PROBE_EVERY {
            probed = Instant::now();
            store.probe_index();
        }
        if comparing.as_ref().is_none_or(JoinHandle::is_finished) {
            let (store, runtime) = (Arc::clone(&store), tokio::runtime::Handle::current());
            comparing = Some(tokio::task::spawn_blocking(move || store.reconcile(&runtime)));
        }
        if pruned.elapsed() >= PRUNE_EVERY {
            pruned = Instant::now();
            store.prune_index(now().saturating_sub(OLDEST_TAG.as_secs()));
        }
    }
}

/// Sweeps every quarter of the ttl, at least each minute, and when the disk may be full.
async fn sweep(store: Arc<Store>, tick: Duration) {
    let started = Instant::now();
    let pace = Arc::new(std::sync::Mutex::new(Pace::new(now(), 0)));
    loop {
        let wait =
            store.shortest_ttl().map_or(SWEEP_AT_LEAST, |ttl| (ttl / 4).clamp(tick / 5, SWEEP_AT_LEAST));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = store.crowded() => {}
        }
        pace.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .observe(now(), started.elapsed().as_secs());
        let (store, pace, runtime) =
            (Arc::clone(&store), Arc::clone(&pace), tokio::runtime::Handle::current());
        // Unlinking a large file takes its time: not on the threads that serve pulls.
        let swept =
            tokio::task::spawn_blocking(move || runtime.block_on(evict::sweep(&store, &pace, now_millis())));
        if swept.await.is_err() {
            tracing::error!("a sweep panicked; the next one tries again");
        }
    }
}

/// Reads everything once a day, slowly.
async fn scrub(store: Arc<Store>, stop: CancellationToken) {
    tokio::time::sleep(SCRUB_AFTER).await;
    loop {
        let (store, stop) = (Arc::clone(&store), stop.clone());
        let scrubbing = tokio::task::spawn_blocking(move || {
            store.scrub(&mut |bytes| {
                let going_on = !stop.is_cancelled();
                if going_on {
                    std::thread::sleep(scrub_pause(bytes));
                }
                going_on
            });
        });
        let _ = scrubbing.await;
        tokio::time::sleep(SCRUB_EVERY).await;
    }
}
