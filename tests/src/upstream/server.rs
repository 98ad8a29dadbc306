//! The test registry's sockets: reads requests, writes replies byte by byte as a rule says. Must not decide what a
//! reply holds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use super::faults::Framing;
use super::{Cut, Kind, Reply, Seen, Shared};

const PIECE: usize = 64 * 1024;

/// A connection in plain or over TLS.
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What becomes of a connection after a reply.
#[derive(PartialEq, Eq)]
enum After {
    Next,
    Close,
    Tls,
}

/// Serves a listener until it is aborted; its connections end with it.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                // A connection that breaks is the other side's business; what it asked for is in the log.
                connections.spawn(async move { drop(serve(&shared, stream).await) });
            }
            Some(ended) = connections.join_next() => assert!(ended.is_ok(), "a connection's task panicked"),
        }
    }
}

async fn serve(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = match &shared.tls {
        Some(tls) if !shared.tls_after_connect => Wire::Tls(Box::new(tls.acceptor.accept(stream).await?)),
        _ => Wire::Plain(stream),
    };
    while let Some(head) = read_head(&mut wire).await? {
        let mut seen = understand(shared, &head);
        // First the reply's making, then the log: who waits for a request may change the rules after it.
        let reply = make(shared, &seen);
        seen.status = reply.status;
        shared.seen.send_modify(|log| log.push(seen.clone()));
        shared.writing.fetch_add(1, Ordering::SeqCst);
        let written = write(shared, &mut wire, &seen, reply).await;
        shared.writing.fetch_sub(1, Ordering::SeqCst);
        match written? {
            After::Next => {}
            After::Close => break,
            After::Tls => {
                if let (Wire::Plain(stream), Some(tls)) = (wire, &shared.tls) {
                    wire = Wire::Tls(Box::new(tls.acceptor.accept(stream).await?));
                } else {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            }
        }
    }
    Ok(())
}

/// A request's head as text, or nothing at the connection's end. Bodies are not expected.
async fn read_head(wire: &mut Wire) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = wire.read_u8().await else { return Ok(None) };
        head.push(byte);
    }
    String::from_utf8(head).map(Some).map_err(io::Error::other)
}

fn understand(shared: &Shared, head: &str) -> Seen {
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let absolute = target.split_once("://").map(|(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let (path, query) =
        absolute.unwrap_or(target).split_once('?').unwrap_or_else(|| (absolute.unwrap_or(target), ""));
    let content = shared.content.lock().expect("no holder of this lock panics");
    let (kind, repository, reference) = match method {
        "CONNECT" => (Kind::Connect, String::new(), target.to_owned()),
        _ => content.route(path),
    };
    Seen {
        kind,
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        repository,
        reference,
        absolute: absolute.is_some(),
        status: 0,
    }
}

/// The honest reply, changed by every rule that is for the request.
fn make(shared: &Shared, seen: &Seen) -> Reply {
    let mut reply =
        shared.content.lock().expect("no holder of this lock panics").answer(seen, &shared.tokens);
    if seen.kind == Kind::Connect {
        reply.status(200);
    }
    for rule in shared.rules.lock().expect("no holder of this lock panics").iter_mut() {
        if rule.takes(seen) {
            (rule.change)(&mut reply);
        }
    }
    reply
}

async fn write(shared: &Shared, wire: &mut Wire, seen: &Seen, reply: Reply) -> io::Result<After> {
    if let Some(gate) = &reply.hold_head {
        gate.pass().await;
    }
    for _ in 0..reply.informational {
        wire.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n").await?;
    }
    if seen.kind == Kind::Connect && reply.status == 200 {
        wire.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        return Ok(if shared.tls_after_connect { After::Tls } else { After::Next });
    }
    wire.write_all(head(&reply).as_bytes()).await?;
    let bodiless = seen.method == "HEAD" || matches!(reply.status, 204 | 304);
    if !bodiless && write_body(shared, wire, seen, &reply).await? == After::Close {
        return Ok(After::Close);
    }
    wire.flush().await?;
    let close = seen.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let ends = !bodiless && matches!(reply.framing, Framing::Close | Framing::UnterminatedChunks);
    if close || ends {
        wire.shutdown().await?;
        return Ok(After::Close);
    }
    Ok(After::Next)
}

fn head(reply: &Reply) -> String {
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let told = reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match reply.framing {
        Framing::Length if !told && reply.status != 204 => {
            head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
        }
        Framing::Chunked | Framing::UnterminatedChunks => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::Close => head.push_str("Connection: close\r\n"),
        Framing::Length => {}
    }
    head.push_str("\r\n");
    head
}

/// Writes the body up to each hold and to the cut. A length that lies ends the connection too.
async fn write_body(shared: &Shared, wire: &mut Wire, seen: &Seen, reply: &Reply) -> io::Result<After> {
    let mut holds: Vec<_> = reply.holds.iter().filter(|(at, _)| *at >= reply.start).collect();
    holds.sort_by_key(|(at, _)| *at);
    let counts = matches!(seen.kind, Kind::Blob | Kind::Manifest | Kind::Tag);
    let mut at = reply.start;
    let end = reply.start + reply.body.len() as u64;
    let mut holds = holds.into_iter().peekable();
    loop {
        if let Some((_, gate)) = holds.next_if(|(hold, _)| *hold <= at) {
            wire.flush().await?;
            gate.pass().await;
            continue;
        }
        if let Some((_, how)) = reply.cut.filter(|(cut, _)| *cut <= at) {
            return wire.end(how).await;
        }
        if at >= end {
            break;
        }
        let mut stop = end.min(at + PIECE as u64);
        for limit in holds.peek().map(|(hold, _)| *hold).into_iter().chain(reply.cut.map(|(cut, _)| cut)) {
            stop = stop.min(limit.max(at + 1));
        }
        let piece = &reply.body[index(at - reply.start)..index(stop - reply.start)];
        if counts {
            shared.body_bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
        write_piece(wire, piece, reply.framing).await?;
        at = stop;
    }
    if reply.framing == Framing::Chunked {
        wire.write_all(b"0\r\n\r\n").await?;
    }
    let told = reply.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let honest = told.is_none_or(|(_, value)| value.parse() == Ok(reply.body.len()));
    if honest { Ok(After::Next) } else { wire.end(Cut::Fin).await }
}

async fn write_piece(wire: &mut Wire, piece: &[u8], framing: Framing) -> io::Result<()> {
    match framing {
        Framing::Length | Framing::Close => wire.write_all(piece).await,
        Framing::Chunked | Framing::UnterminatedChunks => {
            wire.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            wire.write_all(piece).await?;
            wire.write_all(b"\r\n").await
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("test objects fit in memory")
}

impl Wire {
    /// Ends the connection at once.
    async fn end(&mut self, how: Cut) -> io::Result<After> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => {
                stream.flush().await?;
                stream.get_mut().0
            }
        };
        match how {
            Cut::Fin => stream.shutdown().await?,
            Cut::Rst => stream.set_zero_linger()?,
        }
        Ok(After::Close)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
