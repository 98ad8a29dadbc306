//! Resolving, judging and connecting, as the connector that hyper's client calls. Must not connect to an address that
//! was not judged.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{GuardError, Peer, Policy, canonical, private};

const CONNECT: Duration = Duration::from_secs(3);
/// Where there are several addresses, each of the first gets only so long.
const EACH: Duration = Duration::from_millis(500);

/// The connector of one upstream.
#[derive(Clone)]
pub(crate) struct Guard(Arc<Policy>);

/// A connection, and whether requests on it must name the whole URI for a proxy.
pub(crate) struct Link {
    stream: TokioIo<TcpStream>,
    proxied: bool,
}

type Dialing<T> = Pin<Box<dyn Future<Output = Result<T, GuardError>> + Send>>;

impl Guard {
    pub(crate) fn new(policy: Policy) -> Self {
        Self(Arc::new(policy))
    }

    async fn connect(self, uri: Uri) -> Result<Link, GuardError> {
        let policy = &*self.0;
        let host = uri.host().ok_or(GuardError::NoHost)?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let peer = self.peer(host, port).await;
        if policy.proxy.is_none() {
            let stream = tokio::time::timeout(CONNECT, self.direct(host, port, peer)).await;
            let stream = TokioIo::new(stream.map_err(|_| GuardError::Timeout(CONNECT))??);
            return Ok(Link { stream, proxied: false });
        }
        // Behind a proxy names are resolved by the proxy: only a literal can be judged here.
        if let Ok(literal) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            policy.judge(SocketAddr::new(literal, port), peer)?;
        }
        self.proxied(uri.clone(), https).await
    }

    async fn peer(&self, host: &str, port: u16) -> Peer {
        if self.0.is_home(host, port) {
            return Peer::Home;
        }
        let home = &self.0.home;
        let addresses = tokio::time::timeout(CONNECT, resolve(&home.host, home.port_or_default())).await;
        let is_private =
            |address: &SocketAddr| private(canonical(address.ip())) || canonical(address.ip()).is_loopback();
        let home_private = addresses.is_ok_and(|found| found.is_ok_and(|all| all.iter().any(is_private)));
        Peer::Away { home_private }
    }

    async fn direct(&self, host: &str, port: u16, peer: Peer) -> Result<TcpStream, GuardError> {
        let addresses = resolve(host, port).await?;
        let mut last = GuardError::NoAddress(host.to_owned());
        for (at, &address) in addresses.iter().enumerate() {
            if let Err(error) = self.0.judge(address, peer) {
                last = error;
                continue;
            }
            let patience = if at + 1 < addresses.len() { EACH } else { CONNECT };
            match tokio::time::timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Without it a request may wait for an acknowledgement; a socket that refuses still works.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = GuardError::Connect(error),
                Err(_) => last = GuardError::Timeout(patience),
            }
        }
        Err(last)
    }

    async fn proxied(&self, uri: Uri, https: bool) -> Result<Link, GuardError> {
        let Some(proxy) = &self.0.proxy else { return Err(GuardError::NoHost) };
        let address = format!("http://{}:{}", proxy.host, proxy.port);
        let address: Uri = address.parse().map_err(|_| GuardError::NoAddress(proxy.host.clone()))?;
        if !https {
            let stream = ToProxy.call(address).await?;
            return Ok(Link { stream, proxied: true });
        }
        let mut tunnel = Tunnel::new(address, ToProxy);
        if let Some(header) = super::super::auth::proxy_authorization(proxy) {
            tunnel = tunnel.with_auth(header);
        }
        let opened = tokio::time::timeout(CONNECT * 2, tunnel.call(uri)).await;
        let stream = opened.map_err(|_| GuardError::Timeout(CONNECT * 2))?;
        Ok(Link { stream: stream.map_err(|error| GuardError::Tunnel(Box::new(error)))?, proxied: false })
    }
}

/// Connects to the configured proxy, which may stand anywhere.
#[derive(Clone)]
struct ToProxy;

impl Service<Uri> for ToProxy {
    type Response = TokioIo<TcpStream>;
    type Error = GuardError;
    type Future = Dialing<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GuardError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().ok_or(GuardError::NoHost)?.trim_matches(['[', ']']).to_owned();
            let connecting = TcpStream::connect((host, uri.port_u16().unwrap_or(80)));
            let stream =
                tokio::time::timeout(CONNECT, connecting).await.map_err(|_| GuardError::Timeout(CONNECT))?;
            Ok(TokioIo::new(stream.map_err(GuardError::Connect)?))
        })
    }
}

impl Service<Uri> for Guard {
    type Response = Link;
    type Error = GuardError;
    type Future = Dialing<Link>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GuardError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, GuardError> {
    let found =
        tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await.map_err(GuardError::Connect)?;
    Ok(interleaved(found.collect()))
}

/// One family after the other, the resolver's first choice first: a network without a route for one must not use up the
/// time of both.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut ones, mut others): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    std::iter::from_fn(|| {
        std::mem::swap(&mut ones, &mut others);
        others.pop_front().or_else(|| ones.pop_front())
    })
    .collect()
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let read = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let mixed = read(&["[2001::1]:1", "[2001::2]:1", "[2001::3]:1", "1.1.1.1:1"]);
        assert_eq!(interleaved(mixed), read(&["[2001::1]:1", "1.1.1.1:1", "[2001::2]:1", "[2001::3]:1"]));
        assert_eq!(interleaved(read(&["1.1.1.1:1", "2.2.2.2:1"])), read(&["1.1.1.1:1", "2.2.2.2:1"]));
    }
}
