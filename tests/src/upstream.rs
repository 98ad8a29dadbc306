//! A registry of our own on a port of its own, over TCP or TLS, that can misbehave in every way a registry, a CDN or a
//! network does: rules change single replies, also in ways that no HTTP library would write. It remembers every request.
//! Must not be fast or complete: only what tests of a pull need.

mod content;
mod faults;
mod rules;
mod server;
mod tls;
mod token;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::image::{Image, Object};
use crate::wait::until;
use content::Content;
use rules::Rule;
use tls::Tls;

pub use content::{Auth, Private};
pub use faults::{Cut, Gate, Reply};
pub use rules::On;
pub use tls::Flaw;
pub use token::{CANARY, Tokens};

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Base,
    /// A manifest by digest.
    Manifest,
    /// A manifest by tag.
    Tag,
    Blob,
    /// `tags/list`
    Tags,
    Referrers,
    Token,
    /// `CONNECT`, to us as a proxy.
    Connect,
    Other,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub kind: Kind,
    pub method: String,
    /// As sent, without the query.
    pub path: String,
    /// As sent; empty when there is none.
    pub query: String,
    pub headers: Vec<(String, String)>,
    /// The repository, when the path names one.
    pub repository: String,
    /// The tag or digest, when the path names one.
    pub reference: String,
    /// Whether the request line held a whole URL, as for a proxy.
    pub absolute: bool,
    /// The status of the reply.
    pub status: u16,
}

/// A running registry. Clones are the same registry; it ends with the last.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
    accepting: Arc<Mutex<Accepting>>,
}

/// Chosen before a registry starts.
pub struct Builder {
    address: IpAddr,
    prefix: String,
    auth: Auth,
    tokens: Tokens,
    tls: Option<Tls>,
    tls_after_connect: bool,
}

struct Shared {
    address: SocketAddr,
    prefix: String,
    tls: Option<Tls>,
    /// TLS starts only after a `CONNECT`, as when we are a proxy and the registry behind it.
    tls_after_connect: bool,
    tokens: Tokens,
    content: Mutex<Content>,
    rules: Mutex<Vec<Rule>>,
    seen: watch::Sender<Vec<Seen>>,
    connections: AtomicU64,
    writing: AtomicU64,
    body_bytes: AtomicU64,
}

struct Accepting(Option<JoinHandle<()>>);

impl Upstream {
    /// An open registry over plain HTTP on 127.0.0.1.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            address: Ipv4Addr::LOCALHOST.into(),
            prefix: String::new(),
            auth: Auth::Open,
            tokens: Tokens::default(),
            tls: None,
            tls_after_connect: false,
        }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Its URL as an upstream's setting has it, path prefix included.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.shared.address, self.shared.prefix)
    }

    /// The authority to trust for it.
    ///
    /// # Panics
    /// When it does not speak TLS.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        self.shared.tls.as_ref().expect("the upstream speaks TLS").ca_file()
    }

    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.shared.tokens
    }

    /// Stores an image under a tag: index, manifest, config and layers.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) {
        self.push_manifest(repository, &image.manifest);
        self.push_tag(repository, tag, &image.index);
        for blob in image.blobs() {
            self.push_blob(repository, blob);
        }
    }

    pub fn push_blob(&self, repository: &str, blob: &Object) {
        self.content().put_blob(repository, blob);
    }

    pub fn push_manifest(&self, repository: &str, manifest: &Object) {
        self.content().put_manifest(repository, manifest);
    }

    /// Stores a manifest and points a tag at it.
    pub fn push_tag(&self, repository: &str, tag: &str, manifest: &Object) {
        self.content().put_manifest(repository, manifest);
        self.content().put_tag(repository, tag, &manifest.digest);
    }

    pub fn delete_tag(&self, repository: &str, tag: &str) {
        self.content().delete_tag(repository, tag);
    }

    /// Lets only known users read a repository, and says how others are refused.
    pub fn make_private(&self, repository: &str, how: Private) {
        if how == Private::NoToken {
            self.shared.tokens.close(repository);
        }
        self.content().make_private(repository, how);
    }

    /// Sends token requests elsewhere: the realm of challenges from now on.
    pub fn set_realm(&self, realm: &str) {
        self.content().set_realm(realm);
    }

    /// Begins a rule for requests of a kind.
    pub fn on(&self, kind: Kind) -> On<'_> {
        On::new(self, kind)
    }

    pub fn clear_rules(&self) {
        self.rules().clear();
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// How many requests of a kind and method there were.
    #[must_use]
    pub fn count(&self, kind: Kind, method: &str) -> usize {
        self.shared.seen.borrow().iter().filter(|seen| seen.kind == kind && seen.method == method).count()
    }

    /// How many requests of a kind were answered with content.
    #[must_use]
    pub fn served(&self, kind: Kind) -> usize {
        let is =
            |seen: &&Seen| seen.kind == kind && seen.method == "GET" && (200..300).contains(&seen.status);
        self.shared.seen.borrow().iter().filter(is).count()
    }

    /// How many requests there were.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.seen.borrow().len()
    }

    /// Requests for content: all but tokens, `/v2/` and `CONNECT`.
    #[must_use]
    pub fn content_requests(&self) -> usize {
        let aside = |kind| matches!(kind, Kind::Token | Kind::Base | Kind::Connect);
        self.shared.seen.borrow().iter().filter(|seen| !aside(seen.kind)).count()
    }

    /// Waits until so many requests of a kind and method have come.
    pub async fn asked(&self, kind: Kind, method: &str, count: usize) {
        let what = format!("{count} {method} requests of kind {kind:?}");
        until(what, async || (self.count(kind, method) >= count).then_some(())).await;
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Whether no reply is being written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.writing.load(Ordering::SeqCst) == 0
    }

    /// Bytes of bodies written so far, for blobs and manifests.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.load(Ordering::SeqCst)
    }

    /// Stops accepting and ends every connection; the port refuses.
    pub async fn stop(&self) {
        let task = self.accepting.lock().expect("no holder of this lock panics").0.take();
        if let Some(task) = task {
            task.abort();
            let ended = task.await;
            assert!(ended.is_err_and(|error| error.is_cancelled()), "the registry's task panicked");
        }
    }

    /// Accepts again on the same port after [`Upstream::stop`].
    pub async fn resume(&self) {
        let listener = TcpListener::bind(self.shared.address).await.expect("the port is still free");
        self.accept_on(listener);
    }

    fn accept_on(&self, listener: TcpListener) {
        let task = tokio::spawn(server::accept(Arc::clone(&self.shared), listener));
        self.accepting.lock().expect("no holder of this lock panics").0 = Some(task);
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.content.lock().expect("no holder of this lock panics")
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.shared.rules.lock().expect("no holder of this lock panics")
    }
}

impl Builder {
    /// The address to listen on, 127.0.0.1 if not said.
    #[must_use]
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.address = address.into();
        self
    }

    /// A path before `/v2`-less routes, as `override_path` means it: `/v2/proxy-project` serves
    /// `/v2/proxy-project/NAME/manifests/REF`.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Takes and gives the tokens of another registry.
    #[must_use]
    pub fn tokens(mut self, tokens: &Tokens) -> Self {
        self.tokens = tokens.clone();
        self
    }

    /// TLS with a certificate for these names or addresses.
    #[must_use]
    pub fn tls(mut self, names: &[&str], flaw: Flaw) -> Self {
        self.tls = Some(Tls::new(names, flaw));
        self
    }

    /// Speaks TLS only after a `CONNECT`: this is the proxy and the registry behind it.
    #[must_use]
    pub fn tls_after_connect(mut self) -> Self {
        self.tls_after_connect = true;
        self
    }

    pub async fn start(self) -> Upstream {
        let listener = TcpListener::bind((self.address, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let realm = format!("{scheme}://{address}/token");
        let shared = Shared {
            address,
            content: Mutex::new(Content::new(self.auth, realm, self.prefix.clone())),
            prefix: self.prefix,
            tls: self.tls,
            tls_after_connect: self.tls_after_connect,
            tokens: self.tokens,
            rules: Mutex::default(),
            seen: watch::Sender::new(Vec::new()),
            connections: AtomicU64::new(0),
            writing: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
        };
        let upstream =
            Upstream { shared: Arc::new(shared), accepting: Arc::new(Mutex::new(Accepting(None))) };
        upstream.accept_on(listener);
        upstream
    }
}

impl Seen {
    /// The first header of a name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
