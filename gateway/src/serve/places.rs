//! How many requests may be under way, reads and writes apart, so that neither can starve the other. A
//! request waits a little for a place and is then told to come again: never 429, which clients take for a
//! rate.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::metrics::{InFlight, Kind, Metrics};
use crate::refuse::{Reason, Refusal};

/// The longest wait for a place.
const WAIT: Duration = Duration::from_secs(3);
/// When to come again after it.
const AGAIN: Duration = Duration::from_secs(5);

/// The places.
pub struct Places {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    max_reads: usize,
    max_writes: usize,
    /// Memory for manifests under way, in KiB.
    manifests: Arc<Semaphore>,
}

/// One request's place, free again when it is dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: InFlight,
}

impl Places {
    #[must_use]
    pub fn new(max_reads: usize, max_writes: usize) -> Self {
        Self {
            reads: Arc::new(Semaphore::new(max_reads)),
            writes: Arc::new(Semaphore::new(max_writes)),
            max_reads,
            max_writes,
            manifests: Arc::new(Semaphore::new(32 << 10)),
        }
    }

    /// A place for a request, after a wait if need be.
    ///
    /// # Errors
    /// A refusal when none is free in time.
    pub(super) async fn take(&self, metrics: &Metrics, method: &Method) -> Result<Place, Refusal> {
        let (kind, semaphore, most, what) = match *method {
            Method::GET | Method::HEAD => (Kind::Read, &self.reads, self.max_reads, "pulls"),
            _ => (Kind::Write, &self.writes, self.max_writes, "pushes"),
        };
        match timeout(WAIT, Arc::clone(semaphore).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit, _counted: metrics.in_flight(kind) }),
            Ok(Err(_)) | Err(_) => {
                let words = format!("all {most} places for {what} are taken here; try again in a moment.");
                Err(Refusal::unavailable(Reason::Busy, words, AGAIN))
            }
        }
    }

    /// Memory for a manifest of at most `bytes`.
    ///
    /// # Errors
    /// A refusal when too many large ones are under way.
    pub(super) async fn memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, 32 << 10);
        match timeout(WAIT, Arc::clone(&self.manifests).acquire_many_owned(kib)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                let words = "too many large manifests are being pushed; try again in a moment.";
                Err(Refusal::unavailable(Reason::Busy, words, AGAIN))
            }
        }
    }
}
