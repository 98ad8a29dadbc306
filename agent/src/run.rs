//! THE STORY of an agent's life: listen, open the store, start every long task, wait, and end in an order that no pull
//! notices. Long tasks start here and stop in `tasks`, and nowhere else.

mod begin;
mod tasks;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use larder_mirror::{Mirror, OpenError};
use larder_wire::settings::Settings;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{self, Admin, Pages};
use crate::config::{self, Loaded, Unusable};
use crate::log::{self, Log};
use crate::metrics::Metrics;
use crate::reload::{self, Reload};
use crate::report::{Facts, push};
use crate::{installer, run_dir, socket};
use begin::Begun;
use tasks::{Ending, Tasks};

/// Exit code: command line or settings.
pub(crate) const USAGE: u8 = 64;
const ADDRESS_TAKEN: u8 = 69;
const BROKEN: u8 = 70;
const IN_USE: u8 = 75;
const REFUSED: u8 = 77;

/// How long the store may take to write what it holds in memory.
const CLOSE: Duration = Duration::from_secs(3);

/// Why an agent cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("listen.{listener} = {address} cannot be had")]
    Address { listener: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("run_dir {} cannot be used", path.display())]
    RunDir { path: PathBuf, source: io::Error },
    #[error("the system gives no {0}")]
    System(&'static str, #[source] io::Error),
    #[error("the task {0} ended by itself")]
    Task(&'static str),
}

/// `larder-agent`: runs until a signal.
pub(crate) fn agent(file: Option<&Path>) -> ExitCode {
    let loaded = match config::at_start(file) {
        Ok(loaded) => loaded,
        Err(unusable) => {
            // There is no log yet, and a closed stream changes nothing about the ending.
            let _ = writeln!(io::stderr(), "{}", chain(&unusable));
            if let Unusable::Mistakes { entries: Some(settings), .. } = &unusable {
                installer::take_out_left_over(settings);
            }
            return ExitCode::from(USAGE);
        }
    };
    let log = log::start(&loaded.settings.log);
    let ended = runtime().map_err(|error| Failure::System("threads", error)).and_then(|runtime| {
        let ended = runtime.block_on(live(file, loaded, log));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(reason = chain(&failure), "the agent ends");
            ExitCode::from(failure.code())
        }
    }
}

/// An error and its sources, joined by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    std::iter::once(error.to_string()).chain(sources.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

async fn live(file: Option<&Path>, loaded: Loaded, log: Log) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::System("signals", error))?;
    let hangup = signal(SignalKind::hangup()).map_err(|error| Failure::System("signals", error))?;
    begin::tell_origin(file, &loaded);
    let begun = tokio::select! {
        begun = begin::begin(&loaded) => begun,
        () = signals.next() => {
            // What an agent before left in certs.d would lead nowhere.
            if !loaded.settings.installer.keep_on_shutdown {
                installer::take_out_left_over(&loaded.settings);
            }
            info!("ended before it began");
            return Ok(());
        }
    };
    let begun = begun.inspect_err(|_| installer::take_out_left_over(&loaded.settings))?;
    let (mirror, run_dir) = (begun.mirror.clone(), loaded.settings.run_dir.clone());
    let mut tasks = start(file, loaded, log, begun, hangup);
    let (ended, ending) = tokio::select! {
        () = signals.next() => (Ok(()), Ending::Asked),
        task = tasks.first_to_end() => (Err(Failure::Task(task)), Ending::Broken),
    };
    let end = async {
        tasks.end(ending).await;
        run_dir::leave(&run_dir);
        if timeout(CLOSE, mirror.close()).await.is_err() {
            warn!("the store is not closed in time; the next agent recovers it");
        }
    };
    tokio::select! {
        () = end => info!("ended"),
        () = signals.next() => warn!("a second signal: ended at once"),
    }
    ended
}

/// Starts every long task.
fn start(file: Option<&Path>, loaded: Loaded, log: Log, begun: Begun, hangup: Signal) -> Tasks {
    let Begun { listeners, mirror, instance } = begun;
    let mut tasks = Tasks::default();
    let stop = tasks.stop.clone();
    let (sender, settings) = watch::channel(loaded.settings.clone());
    let metrics = Arc::new(Metrics::new(settings.clone(), |registry| mirror.register(registry)));
    metrics.unknown_keys.set(i64::try_from(loaded.unknown_keys()).unwrap_or(i64::MAX));
    metrics.reload_failures.inc_by(u64::from(loaded.instead_of.is_some()));
    let started = SystemTime::now();
    let facts = Arc::new(Facts { mirror: mirror.clone(), settings: settings.clone(), instance, started });
    let (facts_of_report, ending) = (Arc::clone(&facts), tasks.ending.clone());
    let admin = Arc::new(Admin { facts, metrics: Arc::clone(&metrics), ending });

    tasks.spawn_mirror(&mirror, listeners.mirror);
    tasks.spawn("admin", admin::serve(listeners.admin, Arc::clone(&admin), Pages::All, stop.clone()));
    if let Some(listener) = listeners.metrics {
        tasks.spawn("metrics", admin::serve(listener, admin, Pages::Metrics, stop.clone()));
    }
    match socket::bind(&loaded.settings.run_dir) {
        Ok(socket) => {
            tasks.spawn("socket", socket::serve(socket, mirror.clone(), settings.clone(), stop.clone()));
        }
        Err(error) => warn!(%error, "no socket in run_dir: `larder-agent forget` cannot reach this agent"),
    }
    tasks.spawn(tasks::INSTALLER, installer::supervise(settings.clone(), tasks.ending.clone()));
    tasks.spawn("report", push::run(settings.clone(), move || facts_of_report.report(), stop.clone()));
    tasks.spawn("settings", apply(settings, mirror, log, stop.clone()));
    let reload = Reload { file: file.map(Path::to_owned), seen: loaded.seen, settings: sender, metrics };
    tasks.spawn("reload", reload::run(reload, hangup, stop));
    tasks
}

/// Hands changed settings to those who do not watch them.
async fn apply(mut settings: watch::Receiver<Settings>, mirror: Mirror, log: Log, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = settings.changed() => if changed.is_err() {
                return stop.cancelled().await;
            }
        }
        let settings = settings.borrow_and_update().clone();
        log.apply(&settings.log);
        mirror.apply(&settings);
    }
}

/// Few threads for the network, since bytes go by sendfile; enough for a disk with many readers.
fn runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread().worker_threads(cores.min(2)).max_blocking_threads(128).enable_all().build()
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Address { .. } => ADDRESS_TAKEN,
            Self::Store(OpenError::InUse { .. }) => IN_USE,
            Self::Store(OpenError::Refused { .. } | OpenError::Io { .. }) | Self::RunDir { .. } => REFUSED,
            Self::System(..) | Self::Task(_) => BROKEN,
        }
    }
}

/// The two ways of asking an agent to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => info!("asked to end by SIGTERM"),
            _ = self.interrupt.recv() => info!("asked to end by SIGINT"),
        }
    }
}
