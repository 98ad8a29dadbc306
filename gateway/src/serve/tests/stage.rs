//! A registry and a gateway on loopback sockets, and a client that writes bytes. What the registry answers is
//! each test's own; what it was asked is kept.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::{Gateway, Places};
use crate::body::{self, Body};
use crate::config;
use crate::metrics::Metrics;
use crate::owner::Owners;
use crate::policy::PolicyWatch;
use crate::server::{self, Tls};
use crate::sizes::Sizes;
use crate::tags::{self, Tags};
use crate::uploads::Sessions;
use crate::upstream::{TlsFiles, Upstream};

pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Script = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// Longer than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const DRAIN: Duration = Duration::from_secs(25);

/// One request as the registry got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A registry that does what a test says.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Registry {
    /// Takes each request as a whole, keeps it, and answers it.
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let kept = Arc::clone(&seen);
        let address = Self::scripted(move |request| {
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            Box::pin(async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                let target = head.uri.to_string();
                let seen = Seen { method: head.method, target, headers: head.headers, body };
                kept.lock().unwrap().push(seen.clone());
                answer(&seen)
            })
        });
        Self { address: address.await, seen }
    }

    pub(crate) async fn scripted(
        script: impl Fn(Request<Incoming>) -> Answering + Send + Sync + 'static,
    ) -> SocketAddr {
        let script: Script = Arc::new(script);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                let service = service_fn(move |request| {
                    let answering = script(request);
                    async move { Ok::<_, std::convert::Infallible>(answering.await) }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(serving.await) });
            }
        });
        address
    }

    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A gateway in front of a registry.
pub(crate) struct Stage {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    _policy: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new(registry: SocketAddr, policy: &str) -> Self {
        Self::with(registry, policy, "", None).await
    }

    pub(crate) async fn with(registry: SocketAddr, policy: &str, more: &str, tls: Option<Arc<Tls>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gateway = Arc::new(gateway(registry, dir.path(), policy, more));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = server::serve(Arc::clone(&gateway), listener, tls, stop.clone(), DRAIN);
        Self { gateway, address, stop, serving: tokio::spawn(serving), _policy: dir }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Writes a request as it stands and reads everything up to the connection's end.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        rest(&mut stream).await
    }

    /// The same for a request without a body, or with one of known length.
    pub(crate) async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> String {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: registry.example\r\nconnection: close\r\n\
             content-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.raw([head.as_bytes(), body].concat()).await
    }

    /// The same in chunks.
    pub(crate) async fn ask_in_chunks(&self, line: &str, headers: &str, chunks: &[&[u8]]) -> String {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: registry.example\r\nconnection: close\r\n\
             transfer-encoding: chunked\r\n{headers}\r\n"
        );
        let mut request = head.into_bytes();
        for chunk in chunks {
            request.extend(format!("{:x}\r\n", chunk.len()).bytes());
            request.extend(*chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        self.raw(request).await
    }
}

fn gateway(registry: SocketAddr, dir: &Path, policy: &str, more: &str) -> Gateway {
    let policy_file = dir.join("policy.json");
    std::fs::write(&policy_file, policy).unwrap();
    let settings = format!("upstream = \"http://{registry}\"\n{more}");
    let config = config::parse(&settings).config.unwrap();
    let policy = PolicyWatch::open(&policy_file).unwrap();
    let metrics = Arc::new(Metrics::new(policy.failures()));
    let upstream = Arc::new(Upstream::new(config.upstream.clone(), TlsFiles::default()).unwrap());
    let tags = Tags::new(tags::Parts {
        upstream: Arc::clone(&upstream),
        policy: policy.clone(),
        metrics: Arc::clone(&metrics),
        settings: tags::Settings { mode: config.mode, seed_timeout: config.seed_timeout },
        owners: Owners::single(),
        peers: None,
    });
    let places = Places::new(config.max_reads, config.max_writes);
    let (sizes, sessions) = (Arc::new(Sizes::default()), Sessions::default());
    Gateway { config, upstream, policy, sizes, tags, metrics, sessions, places }
}

/// What a connection says until it ends.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut text)).await.expect("the connection ends").unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads until the text ends like this.
pub(crate) async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let byte = timeout(DEADLINE, stream.read_u8()).await.expect("it comes");
        text.push(byte.unwrap_or_else(|_| panic!("ended after {}", String::from_utf8_lossy(&text))));
    }
    String::from_utf8(text).unwrap()
}

pub(crate) async fn eventually(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "it never holds");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn reply(status: u16, headers: &[(&str, &str)]) -> Response<Body> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body::empty()).unwrap()
}

/// The status of a reply's text.
pub(crate) fn status(reply: &str) -> u16 {
    reply
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no reply: {reply}"))
}
