//! etcd and an API server as processes of ours, on loopback and a directory in memory. They end with their owner, and so
//! does the directory, even when the owner is killed. Must not know what tests do with them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, oneshot};

use super::{Cluster, Place, Programs, ask, client, keys};
use crate::containerd::daemon::Daemon;
use crate::node::temp_dir;

/// Far beyond what it takes, on a machine with other work too.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

/// A running control plane; it ends when this is dropped.
pub struct Plane {
    place: Place,
    port: u16,
    etcd_port: u16,
    api_server: Option<Daemon>,
    controller_manager: Option<Daemon>,
    _etcd: Daemon,
    _cleaner: Cleaner,
}

/// Removes a directory when it is dropped or this process has ended, whatever ended it.
struct Cleaner(Child);

/// The control plane of this process, with our custom resources; started by the first who asks.
pub(super) async fn shared() -> Option<Place> {
    static PLACE: OnceCell<Option<Result<Place, String>>> = OnceCell::const_new();
    let start = async || {
        let alone = async |_: &Cluster| ((), ());
        Some(on_a_thread_of_its_own(Programs::find()?, alone).await.map(|(place, ())| place))
    };
    Some(PLACE.get_or_init(start).await.clone()?.expect("the control plane comes up"))
}

/// Tests come and go, each with a thread and a runtime; what they share belongs to a thread that stays. `beside` starts
/// what stays there too, and says what tests need to know of it.
pub(super) async fn on_a_thread_of_its_own<K, T: Send + 'static>(
    programs: Programs,
    beside: impl AsyncFnOnce(&Cluster) -> (K, T) + Send + 'static,
) -> Result<(Place, T), String> {
    let (tell, told) = oneshot::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            let plane = match Plane::start(&programs).await {
                Ok(plane) => plane,
                Err(error) => return drop(tell.send(Err(format!("{error:#}")))),
            };
            let cluster = Cluster::at(plane.place.clone()).await;
            cluster.install_crds().await;
            let (_kept, known) = beside(&cluster).await;
            // Who asked may have given up; the next one asks again.
            let _ = tell.send(Ok((plane.place.clone(), known)));
            std::future::pending::<()>().await;
        });
    });
    told.await.unwrap_or_else(|_| Err("what should be in it is not".to_owned()))
}

impl Plane {
    /// # Errors
    /// A program ends or is not ready within two minutes; its log is in the error.
    pub async fn start(programs: &Programs) -> Result<Self> {
        let dir = temp_dir().keep();
        let cleaner = Cleaner::of(&dir)?;
        let (port, etcd_port) = (free_port()?, free_port()?);
        let server = format!("https://127.0.0.1:{port}");
        keys::write(&dir, &server)?;
        let place = Place { programs: programs.clone(), dir, server };
        let etcd = start_etcd(&place, etcd_port)?;
        let mut plane = Self {
            place,
            port,
            etcd_port,
            api_server: None,
            controller_manager: None,
            _etcd: etcd,
            _cleaner: cleaner,
        };
        plane.resume().await?;
        Ok(plane)
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Ends the API server; what is stored stays.
    ///
    /// # Errors
    /// It does not end within a minute of SIGTERM.
    pub async fn stop(&mut self) -> Result<()> {
        let api_server = self.api_server.take().context("the API server runs")?;
        // Watches are not waited for: SIGTERM would wait a minute for those that nobody ends.
        api_server.end(Signal::SIGKILL, STOP).await.map(drop)
    }

    /// Starts the API server where it was, with what was stored.
    ///
    /// # Errors
    /// It ends or is not ready within two minutes.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.api_server.is_none(), "the API server runs already");
        let mut command = Programs::bound(&self.place.programs.path("kube-apiserver"));
        command.args(api_server_flags(&self.place.dir, self.port, self.etcd_port));
        let log = self.place.dir.join("kube-apiserver.log");
        let mut api_server = Daemon::spawn(&mut command, &log, &log)?;
        let admin = client(&self.place.kubeconfig()).await;
        let look = async |_: &str| {
            let ready = http::Request::get("/readyz").body(Vec::new()).expect("a fixed request is right");
            admin.request_text(ready).await.ok()?;
            let namespaces: Api<Namespace> = Api::all(admin.clone());
            namespaces.get_opt("default").await.ok()?.map(drop)
        };
        api_server.until("the API server is ready", START, look).await?;
        self.api_server = Some(api_server);
        Ok(())
    }

    /// Makes etcd forget everything but the present: who watched until some moment of the past cannot go on from there.
    ///
    /// # Panics
    /// When etcd refuses.
    pub async fn compact(&self) {
        let etcd = SocketAddr::from((Ipv4Addr::LOCALHOST, self.etcd_port));
        let post = async |path: &str, body: Value| {
            let answer = ask(etcd, Method::POST, path, "", body.to_string().into_bytes()).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            answer.body
        };
        let now = post("/v3/kv/range", json!({"key": "AA=="})).await["header"]["revision"].clone();
        post("/v3/kv/compaction", json!({"revision": now, "physical": true})).await;
    }

    /// Starts kube-controller-manager beside it, for garbage collection and Deployments, if it is there. When not, says
    /// in one line that `what` is left out.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_controller_manager(&mut self, what: &str) -> Result<bool> {
        let Some(program) = self.place.programs.optional("kube-controller-manager", what) else {
            return Ok(false);
        };
        let (dir, kubeconfig) = (self.place.dir.display(), self.place.kubeconfig());
        let mut command = Programs::bound(&program);
        command.arg(format!("--kubeconfig={}", kubeconfig.display())).args([
            format!("--service-account-private-key-file={dir}/accounts.key"),
            format!("--root-ca-file={dir}/ca.crt"),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--use-service-account-credentials=false".to_owned(),
        ]);
        let log = self.place.dir.join("kube-controller-manager.log");
        self.controller_manager = Some(Daemon::spawn(&mut command, &log, &log)?);
        Ok(true)
    }
}

fn start_etcd(place: &Place, port: u16) -> Result<Daemon> {
    let url = format!("http://127.0.0.1:{port}");
    let mut command = Programs::bound(&place.programs.path("etcd"));
    command.args([
        format!("--data-dir={}", place.dir.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
    ]);
    let log = place.dir.join("etcd.log");
    Daemon::spawn(&mut command, &log, &log)
}

fn api_server_flags(dir: &Path, port: u16, etcd_port: u16) -> Vec<String> {
    let dir = dir.display();
    [
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // There is nothing to reach it by but loopback, which no Endpoints may name.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={dir}"),
        format!("--tls-cert-file={dir}/server.crt"),
        format!("--tls-private-key-file={dir}/server.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={dir}/accounts.pub"),
        format!("--service-account-signing-key-file={dir}/accounts.key"),
        format!("--token-auth-file={dir}/tokens.csv"),
        "--authorization-mode=RBAC".to_owned(),
        // Its service accounts would be made by a controller manager, which need not be there.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--allow-privileged=true".to_owned(),
    ]
    .into()
}

/// A port to be listened on by a program that must be told which. Below those that the system gives to connections, so
/// that none of them takes it meanwhile, and no port twice: who was given it may not have it yet.
pub(super) fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut random = [0; 2];
    loop {
        getrandom::fill(&mut random).context("random bytes")?;
        let port = 20_000 + u16::from_le_bytes(random) % 10_000;
        let is_new = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        if is_new && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}

impl Cleaner {
    /// It waits for the end of a pipe that only this process holds.
    fn of(dir: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", "read -r _; rm -rf \"$1\"", "sh"]).arg(dir);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Self).context("a process that cleans up")
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It has nothing left to wait for.
        let _ = self.0.wait();
    }
}
