//! The client's socket as hyper sees it: mapped ranges are sent with sendfile, and a reader that takes next to nothing is
//! cut. Unmodified hyper hands buffers over by `poll_write_vectored`; those that lie in a known mapping are files.

mod rate;

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::region::{Region, Regions};
use rate::Rate;

pub(super) struct Socket {
    stream: TokioIo<TcpStream>,
    regions: Arc<Regions>,
    rate: Rate,
    /// Bytes since the task last let others run.
    burst: usize,
}

/// One sendfile call moves at most so much...
const CALL: usize = 2 << 20;
/// ...and after so much other tasks get their turn.
const BURST: usize = 4 << 20;

impl Socket {
    pub(super) fn new(stream: TcpStream, regions: Arc<Regions>, rate: u64, window: Duration) -> Self {
        Self { stream: TokioIo::new(stream), regions, rate: Rate::new(rate, window), burst: 0 }
    }

    fn tcp(&self) -> &TcpStream {
        self.stream.inner()
    }

    /// Waits until the socket takes bytes, then does what `send` does.
    fn when_writable(
        &self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp().poll_write_ready(cx))?;
            match self.tcp().try_io(Interest::WRITABLE, || send(self.tcp())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn send_file(
        &mut self,
        cx: &mut Context<'_>,
        region: &Region,
        from: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        if self.burst >= BURST {
            self.burst = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let sent = ready!(self.when_writable(cx, |socket| {
            let mut offset = from;
            match rustix::fs::sendfile(socket.as_fd(), region.file(), Some(&mut offset), length.min(CALL))? {
                // The file is shorter than it was: what is missing must not be made up.
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                sent => Ok(sent),
            }
        }));
        match &sent {
            Ok(count) => self.burst += count,
            Err(error) => region.note(error),
        }
        Poll::Ready(sent)
    }

    /// Sends heads that a file follows, so that they leave in one packet with it.
    fn send_heads(&self, cx: &mut Context<'_>, heads: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.when_writable(cx, |socket| {
            Ok(sendmsg(
                socket.as_fd(),
                heads,
                &mut SendAncillaryBuffer::default(),
                SendFlags::MORE | SendFlags::NOSIGNAL,
            )?)
        })
    }

    fn write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let file = bufs.iter().enumerate().find_map(|(at, buf)| Some((at, self.regions.find(buf)?)));
        match file {
            Some((0, (region, from))) => self.send_file(cx, &region, from, bufs[0].len()),
            Some((at, _)) => self.send_heads(cx, &bufs[..at]),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(from)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.write(cx, bufs);
        self.rate.judge(cx, &written)?;
        written
    }
}
