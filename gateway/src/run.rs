//! THE STORY of a gateway's life: settings, policy and certificates, listeners, every long task, and an end
//! that no push notices. Long tasks start here and stop here, and nowhere else.

mod begin;
mod certificates;
mod tasks;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

use crate::config::{self, Config, ConfigError};
use crate::forward::chain;
use crate::peers::PeerError;
use crate::policy::PolicyError;
use crate::upstream::TlsFilesError;
use begin::Begun;
use tasks::Tasks;

/// Exit code: command line or settings.
pub const USAGE: u8 = 64;
const ADDRESS_TAKEN: u8 = 69;
const BROKEN: u8 = 70;

/// Clients that are on their way while the word spreads that this replica is not ready any more.
const LINGER: Duration = Duration::from_secs(2);
/// How long what is under way may go on.
const DRAIN: Duration = Duration::from_secs(25);

/// Why a gateway cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("policy_file {} cannot be used", .0.display())]
    Policy(PathBuf, #[source] PolicyError),
    #[error(transparent)]
    Tls(#[from] TlsFilesError),
    #[error("{} cannot be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("peer_token_file {} cannot be used", .0.display())]
    PeerToken(PathBuf, #[source] PeerError),
    #[error("{listener} = {address} cannot be had")]
    Address { listener: &'static str, address: SocketAddr, source: io::Error },
    #[error("the system gives no {0}")]
    System(&'static str, #[source] io::Error),
    #[error("the task {0} ended by itself")]
    Task(&'static str),
}

/// `larder-gateway --config F`: runs until a signal.
#[must_use]
pub fn gateway(file: &Path) -> ExitCode {
    let (config, unknown) = match config::load(file) {
        Ok(loaded) => loaded,
        // There is no log yet.
        Err(error) => return told(&mut io::stderr(), &error),
    };
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(LevelFilter::INFO)
        .with_writer(io::stderr)
        .init();
    for mistake in unknown {
        warn!(file = %file.display(), line = mistake.line, "{}", mistake.what);
    }
    let ended = runtime().map_err(|error| Failure::System("threads", error)).and_then(|runtime| {
        let ended = runtime.block_on(live(config));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(reason = chain(&failure), "the gateway ends");
            ExitCode::from(failure.code())
        }
    }
}

/// `larder-gateway check --config F`: everything that a start would read.
#[must_use]
pub fn check(file: &Path) -> ExitCode {
    match config::check(file).map_err(Failure::from).and_then(|config| begin::check(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&mut io::stdout(), &error),
    }
}

/// Neither has a meaning without settings.
#[must_use]
pub fn without_file() -> ExitCode {
    let _ = writeln!(io::stderr(), "larder-gateway needs --config FILE");
    ExitCode::from(USAGE)
}

fn told(to: &mut dyn Write, error: &dyn std::error::Error) -> ExitCode {
    // A closed stream changes nothing about the ending.
    let _ = writeln!(to, "{}", chain(error));
    ExitCode::from(USAGE)
}

async fn live(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::System("signals", error))?;
    let ending = CancellationToken::new();
    let begun: Begun = begin::begin(config).await?;
    let mut tasks = Tasks::start(begun, &ending);
    let ended = tokio::select! {
        () = signals.next() => Ok(()),
        task = tasks.first_to_end() => Err(Failure::Task(task)),
    };
    ending.cancel();
    tokio::select! {
        () = tasks.end(LINGER, DRAIN) => info!("ended"),
        () = signals.next() => warn!("a second signal: ended at once"),
    }
    ended
}

/// Bytes are only handed on: more threads would hand them to each other.
fn runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread().worker_threads(cores.min(4)).max_blocking_threads(16).enable_all().build()
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Policy(..) | Self::Tls(_) | Self::File(..) | Self::PeerToken(..) => USAGE,
            Self::Address { .. } => ADDRESS_TAKEN,
            Self::System(..) | Self::Task(_) => BROKEN,
        }
    }
}

/// The two ways of asking a gateway to end.
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
