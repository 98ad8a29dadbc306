//! THE STORY of the controller's life: listen, reach the API server, take part in the election, serve the stories while
//! leading, and end in an order that loses nothing. Long tasks start and stop here.

mod listeners;
mod stories;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::Api;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::Config;
use crate::context::Context;
use crate::defaults::{self, DefaultsError};
use crate::error::chain;
use crate::install::InstallError;
use crate::lease::Candidate;
use crate::metrics::Metrics;
use crate::reports::{Leader, Reports};
use crate::{client, lease, log};
use listeners::Listeners;
use stories::Stories;

/// Exit code: command line, or a file that it names.
pub const USAGE: u8 = 64;
const ADDRESS_TAKEN: u8 = 69;
const BROKEN: u8 = 70;

/// What a reconcile under way may still take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
/// What is not waited for longer: giving the Lease back, the listeners.
const REST: Duration = Duration::from_secs(2);

/// Why the controller cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{flag} {address} cannot be had")]
    Address { flag: &'static str, address: SocketAddr, source: io::Error },
    #[error("no way to an API server: run in a pod with a ServiceAccount, or set KUBECONFIG")]
    NoCluster(#[source] kube::config::InferConfigError),
    #[error("the kubeconfig's certificates or proxy cannot be used")]
    Client(#[source] kube::Error),
    #[error(transparent)]
    Defaults(#[from] DefaultsError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("the system gives no {0}")]
    System(&'static str, #[source] io::Error),
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("leadership is lost; ended, so that a replica that does not lead writes nothing")]
    LeadershipLost,
    #[error("a part ended by itself: {0}")]
    Task(&'static str),
}

impl Failure {
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::NoCluster(_) | Self::Client(_) | Self::Defaults(_) => USAGE,
            Self::Address { .. } => ADDRESS_TAKEN,
            Self::Install(_) => 1,
            Self::System(..) | Self::Random(_) | Self::LeadershipLost | Self::Task(_) => BROKEN,
        }
    }
}

/// `larder-controller run`: until a signal.
#[must_use]
pub fn controller(config: Config) -> ExitCode {
    log::start(&config.log_format, &config.log_level);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(|error| Failure::System("threads", error)).and_then(|runtime| {
        let ended = runtime.block_on(live(config));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(reason = chain(&failure), "the controller ends");
            ExitCode::from(failure.code())
        }
    }
}

/// A command that ends: with a client of its own.
///
/// # Errors
/// As the command's.
pub fn briefly(command: impl AsyncFnOnce(Client) -> Result<String, InstallError>) -> Result<String, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::System("threads", error))?.block_on(async {
        let config = kube::Config::infer().await.map_err(Failure::NoCluster)?;
        let client = Client::try_from(config).map_err(Failure::Client)?;
        Ok(command(client).await?)
    })
}

async fn live(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::System("signals", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::System("signals", error))?;
    let defaults = config.defaults.as_deref().map(defaults::read).transpose()?.unwrap_or_default();
    let mut life = Life::begin(config).await?;
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failure = life.go_on(defaults) => Err(failure),
    };
    if matches!(ended, Err(Failure::LeadershipLost)) {
        // Another replica may lead already: nothing more is written, not even to an end.
        life.stories.abort();
    }
    life.end().await;
    ended
}

/// Everything that runs.
struct Life {
    context: Arc<Context>,
    leader: watch::Receiver<Option<Leader>>,
    election: JoinHandle<()>,
    /// What runs on every replica: the listeners.
    services: JoinSet<&'static str>,
    /// What runs on the leader.
    stories: Stories,
    /// Ends the listeners, and the election, which gives the Lease back.
    close: CancellationToken,
}

impl Life {
    async fn begin(config: Config) -> Result<Self, Failure> {
        let listeners = Listeners::bind(&config).await?;
        let metrics = Arc::new(Metrics::default());
        let kube = kube::Config::infer().await.map_err(Failure::NoCluster)?;
        let for_lease = client::for_lease(kube.clone(), Arc::clone(&metrics)).map_err(Failure::Client)?;
        let for_reviews = client::for_lease(kube.clone(), Arc::clone(&metrics)).map_err(Failure::Client)?;
        let client = client::limited(kube, config.kube_api_qps, config.kube_api_burst, Arc::clone(&metrics))
            .map_err(Failure::Client)?;
        let (context, stories) = Stories::prepare(config, client, metrics);
        let (close, mut services) = (CancellationToken::new(), JoinSet::new());
        let (sender, leader) = watch::channel(None);
        let me = candidate(&context.config, listeners.reports_at(&context.config))?;
        let reports = Arc::new(Reports::new(for_reviews, &context, leader.clone()));
        listeners.serve(&mut services, reports, &context, leader.clone(), &close);
        let election = tokio::spawn(elect(for_lease, Arc::clone(&context), me, sender, close.clone()));
        Ok(Self { context, leader, election, services, stories, close })
    }

    /// Waits for leadership, then serves the stories; ends only when something went wrong.
    async fn go_on(&mut self, defaults: Vec<defaults::Default>) -> Failure {
        tokio::select! {
            _ = &mut self.election => return Failure::Task("election"),
            ended = self.services.join_next() => return part(ended),
            _ = self.leader.wait_for(|leader| *leader == Some(Leader::Me)) => {}
        }
        info!("leading");
        self.context.metrics.leads(true);
        self.context.fleet.begin();
        self.stories.tell(&self.context, defaults);
        tokio::select! {
            _ = &mut self.election => Failure::LeadershipLost,
            ended = self.services.join_next() => part(ended),
            task = self.stories.first_to_end() => Failure::Task(task),
        }
    }

    /// The stories first, then the Lease: the next leader finds nobody writing.
    async fn end(mut self) {
        if timeout(DRAIN, self.stories.end()).await.is_err() {
            info!("a reconcile is cut off; the next leader begins it again");
        }
        self.context.metrics.leads(false);
        self.close.cancel();
        if !self.election.is_finished() {
            let _ = timeout(REST, &mut self.election).await;
        }
        let _ = timeout(REST, async { while self.services.join_next().await.is_some() {} }).await;
        info!("ended");
    }
}

/// The replica's name in the Lease: another one at each start.
fn candidate(config: &Config, address: SocketAddr) -> Result<Candidate, Failure> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(Failure::Random)?;
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = if config.identity.is_empty() { "larder-controller" } else { &config.identity };
    Ok(Candidate { identity: format!("{name}_{random}"), address })
}

/// Ends when leadership is lost, or after `close`.
async fn elect(
    client: Client,
    context: Arc<Context>,
    me: Candidate,
    leader: watch::Sender<Option<Leader>>,
    close: CancellationToken,
) {
    if context.config.leader_elect {
        lease::hold(Api::namespaced(client, &context.config.namespace), me, leader, close).await;
    } else {
        leader.send_replace(Some(Leader::Me));
        close.cancelled().await;
    }
}

fn part(ended: Option<Result<&'static str, JoinError>>) -> Failure {
    Failure::Task(match ended {
        Some(Ok(name)) => name,
        Some(Err(_)) => "a listener panicked",
        None => "no listener",
    })
}
