//! Everything that must be there before the first request: files read, addresses had, parts made. Must not
//! start a task.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::Failure;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::owner::{self, Owners};
use crate::peers::Peers;
use crate::policy::PolicyWatch;
use crate::resync::Credential;
use crate::serve::{Gateway, Places};
use crate::server::Tls;
use crate::sizes::Sizes;
use crate::tags::{self, Tags};
use crate::uploads::Sessions;
use crate::upstream::Upstream;

pub(super) struct Begun {
    pub(super) gateway: Arc<Gateway>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) listener: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) owners: Owners,
    /// The other replicas' listener and the token that they show there.
    pub(super) peers: Option<(TcpListener, SecretString)>,
    pub(super) credential: Credential,
}

/// Reads every file that the settings name.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    PolicyWatch::open(&config.policy_file)
        .map_err(|error| Failure::Policy(config.policy_file.clone(), error))?;
    Upstream::new(config.upstream.clone(), config.upstream_tls.clone())?;
    config.tls.clone().map(Tls::new).transpose()?;
    let credential = config.credential.iter().flat_map(|(user, password)| [user, password]);
    for file in credential.chain(&config.events_token_file) {
        read(file)?;
    }
    peer_token(config).map(drop)
}

pub(super) async fn begin(config: Config) -> Result<Begun, Failure> {
    raise_descriptors();
    check(&config)?;
    let policy = PolicyWatch::open(&config.policy_file)
        .map_err(|error| Failure::Policy(config.policy_file.clone(), error))?;
    let metrics = Arc::new(Metrics::new(policy.failures()));
    let upstream = Arc::new(Upstream::new(config.upstream.clone(), config.upstream_tls.clone())?);
    let tls = config.tls.clone().map(Tls::new).transpose()?.map(Arc::new);
    let listener = bind("listen", config.listen).await?;
    let admin = bind("admin", config.admin).await?;
    let own = config::own_address();
    let (owners, peers, listener_of_peers) = match (&config.peers, peer_token(&config)?) {
        (Some(peers), Some((token, client))) => {
            let address = SocketAddr::new(own.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), peers.port);
            let listener = bind("peers", address).await?;
            let is_own = move |replica: &SocketAddr| match own {
                Some(own) => replica.ip() == own,
                None => owner::is_local(replica),
            };
            (Owners::group(is_own), Some(client), Some((listener, token)))
        }
        _ => (Owners::single(), None, None),
    };
    let tags = Tags::new(tags::Parts {
        upstream: Arc::clone(&upstream),
        policy: policy.clone(),
        metrics: Arc::clone(&metrics),
        settings: tags::Settings { mode: config.mode, seed_timeout: config.seed_timeout },
        owners: owners.clone(),
        peers,
    });
    let credential = Credential(config.credential.clone());
    let places = Places::new(config.max_reads, config.max_writes);
    let (sizes, sessions) = (Arc::new(Sizes::default()), Sessions::default());
    let gateway = Gateway { config, upstream, policy, sizes, tags, metrics, sessions, places };
    let gateway = Arc::new(gateway);
    Ok(Begun { gateway, tls, listener, admin, owners, peers: listener_of_peers, credential })
}

fn peer_token(config: &Config) -> Result<Option<(SecretString, Peers)>, Failure> {
    let Some(peers) = &config.peers else { return Ok(None) };
    let token = SecretString::from(read(&peers.token_file)?);
    let client = Peers::new(&token).map_err(|error| Failure::PeerToken(peers.token_file.clone(), error))?;
    Ok(Some((token, client)))
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| Failure::File(file.to_owned(), error))
}

async fn bind(listener: &'static str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let taken = |source: io::Error| Failure::Address { listener, address, source };
    let socket = TcpListener::bind(address).await.map_err(taken)?;
    info!(listener, address = %socket.local_addr().map_err(taken)?, "listening");
    Ok(socket)
}

/// Takes as many descriptors as we may have: each request needs two.
fn raise_descriptors() {
    const ENOUGH: u64 = 16_384;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(ENOUGH)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard.min(ENOUGH), hard)
    {
        warn!(%error, soft, "the limit of descriptors stays as it is");
    }
}
