//! A reply of the test registry before it is written, and everything that can be made wrong with it. Offsets are those
//! of the whole object, also in a reply to a Range, so that a fault stays at its byte. Must not write to a socket.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::watch;

use crate::wait::within;

/// Where a reply waits until the test lets it go on.
#[derive(Clone, Debug)]
pub struct Gate {
    arrived: Arc<watch::Sender<usize>>,
    open: Arc<watch::Sender<bool>>,
}

/// How a connection is ended in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Fin,
    Rst,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    Chunked,
    /// Chunks without the last, empty one.
    UnterminatedChunks,
    /// Neither length nor chunks: the body ends with the connection.
    Close,
}

/// A reply as it will be written.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// Where the body starts in the whole object.
    pub(super) start: u64,
    pub(super) framing: Framing,
    pub(super) hold_head: Option<Gate>,
    pub(super) holds: Vec<(u64, Gate)>,
    pub(super) cut: Option<(u64, Cut)>,
    pub(super) informational: usize,
    /// The whole object, where the body is a part of it.
    whole: Bytes,
}

impl Gate {
    #[must_use]
    pub fn new() -> Self {
        Self { arrived: Arc::new(watch::Sender::new(0)), open: Arc::new(watch::Sender::new(false)) }
    }

    /// Lets everything through, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many replies have come to the gate.
    pub async fn arrived(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        let seen = within("replies come to the gate", arrived.wait_for(|&seen| seen >= count)).await;
        assert!(seen.is_ok(), "a gate's sender lives as long as the gate");
    }

    pub(crate) async fn pass(&self) {
        self.arrived.send_modify(|seen| *seen += 1);
        let mut open = self.open.subscribe();
        let opened = open.wait_for(|&open| open).await;
        debug_assert!(opened.is_ok(), "a gate's sender lives as long as the gate");
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Reply {
    pub(super) fn new(status: u16, media_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), media_type.to_owned())],
            whole: body.clone(),
            body,
            start: 0,
            framing: Framing::Length,
            hold_head: None,
            holds: Vec::new(),
            cut: None,
            informational: 0,
        }
    }

    /// Makes the reply a part of its object: `bytes=first-last`, both within it.
    pub fn part(&mut self, first: u64, last: u64) -> &mut Self {
        let total = self.whole.len();
        let (from, to) = (as_index(first), as_index(last) + 1);
        self.status = 206;
        self.body = self.whole.slice(from..to);
        self.start = first;
        self.header("Content-Range", format!("bytes {first}-{last}/{total}"))
    }

    pub fn status(&mut self, status: u16) -> &mut Self {
        self.status = status;
        self
    }

    /// Sets a header.
    pub fn header(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.without_header(name).extra_header(name, value)
    }

    /// Adds a header, also a second of its name.
    pub fn extra_header(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn without_header(&mut self, name: &str) -> &mut Self {
        self.headers.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        self
    }

    /// Another body, honestly told.
    pub fn body(&mut self, media_type: &str, body: impl Into<Bytes>) -> &mut Self {
        self.body = body.into();
        self.start = 0;
        self.header("Content-Type", media_type)
    }

    /// A status with an error body of the distribution API, as registries send it.
    pub fn error(&mut self, status: u16, code: &str) -> &mut Self {
        self.headers.clear();
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"so says the test registry"}}]}}"#);
        self.status(status).body("application/json", body)
    }

    /// Holds the head back until the gate opens.
    pub fn hold_head(&mut self, gate: &Gate) -> &mut Self {
        self.hold_head = Some(gate.clone());
        self
    }

    /// Holds the body back at a byte until the gate opens. Byte 0: right after the head.
    pub fn hold_at(&mut self, at: u64, gate: &Gate) -> &mut Self {
        self.holds.push((at, gate.clone()));
        self
    }

    /// Ends the connection before a byte.
    pub fn cut(&mut self, at: u64, how: Cut) -> &mut Self {
        self.cut = Some((at, how));
        self
    }

    /// Flips a bit of one byte, if that byte is in the reply.
    pub fn corrupt(&mut self, at: u64) -> &mut Self {
        if let Some(at) = at.checked_sub(self.start).map(as_index).filter(|&at| at < self.body.len()) {
            let mut body = self.body.to_vec();
            body[at] ^= 1;
            self.body = body.into();
        }
        self
    }

    /// So many bytes less, honestly told.
    pub fn shorten(&mut self, by: usize) -> &mut Self {
        self.body.truncate(self.body.len().saturating_sub(by));
        self
    }

    /// So many bytes more, honestly told.
    pub fn lengthen(&mut self, by: usize) -> &mut Self {
        let mut body = self.body.to_vec();
        body.resize(body.len() + by, b'+');
        self.body = body.into();
        self
    }

    /// A `Content-Length` of this text, whatever the body is.
    pub fn content_length(&mut self, text: &str) -> &mut Self {
        self.header("Content-Length", text)
    }

    pub fn chunked(&mut self) -> &mut Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Chunks that end with the connection instead of the last chunk.
    pub fn unterminated_chunks(&mut self) -> &mut Self {
        self.framing = Framing::UnterminatedChunks;
        self
    }

    /// No length at all: the body ends with the connection.
    pub fn without_length(&mut self) -> &mut Self {
        self.framing = Framing::Close;
        self
    }

    /// The body compressed, and said so.
    pub fn gzip(&mut self) -> &mut Self {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&self.body).expect("writing to memory does not fail");
        self.body = gzip.finish().expect("writing to memory does not fail").into();
        self.header("Content-Encoding", "gzip")
    }

    /// The whole object with 200, whatever Range was asked for.
    pub fn ignore_range(&mut self) -> &mut Self {
        self.status = 200;
        self.body = self.whole.clone();
        self.start = 0;
        self.without_header("Content-Range")
    }

    /// A redirect to an absolute or relative location.
    pub fn redirect(&mut self, status: u16, location: &str) -> &mut Self {
        self.headers.clear();
        self.status(status).body("text/html", "<a>moved</a>").header("Location", location)
    }

    /// So many `103 Early Hints` before the reply.
    pub fn informational(&mut self, count: usize) -> &mut Self {
        self.informational = count;
        self
    }

    /// Whether this would be content, not a refusal.
    #[must_use]
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// How many bytes the whole object has.
    #[must_use]
    pub fn whole_len(&self) -> u64 {
        self.whole.len() as u64
    }
}

fn as_index(offset: u64) -> usize {
    usize::try_from(offset).expect("test objects fit in memory")
}
