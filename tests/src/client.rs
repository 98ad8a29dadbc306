//! A small HTTP/1.1 client that sees what a library hides: how a connection ended, how many bytes came, what exactly was
//! sent. Every whole reply to a digest is hashed, and no reply may be one that the mirror must never send, so each test
//! checks both. Must not retry, follow or decode anything but chunks.

mod exchange;

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::node::REGISTRY;
use crate::wait::within;

pub use exchange::Exchange;

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that was promised came.
    Whole,
    /// The connection was closed in order before that.
    Fin,
    /// The connection was reset.
    Rst,
}

/// A request, written as given.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

/// A reply that has ended.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub end: End,
}

const LONGEST_HEAD: usize = 64 * 1024;

impl Request {
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new() }
    }

    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    #[must_use]
    pub fn head(target: &str) -> Self {
        Self::new("HEAD", target)
    }

    /// GET of a blob of the harness' usual registry.
    #[must_use]
    pub fn blob(repository: &str, digest: &str) -> Self {
        Self::get(&format!("/v2/{repository}/blobs/{digest}?ns={REGISTRY}"))
    }

    /// GET of a manifest of the harness' usual registry, by tag or digest.
    #[must_use]
    pub fn manifest(repository: &str, reference: &str) -> Self {
        Self::get(&format!("/v2/{repository}/manifests/{reference}?ns={REGISTRY}"))
    }

    /// The same by another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// The same with another query: `ns=…`, or nothing.
    #[must_use]
    pub fn query(mut self, query: &str) -> Self {
        let path = self.target.split('?').next().unwrap_or_default();
        self.target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self
    }

    #[must_use]
    pub fn range(self, range: &str) -> Self {
        self.header("Range", range)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn text(&self, address: SocketAddr) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {address}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text
    }
}

/// Sends a request on a connection of its own and reads the reply to its end.
pub async fn fetch(address: SocketAddr, request: Request) -> Reply {
    open(address, request).await.read_all().await
}

/// Sends a request on a connection of its own and reads the head of the reply.
pub async fn open(address: SocketAddr, request: Request) -> Exchange {
    let stream = connect(address).await;
    open_on(stream, address, request).await
}

/// [`open`] on a connection that is there; see [`Exchange::into_stream`].
pub async fn open_on(stream: TcpStream, address: SocketAddr, request: Request) -> Exchange {
    let what = format!("{} {}", request.method, request.target);
    let opened = try_open_on(stream, address, request).await;
    assert!(opened.is_ok(), "{what}: no head: {:?}", opened.err());
    opened.expect("asserted above")
}

/// Pulls from a server that may die meanwhile: how the body ended, or nothing when not even a head came.
pub async fn try_drain(address: SocketAddr, request: Request) -> Option<End> {
    let stream = TcpStream::connect(address).await.ok()?;
    let exchange = try_open_on(stream, address, request).await.ok()?;
    Some(exchange.drain().await.1)
}

async fn try_open_on(mut stream: TcpStream, address: SocketAddr, request: Request) -> io::Result<Exchange> {
    let what = format!("{} {}", request.method, request.target);
    stream.write_all(request.text(address).as_bytes()).await?;
    let mut buffer = Vec::new();
    let head = loop {
        if let Some(at) = find(&buffer, b"\r\n\r\n") {
            let rest = buffer.split_off(at + 4);
            break std::mem::replace(&mut buffer, rest);
        }
        if within(format!("{what}: the head"), stream.read_buf(&mut buffer)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(buffer.len() < LONGEST_HEAD, "{what}: a head without end");
    };
    let (status, headers) = parse_head(&head);
    check_status(&what, status, &headers);
    Ok(Exchange::new(stream, request, (status, headers), buffer))
}

/// A connection to which nothing has been sent.
pub async fn connect(address: SocketAddr) -> TcpStream {
    let stream = within("connecting", TcpStream::connect(address)).await;
    assert!(stream.is_ok(), "cannot connect to {address}: {stream:?}");
    stream.expect("asserted above")
}

/// Sends bytes as they are, ends our side, and reads until the other side ends; a reset gives what came before it.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address).await;
    let mut reply = Vec::new();
    // A peer that has seen enough may close while we still send: what it said is all that counts.
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    let mut piece = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = within("a reply to raw bytes", stream.read(&mut piece)).await {
        reply.extend_from_slice(&piece[..read]);
    }
    reply
}

/// How many replies there are in what [`raw`] read, by their status lines.
#[must_use]
pub fn statuses(raw: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(raw);
    let lines = text.match_indices("HTTP/1.").map(|(at, _)| &text[at..]);
    lines.filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect()
}

impl Reply {
    /// The first header of a name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// How many headers of a name there are.
    #[must_use]
    pub fn header_count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name)).count()
    }

    /// The first code and message of an OCI error body.
    ///
    /// # Panics
    /// When the body is none.
    #[must_use]
    pub fn oci_error(&self) -> (String, String) {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = |key: &str| body["errors"][0][key].as_str().map(str::to_owned);
        let (code, message) = (text("code"), text("message"));
        assert!(
            code.is_some() && message.is_some(),
            "{} without an OCI error body: {:?}",
            self.status,
            self.body
        );
        (code.unwrap_or_default(), message.unwrap_or_default())
    }

    /// Whether the whole reply came.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.end == End::Whole
    }
}

/// What a mirror must never say: containerd would ask pods' secrets of us, ask us again, or fail.
fn check_status(what: &str, status: u16, headers: &[(String, String)]) {
    assert!(!matches!(status, 401 | 408 | 429), "{what}: {status} must never be sent");
    assert!(!(300..400).contains(&status) || status == 304, "{what}: {status} must never be sent");
    assert_eq!(find_header(headers, "www-authenticate"), None, "{what}: a challenge must never be sent");
    assert_eq!(find_header(headers, "content-encoding"), None, "{what}: nothing is ever encoded");
}

fn parse_head(head: &[u8]) -> (u16, Vec<(String, String)>) {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    assert!(status.is_some(), "not a reply of HTTP/1.1: {head}");
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    (status.expect("asserted above"), headers)
}

fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
