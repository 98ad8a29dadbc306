//! Bringing a blob in: receive, hash and write at once, go on where a connection broke, publish when the hash is right. A
//! disk that fails turns the fill into a relay from that byte on. Runs as a task of its own; must not know who follows.

mod receive;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use larder_wire::name::Repository;
use tokio::time::Instant;

use crate::cache::{Cache, FlightKey};
use crate::error::UpstreamError;
use crate::flight::{Head, Stream};
use crate::region::Region;
use crate::store::{BlobKey, Held, OpenBlob, Temp};
use crate::upstream::{Target, Upstream};
use crate::verify::Hasher;
use receive::Receiver;
use sink::Sink;

/// One fill to be done.
pub(crate) struct Job {
    pub upstream: Arc<Upstream>,
    pub repository: Repository,
    pub target: Target,
    pub flight: FlightKey,
}

/// Files up to here are hashed before anything is said; larger ones while they are sent.
pub(crate) const HASHED_FIRST: u64 = crate::flight::SMALL_BODY;

/// How long the disk may take to make a file.
const BEGIN: Duration = Duration::from_secs(3);

/// Starts the fill of a stream. However it ends, its followers are told.
pub(crate) fn start(cache: Arc<Cache>, job: Job, stream: Arc<Stream>) {
    tokio::spawn(async move {
        let ending =
            Ending { cache: Arc::clone(&cache), flight: job.flight.clone(), stream: Arc::clone(&stream) };
        let filled = match landed_already(&cache, &job) {
            Some(blob) => {
                show(&stream, &blob);
                cache.flights.blobs.end(&job.flight, &stream);
                Ok(())
            }
            None => fill(&cache, &job, &stream).await,
        };
        if let Err(error) = filled {
            ending.cache.flights.blobs.end(&job.flight, &stream);
            stream.fail(error);
        }
    });
}

/// What the flight before this one brought in after its last client looked.
fn landed_already(cache: &Cache, job: &Job) -> Option<Arc<OpenBlob>> {
    if job.upstream.is_shared() || job.flight.manifest {
        return None;
    }
    match cache.store.blob(&job.flight.key) {
        Held::Proven(blob) => Some(blob),
        Held::Unproven(_) | Held::Absent => None,
    }
}

fn show(stream: &Stream, blob: &OpenBlob) {
    stream.start(
        Head { size: Some(blob.size), media_type: None, at: Instant::now() },
        Some(Arc::clone(&blob.region)),
    );
    stream.advance(blob.size, blob.size);
    stream.finish();
}

async fn fill(cache: &Arc<Cache>, job: &Job, stream: &Arc<Stream>) -> Result<(), UpstreamError> {
    let mut receiver = Receiver::open(job, cache.tuning.idle).await?;
    let size = receiver.size();
    let keep = !job.flight.manifest;
    let temp = if keep { begin(cache, size).await } else { None };
    let region = temp.as_ref().map(|temp| Arc::new(Region::of(Arc::clone(&temp.file), size.unwrap_or(0))));
    let mut sink = Sink::new(Hasher::new(job.flight.key.digest.algorithm()), temp, Arc::clone(&cache.store));
    let media_type = receiver.media_type().filter(|_| job.flight.manifest);
    stream.start(Head { size, media_type, at: Instant::now() }, region);
    // The next bytes come in while the last ones are hashed and written.
    let mut next = receiver.next().await?;
    while let Some(batch) = next {
        if stream.not_worth(size, sink.written) {
            return Err(UpstreamError::Abandoned);
        }
        let writing = tokio::task::spawn_blocking(move || sink.take(batch));
        let (published, received) =
            tokio::join!(publish(stream, writing, cache.tuning.idle), receiver.next());
        (sink, next) = (published?, received?);
    }
    finish(cache, job, stream, sink, size).await
}

/// A file to fill, made off the async threads: reserving room can take a while. A disk that hangs is no disk.
async fn begin(cache: &Arc<Cache>, size: Option<u64>) -> Option<Temp> {
    let store = Arc::clone(&cache.store);
    let making = tokio::task::spawn_blocking(move || store.begin(size));
    tokio::time::timeout(BEGIN, making).await.ok()?.ok().flatten()
}

/// Tells followers how far it is; what the disk would not take goes to them through memory.
async fn publish(
    stream: &Stream,
    writing: tokio::task::JoinHandle<(Sink, Vec<bytes::Bytes>)>,
    patience: Duration,
) -> Result<Sink, UpstreamError> {
    let written = tokio::time::timeout(patience, writing).await;
    let (sink, unfiled) = written.ok().and_then(Result::ok).ok_or(UpstreamError::Abandoned)?;
    if unfiled.is_empty() {
        stream.advance(sink.written, sink.filed);
        return Ok(sink);
    }
    let unfiled_bytes: u64 = unfiled.iter().map(|bytes| bytes.len() as u64).sum();
    let mut at = sink.written - unfiled_bytes;
    for bytes in unfiled {
        let length = bytes.len() as u64;
        stream.relay(vec![bytes], at).await?;
        at += length;
        stream.advance(at, sink.filed);
    }
    Ok(sink)
}

/// The hash decides: release, then publish under the name; or nothing of it stays.
async fn finish(
    cache: &Arc<Cache>,
    job: &Job,
    stream: &Arc<Stream>,
    sink: Sink,
    size: Option<u64>,
) -> Result<(), UpstreamError> {
    let key = &job.flight.key;
    if let Some(size) = size.filter(|&size| size != sink.written) {
        tracing::warn!(digest = %key.digest, size, received = sink.written, "upstream sent another length than it said");
    }
    let verified = sink.verify(&key.digest);
    let (proof, temp) = verified.map_err(|found| cache.ban(&job.upstream, &key.digest, found))?;
    stream.finish();
    if let Some(temp) = temp.filter(|_| stream.readable()) {
        let (store, key) = (Arc::clone(&cache.store), key.clone());
        let registry = job.upstream.settings.registry.clone();
        let kept = tokio::task::spawn_blocking(move || store.commit(&temp, &key, &proof, &registry)).await;
        if kept.is_err() {
            tracing::error!("a commit panicked; the blob is not kept");
        }
    }
    if job.upstream.is_shared() {
        cache.store.link(&job.upstream.settings.registry, &job.repository, vec![key.digest]);
    }
    cache.flights.blobs.end(&job.flight, stream);
    Ok(())
}

/// Hashes a stored file while it is sent; its followers see as much as is hashed, by the same rule as in a fill.
pub(crate) fn start_hashing(cache: Arc<Cache>, key: BlobKey, blob: Arc<OpenBlob>, stream: Arc<Stream>) {
    let head = Head { size: Some(blob.size), media_type: None, at: Instant::now() };
    stream.start(head, Some(Arc::clone(&blob.region)));
    tokio::task::spawn_blocking(move || {
        let ending = HashingEnds { cache, key, stream };
        let HashingEnds { cache, key, stream } = &ending;
        if cache.store.hash(key, &blob, |hashed| stream.advance(hashed, hashed)) {
            cache.flights.hashing.end(key, stream);
            stream.finish();
        }
    });
}

/// Ends a stream whose task ended without saying so.
struct Ending {
    cache: Arc<Cache>,
    flight: FlightKey,
    stream: Arc<Stream>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.cache.flights.blobs.end(&self.flight, &self.stream);
        self.stream.give_up();
    }
}

/// The same for a file that is hashed while it is sent: what is not said to be right is not shown whole.
struct HashingEnds {
    cache: Arc<Cache>,
    key: BlobKey,
    stream: Arc<Stream>,
}

impl Drop for HashingEnds {
    fn drop(&mut self) {
        self.cache.flights.hashing.end(&self.key, &self.stream);
        self.stream.give_up();
    }
}
