//! What must succeed before an agent is an agent: its addresses, its store, its run_dir, in that order, so that a
//! second agent disturbs nothing of the first. Must not start anything that lasts but the mirror.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use larder_mirror::Mirror;
use larder_wire::settings::Listen;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tracing::{error, info, warn};

use super::{Failure, chain};
use crate::config::{self, Loaded};
use crate::{reload, run_dir};

pub(super) struct Begun {
    pub(super) listeners: Listeners,
    pub(super) mirror: Mirror,
    /// What this life of the agent is called in reports.
    pub(super) instance: String,
}

pub(super) struct Listeners {
    pub(super) mirror: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) metrics: Option<TcpListener>,
}

pub(super) async fn begin(loaded: &Loaded) -> Result<Begun, Failure> {
    raise_descriptors();
    let settings = &loaded.settings;
    let (listeners, address) = listen(&settings.listen).await?;
    let randomness = |error| Failure::System("randomness", error);
    // The installer's probes are answered with this key; its text form is the key.
    let key = run_dir::random_hex::<32>().map_err(randomness)?;
    let instance = run_dir::random_hex::<16>().map_err(randomness)?;
    let node = config::node_name(&settings.report);
    let mirror = Mirror::open(settings, &node, key.clone().into_bytes()).await?;
    let others = [Some(&listeners.admin), listeners.metrics.as_ref()];
    for address in others.into_iter().flatten().filter_map(|listener| listener.local_addr().ok()) {
        mirror.never_connect_to(address);
    }
    run_dir::prepare(&settings.run_dir, &key, address)
        .map_err(|source| Failure::RunDir { path: settings.run_dir.clone(), source })?;
    if let (Some(text), None) = (&loaded.text, &loaded.instead_of)
        && let Err(error) = config::keep_last_good(&settings.data_dir, text)
    {
        warn!(%error, "no copy of the settings kept in data_dir");
    }
    Ok(Begun { listeners, mirror, instance })
}

/// Takes as many descriptors as we may have: each connection needs one, and often a second.
fn raise_descriptors() {
    const ENOUGH: u64 = 16_384;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(ENOUGH)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard.min(ENOUGH), hard)
    {
        warn!(%error, soft, "the limit of descriptors stays as it is");
    }
}

/// Tells what the settings are and what is odd about them.
pub(super) fn tell_origin(file: Option<&Path>, loaded: &Loaded) {
    let (version, generation) = (env!("CARGO_PKG_VERSION"), loaded.settings.generation);
    let Some(file) = file else {
        info!(version, "larder-agent starts without a settings file");
        return;
    };
    if let Some(unusable) = &loaded.instead_of {
        error!(
            reason = chain(unusable),
            "the settings file cannot be used, starting with the last good copy"
        );
    }
    info!(version, generation, file = %file.display(), "larder-agent starts");
    reload::tell_remarks(file, &loaded.remarks);
}

/// All listeners, and the address that the mirror's has.
async fn listen(listen: &Listen) -> Result<(Listeners, SocketAddr), Failure> {
    let (mirror, address) = bind("mirror", listen.mirror).await?;
    let (admin, _) = bind("admin", listen.admin).await?;
    let metrics = match listen.metrics {
        Some(address) => Some(bind("metrics", address).await?.0),
        None => None,
    };
    Ok((Listeners { mirror, admin, metrics }, address))
}

async fn bind(listener: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let taken = |source: io::Error| Failure::Address { listener, address, source };
    let socket = match TcpListener::bind(address).await {
        // A node without IPv6 has `[::]` as well: every address that it has.
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_family(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    let socket = socket.map_err(taken)?;
    let bound = socket.local_addr().map_err(taken)?;
    info!(listener, address = %bound, "listening");
    Ok((socket, bound))
}

fn has_no_family(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_family_is_stood_in_for() {
        assert!(has_no_family(&io::Error::from_raw_os_error(Errno::EAFNOSUPPORT as i32)));
        assert!(!has_no_family(&io::Error::from_raw_os_error(Errno::EADDRINUSE as i32)));
    }
}
