//! Reply bodies: bytes in memory, a stored file, a growing one, or upstream's own, passed on. Counts what is really
//! handed to the socket. A body that cannot be finished ends in an error, which closes the connection short.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::flight::Follower;
use crate::region::{Region, Regions};
use crate::stats::Account;

/// Why a body ended short. The client learns only that it did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the fill failed")]
    Fill,
    #[error("the stored file could not be read")]
    Read(#[source] io::Error),
    #[error("upstream's body broke off")]
    Upstream(#[source] hyper::Error),
    #[error("upstream sent nothing for {0:?}")]
    Idle(Duration),
}

/// A reply's body, with its entry in the log.
pub(crate) struct Body {
    source: Source,
    account: Arc<Account>,
    /// Where the socket looks mapped ranges up.
    regions: Arc<Regions>,
}

pub(crate) enum Source {
    Empty,
    Bytes(Bytes),
    /// What is left of a range of a stored file.
    File {
        region: Arc<Region>,
        at: u64,
        end: u64,
    },
    Follow(Box<Follower>),
    /// Upstream's body, cut when it is idle.
    Passed {
        body: Incoming,
        idle: Pin<Box<Sleep>>,
        limit: Duration,
        /// Given back with the body.
        _permit: Option<OwnedSemaphorePermit>,
    },
}

/// What hyper holds on to until the socket took it.
pub(crate) struct Chunk {
    bytes: Piece,
    account: Arc<Account>,
}

pub(crate) enum Piece {
    Bytes(Bytes),
    /// A mapped range: the socket sends it from the file.
    File {
        region: Arc<Region>,
        at: u64,
        end: u64,
    },
}

/// Files up to here are read into memory: one copy is cheaper than a mapping.
pub(crate) const SMALL: u64 = 64 << 10;
/// Bytes read at a time where a file cannot be mapped.
const COPY: u64 = 256 << 10;

impl Body {
    pub(crate) fn new(source: Source, account: Arc<Account>) -> Self {
        Self { source, account, regions: Arc::default() }
    }

    /// Tells the connection which mappings this body is made of.
    pub(crate) fn on(self, regions: Arc<Regions>) -> Self {
        Self { regions, ..self }
    }
}

impl Source {
    pub(crate) fn passed(body: Incoming, limit: Duration, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self::Passed { body, idle: Box::pin(tokio::time::sleep(limit)), limit, _permit: permit }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Piece::Bytes(bytes))))
            }
            Self::File { region, at, end } => {
                let piece = piece(region, *at, *end);
                match &piece {
                    Ok(piece) => *at += piece.len(),
                    Err(_) => *at = *end,
                }
                if at == end {
                    *self = Self::Empty;
                }
                Poll::Ready(Some(piece.map_err(BodyError::Read)))
            }
            Self::Follow(follower) => follower.poll_next(cx),
            Self::Passed { body, idle, limit, .. } => poll_passed(body, idle, *limit, cx),
        }
    }
}

/// The next piece of a file's range: all of it where it can be mapped.
pub(crate) fn piece(region: &Arc<Region>, at: u64, end: u64) -> io::Result<Piece> {
    if end - at > SMALL && region.slice(at, end).is_some() {
        return Ok(Piece::File { region: Arc::clone(region), at, end });
    }
    let length = usize::try_from((end - at).min(COPY)).expect("a copy fits in memory");
    let mut buffer = vec![0; length];
    region.read_at(&mut buffer, at)?;
    Ok(Piece::Bytes(buffer.into()))
}

fn poll_passed(
    body: &mut Incoming,
    idle: &mut Pin<Box<Sleep>>,
    limit: Duration,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Piece, BodyError>>> {
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                idle.as_mut().reset(Instant::now() + limit);
                if let Ok(bytes) = frame.into_data() {
                    return Poll::Ready(Some(Ok(Piece::Bytes(bytes))));
                }
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(BodyError::Upstream(error)))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let over = idle.as_mut().poll(cx).is_ready();
                return if over { Poll::Ready(Some(Err(BodyError::Idle(limit)))) } else { Poll::Pending };
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Chunk;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BodyError>>> {
        let next = std::task::ready!(self.source.poll(cx));
        let (account, regions) = (&self.account, &self.regions);
        Poll::Ready(next.map(|piece| match piece {
            Ok(bytes) => Ok({
                if let Piece::File { region, .. } = &bytes {
                    regions.add(region);
                }
                Frame::data(Chunk { bytes, account: Arc::clone(account) })
            }),
            Err(error) => {
                account.broke_off(&error);
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::File { at, end, .. } => SizeHint::with_exact(end - at),
            Source::Follow(follower) => follower.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Passed { body, .. } => body.size_hint(),
        }
    }
}

impl Piece {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { at, end, .. } => end - at,
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        usize::try_from(self.bytes.len()).unwrap_or(usize::MAX)
    }

    fn chunk(&self) -> &[u8] {
        match &self.bytes {
            Piece::Bytes(bytes) => bytes,
            Piece::File { region, at, end } => region.slice(*at, *end).unwrap_or_default(),
        }
    }

    fn advance(&mut self, count: usize) {
        self.account.sent(count as u64);
        match &mut self.bytes {
            Piece::Bytes(bytes) => bytes.advance(count),
            Piece::File { at, .. } => *at += count as u64,
        }
    }
}
