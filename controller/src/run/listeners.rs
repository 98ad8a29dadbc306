//! The three listeners, bound before anything else begins, so that a taken address is told at once; served on every
//! replica. Must not know who leads but for `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::config::Config;
use crate::context::Context;
use crate::health::{self, Pages};
use crate::reports::{self, Leader, Reports};

pub(super) struct Listeners {
    reports: TcpListener,
    health: TcpListener,
    metrics: TcpListener,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> Result<Self, Failure> {
        Ok(Self {
            reports: bind("--bind-address", config.bind_address).await?,
            health: bind("--health-bind-address", config.health_bind_address).await?,
            metrics: bind("--metrics-bind-address", config.metrics_bind_address).await?,
        })
    }

    /// Where the other replica sends what it was told while this one leads.
    pub(super) fn reports_at(&self, config: &Config) -> SocketAddr {
        let port =
            self.reports.local_addr().map_or_else(|_| config.bind_address.port(), |address| address.port());
        SocketAddr::new(config.advertise, port)
    }

    pub(super) fn serve(
        self,
        services: &mut JoinSet<&'static str>,
        reports: Arc<Reports>,
        context: &Arc<Context>,
        leader: watch::Receiver<Option<Leader>>,
        close: &CancellationToken,
    ) {
        let ready = Arc::new(AtomicBool::new(false));
        let (pages, metrics) =
            (Pages::Health(Arc::clone(&ready)), Pages::Metrics(Arc::clone(&context.metrics)));
        let tasks = (close.clone(), close.clone(), close.clone(), close.clone());
        services.spawn(named("reports", reports::serve(self.reports, reports, tasks.0)));
        services.spawn(named("health", health::serve(self.health, pages, tasks.1)));
        services.spawn(named("metrics", health::serve(self.metrics, metrics, tasks.2)));
        services.spawn(named("readiness", say_ready(leader, ready, tasks.3)));
    }
}

/// Ready from when a leader is known: the API server was reached, and a report has somewhere to go.
async fn say_ready(
    mut leader: watch::Receiver<Option<Leader>>,
    ready: Arc<AtomicBool>,
    close: CancellationToken,
) {
    let known = async { leader.wait_for(Option::is_some).await.is_ok() };
    if close.run_until_cancelled(known).await == Some(true) {
        ready.store(true, Ordering::Relaxed);
    }
    close.cancelled().await;
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = match TcpListener::bind(address).await {
        // A machine without IPv6 has `:8080` as well.
        Err(_) if address.ip() == std::net::Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|source| Failure::Address { flag, address, source })
}
