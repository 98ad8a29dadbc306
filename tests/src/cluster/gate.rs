//! A gate between a controller and its API server: after so many writes to a namespace it shuts, the last one done and
//! its answer withheld, as when the controller's node loses power at that moment. Must not change what passes.

use std::convert::Infallible;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Cluster, client};
use crate::wait::within;

/// An open gate; it ends when this is dropped.
pub struct Gate {
    kubeconfig: PathBuf,
    stand: Arc<watch::Sender<Stand>>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stand {
    Open,
    /// Open for so many writes more below that path.
    Counting {
        left: usize,
        below: String,
    },
    /// Nothing begins any more; the last write is still under way.
    Closing,
    Shut,
}

impl Gate {
    /// In front of the cluster, for who has that kubeconfig. Its own is in [`Self::kubeconfig`].
    ///
    /// # Panics
    /// When there is no port, or no place for a file.
    pub async fn open(cluster: &Cluster, kubeconfig: &std::path::Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let client = client(kubeconfig).await;
        let stand = Arc::new(watch::Sender::new(Stand::Open));
        let serving = tokio::spawn(serve(listener, client, Arc::clone(&stand)));
        let kubeconfig = cluster.dir().join(format!("kubeconfig-gate-{}", address.port()));
        fs::write(&kubeconfig, itself(address)).expect("a kubeconfig can be written");
        Self { kubeconfig, stand, serving }
    }

    /// Of who is to go through it.
    #[must_use]
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// Shuts after so many writes to a namespace, counted from now.
    pub fn shut_after(&self, writes: usize, namespace: &str) {
        let below = format!("/namespaces/{namespace}/");
        self.stand.send_replace(Stand::Counting { left: writes, below });
    }

    /// Waits until it is shut and the last write done.
    ///
    /// # Panics
    /// When so many writes do not come.
    pub async fn shut(&self) {
        let mut stand = self.stand.subscribe();
        let shut = stand.wait_for(|stand| *stand == Stand::Shut);
        drop(within("the gate is shut", shut).await.expect("we hold the sender"));
    }

    /// Lets everything through again.
    pub fn reopen(&self) {
        self.stand.send_replace(Stand::Open);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn itself(address: SocketAddr) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "gate", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "gate", "user": {}}],
        "contexts": [{"name": "gate", "context": {"cluster": "gate", "user": "gate"}}],
        "current-context": "gate",
    })
    .to_string()
}

async fn serve(listener: TcpListener, client: Client, stand: Arc<watch::Sender<Stand>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (client, stand) = (client.clone(), Arc::clone(&stand));
        tokio::spawn(async move {
            let pass = service_fn(move |request| {
                let (client, stand) = (client.clone(), Arc::clone(&stand));
                async move { Ok::<_, Infallible>(pass(request, &client, &stand).await) }
            });
            // A controller that is killed leaves its connections as they are.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await;
        });
    }
}

async fn pass(request: Request<Incoming>, client: &Client, stand: &watch::Sender<Stand>) -> Response<Body> {
    until_open(stand).await;
    let is_write = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(request.method());
    let path = request.uri().path().to_owned();
    let mut is_last = false;
    stand.send_if_modified(|stand| {
        let Stand::Counting { left, below } = stand else { return false };
        if !is_write || !path.contains(below.as_str()) {
            return false;
        }
        *left -= 1;
        is_last = *left == 0;
        if is_last {
            *stand = Stand::Closing;
        }
        is_last
    });
    let answer = forward(request, client).await;
    if is_last {
        stand.send_replace(Stand::Shut);
    }
    until_open(stand).await;
    answer
}

async fn until_open(stand: &watch::Sender<Stand>) {
    let mut stand = stand.subscribe();
    // The last write's own Closing is followed by Shut before it comes here again.
    let open = stand.wait_for(|stand| matches!(stand, Stand::Open | Stand::Counting { .. }));
    drop(open.await.expect("the caller holds the sender"));
}

async fn forward(request: Request<Incoming>, client: &Client) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    for own in [header::HOST, header::AUTHORIZATION, header::CONNECTION] {
        head.headers.remove(own);
    }
    let Ok(body) = body.collect().await else { return refused() };
    let request = Request::from_parts(head, Body::from(body.to_bytes()));
    let Ok(mut answer) = client.send(request).await else { return refused() };
    for own in [header::CONNECTION, header::TRANSFER_ENCODING] {
        answer.headers_mut().remove(own);
    }
    answer
}

fn refused() -> Response<Body> {
    let mut response = Response::new(Body::from(Vec::new()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
