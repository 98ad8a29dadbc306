//! `GET /v1/nodes` and `GET /v1/summary`: what the fleet knows, for people and tools that may read it. Must
//! not answer whom the API server does not know.

use std::collections::BTreeMap;

use http::{HeaderMap, Response, StatusCode, Uri};
use jiff::Timestamp;
use serde::Serialize;
use url::form_urlencoded;

use super::answer::{Answer, json};
use super::fleet::{NodeView, Summary, UpstreamSummary};
use super::refuse::Refusal;
use super::token::Token;
use super::{Reports, forward};

/// The pages there are; also what a reader must be allowed to `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Nodes,
    Summary,
}

impl Page {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Nodes => "/v1/nodes",
            Self::Summary => "/v1/summary",
        }
    }
}

/// `GET /v1/nodes`: every node, by name.
#[derive(Serialize)]
struct Nodes {
    nodes: Vec<NodeView>,
}

/// `GET /v1/summary`: NodeCaches by name, registries by name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summaries {
    node_caches: BTreeMap<String, Summary>,
    /// Over all NodeCaches, whichever is asked for.
    registries: BTreeMap<String, UpstreamSummary>,
}

impl Reports {
    /// A page for who may read it; `?nodeCache=NAME` leaves the others out.
    pub(super) async fn page(
        &self,
        page: Page,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response<Answer>, Refusal> {
        self.reviewer.reader(&Token::of(headers)?, page.path()).await?;
        // A page of a large fleet is some megabytes: they are made one after the other.
        let busy = Refusal::Busy { again: forward::AGAIN };
        let Ok(turn) = self.pages.clone().acquire_owned().await else { return Err(busy) };
        let query = uri.query().unwrap_or_default().as_bytes();
        let node_cache = form_urlencoded::parse(query)
            .find(|(key, _)| key == "nodeCache")
            .map(|(_, value)| value.into_owned());
        let (fleet, now) = (self.fleet.clone(), Timestamp::now());
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let node_cache = node_cache.as_deref();
            match page {
                Page::Nodes => json(StatusCode::OK, &Nodes { nodes: fleet.nodes(node_cache, now) }),
                Page::Summary => {
                    let names = fleet.node_caches().into_iter();
                    let wanted = names.filter(|name| node_cache.is_none_or(|wanted| wanted == name));
                    let node_caches = wanted.map(|name| (name.clone(), fleet.summary(&name, now))).collect();
                    let upstream = |registry: String| (registry.clone(), fleet.upstream(&registry, now));
                    let registries = fleet.registries().into_iter().map(upstream).collect();
                    json(StatusCode::OK, &Summaries { node_caches, registries })
                }
            }
        });
        made.await.map_err(|_| busy)
    }
}
