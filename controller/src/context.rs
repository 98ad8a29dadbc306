//! What every story is given: the way to the API server, how the controller is run, and what the nodes told.
//! Must not hold state of a single object: that stands in its status.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;

use crate::config::Config;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::reports::Fleet;

pub struct Context {
    /// Limited to `--kube-api-qps`, counted.
    pub client: Client,
    pub config: Config,
    pub metrics: Arc<Metrics>,
    /// What the agents reported.
    pub fleet: Arc<Fleet>,
    /// Names and labels of the cluster's nodes; may be a moment behind.
    pub nodes: Store<PartialObjectMeta<Node>>,
    pub events: Events,
}
