//! The tasks of the leader: a loop for each kind, the watch of the nodes, and the defaults of a first install.
//! Must not decide anything about an object.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, ResourceExt};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::Config;
use crate::context::Context;
use crate::defaults::{self, Default};
use crate::error::chain;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::reports::Fleet;
use crate::{cache, node_cache, reconcile, registry, registry_gateway, registry_template};

type NodeMeta = PartialObjectMeta<Node>;

/// The pause before the defaults are tried again, when the API server was away.
const AGAIN: Duration = Duration::from_secs(10);

pub(super) struct Stories {
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
    /// Until the leader watches the nodes.
    nodes: Option<Writer<NodeMeta>>,
}

impl Stories {
    pub(super) fn prepare(config: Config, client: Client, metrics: Arc<Metrics>) -> (Arc<Context>, Self) {
        let (nodes, writer) = reflector::store();
        let events =
            Events::new(client.clone(), Some(config.identity.clone()).filter(|name| !name.is_empty()));
        let fleet = Arc::new(Fleet::default());
        let context = Arc::new(Context { client, config, metrics, fleet, nodes, events });
        (context, Self { tasks: JoinSet::new(), stop: CancellationToken::new(), nodes: Some(writer) })
    }

    pub(super) fn tell(&mut self, context: &Arc<Context>, defaults: Vec<Default>) {
        macro_rules! story {
            ($kind:literal, $story:ident) => {{
                let controller = $story::watch(&context.client, &context.config);
                let told =
                    reconcile::run(controller, Arc::clone(context), $story::reconcile, self.stop.clone());
                self.tasks.spawn(async move {
                    told.await;
                    $kind
                });
            }};
        }
        story!("NodeCache", node_cache);
        story!("Cache", cache);
        story!("Registry", registry);
        story!("RegistryTemplate", registry_template);
        story!("RegistryGateway", registry_gateway);
        if let Some(writer) = self.nodes.take() {
            self.tasks.spawn(watch_nodes(context.client.clone(), writer, self.stop.clone()));
        }
        self.tasks.spawn(make_defaults(Arc::clone(context), defaults, self.stop.clone()));
    }

    /// Names the first task that ended though nobody asked it to.
    pub(super) async fn first_to_end(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(_)) => "a story panicked",
            None => "nothing to do",
        }
    }

    /// Ends all at once, in the middle of whatever they do.
    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
    }

    /// Asks all to end, and waits for the reconciles under way.
    pub(super) async fn end(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Names and labels only: a node's status changes every few seconds, and nobody here reads it.
async fn watch_nodes(client: Client, writer: Writer<NodeMeta>, stop: CancellationToken) -> &'static str {
    let api: Api<NodeMeta> = Api::all(client);
    let watched = watcher(api, watcher::Config::default()).default_backoff().modify(|node| {
        node.managed_fields_mut().clear();
        node.annotations_mut().clear();
    });
    let mut stream = std::pin::pin!(reflector(writer, watched));
    loop {
        let seen = stop.run_until_cancelled(stream.next()).await;
        match seen {
            Some(Some(Ok(_))) => {}
            Some(Some(Err(error))) => {
                debug!(error = chain(&error), "the watch of the nodes is taken up again");
            }
            Some(None) | None => return "nodes",
        }
    }
}

/// A first install begins with them; without the API server they are tried again.
async fn make_defaults(
    context: Arc<Context>,
    defaults: Vec<Default>,
    stop: CancellationToken,
) -> &'static str {
    while let Err(error) = defaults::make(&context, &defaults).await {
        warn!(error = chain(&error), "the defaults are not made yet");
        if stop.run_until_cancelled(sleep(AGAIN)).await.is_none() {
            break;
        }
    }
    stop.cancelled().await;
    "defaults"
}
