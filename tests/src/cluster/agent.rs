//! One node's agent as far as the controller sees it: a true token, and reports. Must not decide what it reports.

use std::net::SocketAddr;

use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::jiff::Timestamp;
use larder_wire::report::{Cache, Evicted, RegistryReport, Report, Requests, SCHEMA};
use serde_json::Value;

use super::{AGENTS, Cluster};
use crate::wait::within;

const AUDIENCE: &str = "larder-controller";
const GIB: u64 = 1 << 30;

/// A node's agent.
#[derive(Clone, Debug)]
pub struct Agent {
    pub node: String,
    pub token: String,
    started: String,
}

/// An answer that was read; `body` is null where it is no JSON.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Agent {
    /// The agent of a NodeCache on a node. Node, account and pod are made if they are not there.
    pub async fn on(cluster: &Cluster, node: &str, node_cache: &str) -> Self {
        let account = format!("larder-{node_cache}");
        let token = cluster.node_token(node, AGENTS, &account, AUDIENCE).await;
        Self { node: node.to_owned(), token, started: Timestamp::now().to_string() }
    }

    /// The same agent with another token.
    #[must_use]
    pub fn with(&self, token: String) -> Self {
        Self { token, ..self.clone() }
    }

    /// What a node says on which all is well: it applied `generation`, its containerd is told of these registries and
    /// asked, nine of ten requests were answered from the cache.
    #[must_use]
    pub fn report(&self, generation: u64, registries: &[&str]) -> Report {
        let registry = |registry: &&str| RegistryReport {
            registry: (*registry).to_owned(),
            requests: Requests { cache: 9, upstream: 1, ..Requests::default() },
            served_bytes: 10 << 20,
            upstream_bytes: 1 << 20,
            upstream_up: true,
            ratelimit_remaining: None,
            state: "installed".to_owned(),
            reason: String::new(),
            containerd_seen: Some(Timestamp::now().to_string()),
        };
        Report {
            schema: SCHEMA,
            node: self.node.clone(),
            version: "0.1.0".to_owned(),
            instance: self.started.clone(),
            started: self.started.clone(),
            generation,
            cache: Cache {
                bytes: 10 * GIB,
                blobs: 100,
                free_bytes: 80 * GIB,
                capacity_bytes: 100 * GIB,
                index_degraded: false,
            },
            evicted_bytes: Evicted::default(),
            registries: registries.iter().map(registry).collect(),
        }
    }

    /// The same with every entry taken out of certs.d.
    #[must_use]
    pub fn withdrawn(&self, generation: u64, registries: &[&str]) -> Report {
        let mut report = self.report(generation, registries);
        for registry in &mut report.registries {
            registry.state = "withdrawn".to_owned();
        }
        report
    }

    /// Reports.
    pub async fn tell(&self, controller: SocketAddr, report: &Report) -> Answer {
        let body = serde_json::to_vec(report).expect("a report can be written");
        ask(controller, Method::POST, "/v1/reports", &self.token, body).await
    }
}

/// A request with a bearer token, or without one where it is empty; whatever the answer is.
///
/// # Panics
/// When there is none.
pub async fn ask(to: SocketAddr, method: Method, path: &str, token: &str, body: Vec<u8>) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{to}{path}"));
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::from(Bytes::from(body))).expect("a fixed request is right");
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let read = async {
        let (head, body) = client.request(request).await?.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        Ok::<_, hyper_util::client::legacy::Error>((head.status.as_u16(), body))
    };
    let (status, body) = within(format!("an answer to {path}"), read).await.expect("the controller answers");
    let body = body.expect("an answer comes whole");
    Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() }
}
