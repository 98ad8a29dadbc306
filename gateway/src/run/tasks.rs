//! The gateway's long tasks: started, missed when one ends by itself, and ended in an order that no push
//! notices.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::DRAIN;
use super::begin::Begun;
use super::certificates::{self, Certificates};
use crate::admin::{self, Admin};
use crate::events::Events;
use crate::resync::{self, Resync};
use crate::{owner, peers, policy, server};

const SERVER: &str = "server";
/// Tasks with nothing to finish.
const REST: Duration = Duration::from_secs(1);

pub(super) struct Tasks {
    /// No new requests.
    server: CancellationToken,
    /// Nobody asks any more.
    stop: CancellationToken,
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts every long task. `ending` is cancelled when the gateway is not ready any more.
    pub(super) fn start(begun: Begun, ending: &CancellationToken) -> Self {
        let Begun { gateway, tls, listener, admin, owners, peers, credential } = begun;
        let (server, stop) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = Self { server, stop, set: JoinSet::new(), names: HashMap::new() };
        let (stop, config) = (tasks.stop.clone(), &gateway.config);
        let pages = Arc::new(Admin {
            metrics: Arc::clone(&gateway.metrics),
            tags: gateway.tags.clone(),
            events: Events::new(gateway.tags.clone(), credential.clone()),
            events_token_file: config.events_token_file.clone(),
            ending: ending.clone(),
        });
        let resync = Resync {
            tags: gateway.tags.clone(),
            upstream: Arc::clone(&gateway.upstream),
            policy: gateway.policy.clone(),
            credential,
            every: config.resync,
        };
        let certificates = Certificates { gateway: Arc::clone(&gateway), tls: tls.clone() };
        if let Some((listener, token)) = peers {
            tasks.spawn("peers", peers::server::serve(listener, gateway.tags.clone(), token, stop.clone()));
        }
        if let Some(peers) = &config.peers {
            let resolve = owner::by_name(peers.name.clone(), peers.port);
            let tags = gateway.tags.clone();
            // What another replica counted meanwhile is read again.
            let changed = move || tags.owners_changed();
            tasks.spawn("owners", owner::run(owners, resolve, changed, stop.clone()));
        }
        tasks.spawn("admin", admin::serve(admin, pages, stop.clone()));
        tasks.spawn("policy", policy::watch::run(gateway.policy.clone(), stop.clone()));
        tasks.spawn("resync", resync::run(resync, stop.clone()));
        tasks.spawn("certificates", certificates::run(certificates, stop));
        let stop = tasks.server.clone();
        tasks.spawn(SERVER, server::serve(gateway, listener, tls, stop, DRAIN));
        tasks
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits until a task ends that nobody has asked to, and names it.
    pub(super) async fn first_to_end(&mut self) -> &'static str {
        match self.set.join_next_with_id().await {
            Some(ended) => self.took(ended),
            None => std::future::pending().await,
        }
    }

    /// Ends every task: the server when those on their way are here, the rest when it has drained.
    pub(super) async fn end(&mut self, linger: Duration, drain: Duration) {
        info!("draining");
        sleep(linger).await;
        self.server.cancel();
        let drained = timeout(drain + REST, async {
            while self.names.values().any(|running| *running == SERVER) {
                match self.set.join_next_with_id().await {
                    Some(ended) => {
                        self.took(ended);
                    }
                    None => return,
                }
            }
        });
        if drained.await.is_err() {
            warn!("the server is not done in time, going on without");
        }
        self.stop.cancel();
        let rest = timeout(REST, async { while self.set.join_next().await.is_some() {} }).await;
        if rest.is_err() {
            warn!("some tasks are left behind");
        }
    }

    fn took(&mut self, ended: Result<(Id, ()), JoinError>) -> &'static str {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let name = self.names.remove(&id).unwrap_or("unnamed");
        if ended.is_err() {
            error!(task = name, "a task of the gateway panicked");
        }
        name
    }
}
