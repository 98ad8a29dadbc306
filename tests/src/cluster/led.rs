//! The cluster that all tests of this process share in which the controller leads, with the rights that the chart gives
//! it. Must not be broken by anybody: who stops something has a cluster of their own.

use std::net::SocketAddr;

use tokio::sync::OnceCell;

use super::{Cluster, Controller, Place, Programs, client, plane};
use crate::client::{Request, fetch};
use crate::node::metric_sum;

/// A cluster with a leading controller.
pub struct Led {
    pub cluster: Cluster,
    pub reports: SocketAddr,
    metrics: SocketAddr,
}

#[derive(Clone, Copy)]
struct Addresses {
    reports: SocketAddr,
    metrics: SocketAddr,
}

impl Led {
    /// The one that the tests of this process share: a test gives its objects names of its own, and its NodeCaches
    /// nodes and Caches of their own. Nothing where the programs are not.
    ///
    /// # Panics
    /// When they are there and something does not come up.
    pub async fn start() -> Option<Self> {
        static LED: OnceCell<Option<Result<(Place, Addresses), String>>> = OnceCell::const_new();
        let start = async || Some(plane::on_a_thread_of_its_own(Programs::find()?, lead).await);
        let (place, Addresses { reports, metrics }) =
            LED.get_or_init(start).await.clone()?.expect("the controller leads");
        let admin = client(&place.kubeconfig()).await;
        Some(Self { cluster: Cluster { admin, place }, reports, metrics })
    }

    /// The sum of a metric's samples that have all these labels; 0 when there are none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = fetch(self.metrics, Request::get("/metrics")).await;
        metric_sum(&String::from_utf8_lossy(&page.body), name, labels)
    }
}

async fn lead(cluster: &Cluster) -> (Controller, Addresses) {
    let kubeconfig = cluster.install_rights().await;
    let controller = Controller::start(&kubeconfig, &[]).await;
    let addresses = Addresses { reports: controller.reports(), metrics: controller.metrics_address() };
    (controller, addresses)
}
