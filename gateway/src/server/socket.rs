//! A client's TCP connection. When it ends, what the client still sends is read and dropped for a while:
//! closing at once would reset the connection, and with it an answer that the client has not read yet. Must
//! not look at the bytes.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::body::passing::IDLE;

/// What is read and dropped at the end, at the most.
const MOST: usize = 64 << 20;
/// How long.
const LINGER: Duration = Duration::from_secs(5);

pub(super) struct Socket {
    stream: TcpStream,
    end: Option<End>,
}

/// The time after our last byte.
struct End {
    alarm: Pin<Box<Sleep>>,
    left: usize,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Without it an answer's end may wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        // A client that stops reading is noticed by the kernel, which knows what is not acknowledged.
        let _ = setsockopt(
            &stream,
            sockopt::TcpUserTimeout,
            &u32::try_from(IDLE.as_millis()).unwrap_or(u32::MAX),
        );
        Self { stream, end: None }
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.end.get_or_insert_with(|| End { alarm: Box::pin(sleep(LINGER)), left: MOST });
        if end.alarm.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 16 << 10];
        loop {
            let mut into = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() && end.left > 0 => {
                    end.left = end.left.saturating_sub(into.filled().len());
                }
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_drained(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
