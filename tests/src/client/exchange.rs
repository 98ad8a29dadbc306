//! A reply that is being read: how far, how fast and how it ends is the test's choice. Hashes what it reads and checks a
//! whole body against the digest that was asked for. Must not send anything.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use larder_wire::digest::hex;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::{End, Reply, Request, find, find_header};
use crate::wait::{DEADLINE, within_time};

/// A reply whose head has come and whose body is read as the test likes.
pub struct Exchange {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    stream: TcpStream,
    /// Read from the socket and not yet given out.
    buffer: Vec<u8>,
    left: Left,
    request: Request,
    hasher: Option<Hasher>,
    read: u64,
    patience: Duration,
}

/// What is still to come of a body.
enum Left {
    Bytes(u64),
    Chunks,
    /// Until the connection ends.
    All,
}

enum Hasher {
    Sha256(Sha256, String),
    Sha512(Sha512, String),
}

impl Exchange {
    /// A reply to a request: its status and headers, and what was read after its head.
    pub(super) fn new(
        stream: TcpStream,
        request: Request,
        (status, headers): (u16, Vec<(String, String)>),
        buffer: Vec<u8>,
    ) -> Self {
        let left = left(&request, status, &headers);
        let hasher = if status == 200 { Hasher::of(&request) } else { None };
        Self { status, headers, stream, buffer, left, request, hasher, read: 0, patience: DEADLINE }
    }

    /// The first header of a name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// How many bytes of the body were given out so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Reads at least so many bytes of the body, or less when it ends before that.
    pub async fn read(&mut self, at_least: u64) -> (Vec<u8>, Option<End>) {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < at_least {
            match self.piece().await {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(end) => return (bytes, Some(end)),
            }
        }
        (bytes, None)
    }

    /// Reads the rest of the body.
    pub async fn read_all(mut self) -> Reply {
        let mut body = Vec::new();
        let end = loop {
            match self.piece().await {
                Ok(piece) => body.extend_from_slice(&piece),
                Err(end) => break end,
            }
        };
        Reply { status: self.status, headers: self.headers, body: body.into(), end }
    }

    /// Reads the rest of the body and keeps only how long it was and how it ended: for big ones.
    pub async fn drain(mut self) -> (u64, End) {
        loop {
            if let Err(end) = self.piece().await {
                return (self.read, end);
            }
        }
    }

    /// [`Exchange::drain`], bearing pauses as long as this.
    pub async fn drain_within(mut self, patience: Duration) -> (u64, End) {
        self.patience = patience;
        self.drain().await
    }

    /// Whether no byte of the body has come so far.
    #[must_use]
    pub fn has_nothing_to_read(&self) -> bool {
        // The socket itself is asked: tokio only knows what it has been told so far.
        let socket = self.stream.as_fd().try_clone_to_owned().expect("a descriptor is free");
        let peeked = std::net::TcpStream::from(socket).peek(&mut [0]);
        self.buffer.is_empty() && peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Leaves in the middle, by RST when bytes are still to come.
    pub fn leave(self) {
        drop(self);
    }

    /// The connection for a next request, once this reply was read to its end.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        assert!(matches!(self.left, Left::Bytes(0)), "the reply is not over");
        self.stream
    }

    /// The next piece of the body, or how it ended.
    async fn piece(&mut self) -> Result<Vec<u8>, End> {
        let piece = match self.left {
            Left::Bytes(0) => Err(End::Whole),
            Left::Bytes(left) => self.take(left).await,
            Left::Chunks => self.chunk().await,
            Left::All => match self.take(u64::MAX).await {
                Err(End::Fin) => Err(End::Whole),
                other => other,
            },
        };
        match &piece {
            Ok(bytes) => {
                self.read += bytes.len() as u64;
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(bytes);
                }
                if let Left::Bytes(left) = &mut self.left {
                    *left -= bytes.len() as u64;
                }
            }
            Err(End::Whole) => self.check_hash(),
            Err(_) => {}
        }
        piece
    }

    /// Invariant I1: a whole body is the right one.
    fn check_hash(&mut self) {
        if let Some(hasher) = self.hasher.take() {
            let (got, asked) = hasher.finish();
            assert_eq!(got, asked, "a whole wrong body for {}", self.request.target);
        }
    }

    async fn take(&mut self, most: u64) -> Result<Vec<u8>, End> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
        let rest = self.buffer.split_off(most);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn chunk(&mut self) -> Result<Vec<u8>, End> {
        let size = self.line().await?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
        let size = size.expect("a chunk starts with its size in hex");
        while self.buffer.len() < size + 2 {
            self.fill().await?;
        }
        let rest = self.buffer.split_off(size + 2);
        let mut chunk = std::mem::replace(&mut self.buffer, rest);
        chunk.truncate(size);
        if size == 0 { Err(End::Whole) } else { Ok(chunk) }
    }

    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let rest = self.buffer.split_off(at + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), End> {
        self.buffer.reserve(64 * 1024);
        let what = format!("{} {}: more of the body", self.request.method, self.request.target);
        match within_time(what, self.patience, self.stream.read_buf(&mut self.buffer)).await {
            Ok(0) => Err(End::Fin),
            Ok(_) => Ok(()),
            Err(_) => Err(End::Rst),
        }
    }
}

impl Hasher {
    /// The digest that a whole reply must have, when the path names one.
    fn of(request: &Request) -> Option<Self> {
        let path = request.target.split('?').next().unwrap_or_default();
        let mut parts = path.rsplit('/');
        let (last, word) = (parts.next()?, parts.next()?);
        if request.method != "GET" || !matches!(word, "blobs" | "manifests") {
            return None;
        }
        match last.split_once(':')? {
            ("sha256", _) => Some(Self::Sha256(Sha256::new(), last.to_owned())),
            ("sha512", _) => Some(Self::Sha512(Sha512::new(), last.to_owned())),
            _ => None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher, _) => hasher.update(bytes),
            Self::Sha512(hasher, _) => hasher.update(bytes),
        }
    }

    /// What was hashed, and what it should be.
    fn finish(self) -> (String, String) {
        match self {
            Self::Sha256(hasher, asked) => (format!("sha256:{}", hex(&hasher.finalize())), asked),
            Self::Sha512(hasher, asked) => (format!("sha512:{}", hex(&hasher.finalize())), asked),
        }
    }
}

fn left(request: &Request, status: u16, headers: &[(String, String)]) -> Left {
    if request.method == "HEAD" || matches!(status, 204 | 304) {
        return Left::Bytes(0);
    }
    if let Some(length) = find_header(headers, "content-length") {
        return Left::Bytes(length.parse().expect("a Content-Length is a number"));
    }
    match find_header(headers, "transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => Left::Chunks,
        _ => Left::All,
    }
}
