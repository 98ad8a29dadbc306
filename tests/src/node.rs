//! A node to test with: the mirror in this process on a port and a data directory of its own ([`Node`]), or agent and
//! installer as the processes that are shipped ([`Site`], [`Process`]). Must not hold what a test expects, only what
//! holds for each.

mod disk;
mod metrics;
mod process;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use larder_mirror::Mirror;
use larder_wire::settings::{Settings, UpstreamSettings, UpstreamUrl};
use larder_wire::units::Size;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Exchange, Reply, Request};
use crate::invariants;
use crate::upstream::Upstream;
use crate::wait::{until, within};

pub use disk::SmallDisk;
pub use metrics::{Metrics, sum as metric_sum};
pub use process::{Process, Site, agent_binary, installer_binary, is_root};

/// What the harness calls its registry, as `ns`.
pub const REGISTRY: &str = "registry.test";
/// The node's name in error bodies.
pub const NODE: &str = "node-under-test";
/// The instance key of a node in this process.
pub const KEY: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Chosen before a node starts.
pub struct Builder {
    settings: Settings,
    dir: Option<TempDir>,
    address: IpAddr,
}

/// A running mirror. End it with [`Node::finish`] (or [`Node::stop`]): that checks what must always hold.
pub struct Node {
    address: SocketAddr,
    settings: Settings,
    mirror: Mirror,
    metrics: Metrics,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    dir: Option<TempDir>,
}

impl Node {
    /// A node with one upstream called [`REGISTRY`] and defaults.
    pub async fn with(upstream: &Upstream) -> Self {
        Self::builder().upstream(upstream).start().await
    }

    /// No upstream yet; no free space kept, so that a full disk under the tests does not matter.
    #[must_use]
    pub fn builder() -> Builder {
        let mut settings = Settings::default();
        settings.upstreams.clear();
        settings.cache.min_free = Size::Bytes(0);
        settings.cache.max_size = Size::Bytes(0);
        Builder { settings, dir: None, address: Ipv4Addr::LOCALHOST.into() }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.settings.data_dir
    }

    #[must_use]
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Changes settings of the running mirror.
    pub fn apply(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.mirror.apply(&self.settings);
    }

    pub async fn fetch(&self, request: Request) -> Reply {
        client::fetch(self.address, request).await
    }

    pub async fn open(&self, request: Request) -> Exchange {
        client::open(self.address, request).await
    }

    /// Waits until so many connections are there and what was sent on them has been read.
    pub async fn has_read_requests(&self, connections: usize) {
        let local = format!(":{:04X}", self.address.port());
        until(format!("{connections} requests are read"), async || {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
            // local address, remote address, state (01: established), send queue:receive queue
            let queues = table.lines().filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let ours = fields.get(1)?.ends_with(&local) && *fields.get(3)? == "01";
                ours.then(|| fields.get(4).map(|queues| queues.ends_with(":00000000")))?
            });
            let queues: Vec<bool> = queues.collect();
            (queues.len() >= connections && queues.iter().all(|read| *read)).then_some(())
        })
        .await;
        // What was read is acted on before requests that come after it.
        for _ in 0..3 {
            let _ = self.fetch(Request::get("/v2/")).await;
        }
    }

    /// Where a blob of a public upstream is stored.
    #[must_use]
    pub fn public_path(&self, digest: &str) -> PathBuf {
        stored_path(&self.data_dir().join("blobs/public"), digest)
    }

    /// Where a blob of a shared upstream is stored.
    #[must_use]
    pub fn shared_path(&self, registry: &str, digest: &str) -> PathBuf {
        stored_path(&self.data_dir().join("blobs/shared").join(registry), digest)
    }

    /// Waits until a blob of a public upstream is stored: release to clients comes before that.
    pub async fn stored(&self, digest: &str) {
        let path = self.public_path(digest);
        until(format!("{digest} is stored"), async || path.exists().then_some(())).await;
    }

    /// Whether a blob is stored, in any class.
    #[must_use]
    pub fn has_stored(&self, digest: &str) -> bool {
        let hex = digest.rsplit(':').next().unwrap_or_default();
        invariants::files(&self.data_dir().join("blobs")).iter().any(|file| file.ends_with(hex))
    }

    /// Checks what must hold after every test and ends the node.
    pub async fn finish(self) {
        drop(self.stop().await);
    }

    /// [`Node::finish`], keeping the data directory and settings for a next start.
    pub async fn stop(mut self) -> Builder {
        self.check().await;
        self.stop.cancel();
        let serving = self.serving.take().expect("a node is stopped once");
        let served = within("the mirror drains and returns", serving).await;
        assert!(served.is_ok(), "serving panicked: {served:?}");
        within("the mirror closes", self.mirror.clone().close()).await;
        let builder = Builder {
            settings: self.settings.clone(),
            dir: self.dir.take(),
            address: Ipv4Addr::LOCALHOST.into(),
        };
        drop(self);
        invariants::everything_gets_closed(builder.path()).await;
        builder
    }

    async fn check(&self) {
        invariants::tmp_gets_empty(self.data_dir()).await;
        invariants::files_get_closed(None, self.data_dir()).await;
        let _ = invariants::stored_files_match(self.data_dir());
        invariants::tells_no_secret("metrics", &self.metrics.text());
        invariants::tells_no_secret("logs", &logs());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        let finished = self.serving.is_none() || std::thread::panicking();
        debug_assert!(finished, "a node was dropped without finish(), so nothing was checked");
    }
}

impl Builder {
    /// Adds an upstream called [`REGISTRY`].
    #[must_use]
    pub fn upstream(self, upstream: &Upstream) -> Self {
        self.upstream_as(REGISTRY, upstream, |_| ())
    }

    /// Adds an upstream of a name, changed as the test needs it.
    #[must_use]
    pub fn upstream_as(
        mut self,
        registry: &str,
        upstream: &Upstream,
        change: impl FnOnce(&mut UpstreamSettings),
    ) -> Self {
        let mut settings = UpstreamSettings::new(registry.parse().expect("tests name registries well"));
        settings.url = url(&upstream.url());
        change(&mut settings);
        self.settings.upstreams.push(settings);
        self
    }

    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Listens elsewhere than on 127.0.0.1, as no settings file can say.
    #[must_use]
    pub fn listen_on(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// Where the data is, once a node has run here or [`Builder::data_dir`] was set.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.settings.data_dir
    }

    /// A data directory that the test made, not one below a fresh temporary directory.
    #[must_use]
    pub fn data_dir(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.settings.data_dir);
        self.dir = Some(temp_dir());
        self
    }

    pub async fn start(mut self) -> Node {
        capture_logs();
        if self.dir.is_none() {
            let dir = temp_dir();
            self.settings.data_dir = dir.path().join("data");
            self.dir = Some(dir);
        }
        let dir = self.dir.take().expect("made above");
        self.settings.run_dir = dir.path().join("run");
        let listener = TcpListener::bind((self.address, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        self.settings.listen.mirror = address;
        let mirror = within("the mirror opens", Mirror::open(&self.settings, NODE, KEY.to_vec())).await;
        let mirror = mirror.expect("the mirror opens");
        let metrics = Metrics::of(&mirror);
        let stop = CancellationToken::new();
        let serving = {
            let (mirror, stop) = (mirror.clone(), stop.clone());
            tokio::spawn(async move { mirror.serve(listener, stop, Duration::from_secs(5)).await })
        };
        Node {
            address,
            settings: self.settings,
            mirror,
            metrics,
            stop,
            serving: Some(serving),
            dir: Some(dir),
        }
    }
}

/// The settings' form of an upstream's URL.
///
/// # Panics
/// When the text is not `http(s)://host[:port][/path]`.
#[must_use]
pub fn url(text: &str) -> UpstreamUrl {
    let (scheme, rest) = text.split_once("://").expect("a URL has a scheme");
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().expect("a port is a number"))),
        _ => (authority, None),
    };
    UpstreamUrl { tls: scheme == "https", host: host.to_owned(), port, path: path.to_owned() }
}

/// This machine's own address off loopback, if it has one. When not, says in one line what is therefore left out.
#[must_use]
#[expect(clippy::print_stderr, reason = "a test that leaves something out says so where people look")]
pub fn own_address(what: &str) -> Option<IpAddr> {
    // Connecting a UDP socket sends nothing; it only picks the address that packets would leave from.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9))?;
        socket.local_addr()
    });
    let address =
        socket.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    if address.is_none() {
        eprintln!("no address off loopback: {what} was not run");
    }
    address
}

/// A temporary directory in memory where there is such a file system: the disk may be nearly full.
#[must_use]
pub fn temp_dir() -> TempDir {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("larder-test-");
        builder
    };
    builder()
        .tempdir_in("/dev/shm")
        .or_else(|_| builder().tempdir())
        .expect("a temporary directory can be made")
}

/// All that nodes in this process have logged.
#[must_use]
pub fn logs() -> String {
    let bytes = log_buffer().lock().expect("no holder of this lock panics").clone();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn stored_path(class: &Path, digest: &str) -> PathBuf {
    let (algorithm, hex) = digest.split_once(':').expect("a digest has an algorithm");
    class.join(algorithm).join(&hex[..2]).join(hex)
}

/// One for the process, as tracing has it.
fn log_buffer() -> &'static Arc<Mutex<Vec<u8>>> {
    static BUFFER: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    BUFFER.get_or_init(Arc::default)
}

/// Keeps everything that is logged, at the finest level: secrets would show there first. With `LARDER_TEST_LOG` set it
/// is shown too.
fn capture_logs() {
    struct Tee;

    impl std::io::Write for Tee {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            log_buffer().lock().expect("no holder of this lock panics").extend_from_slice(bytes);
            if std::env::var_os("LARDER_TEST_LOG").is_some() {
                std::io::stderr().write_all(bytes)?;
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let subscriber =
        tracing_subscriber::fmt().json().with_env_filter("info,larder_mirror=trace,larder_wire=trace");
    // The first node of the process sets it; the others find it set.
    let _ = subscriber.with_writer(|| Tee).try_init();
}
