//! What replicas say to each other: small JSON questions to the owner of a namespace, proven by a shared
//! token. Must not carry images, and must not log the client's credential that travels along for the owner's
//! own questions.

pub mod server;
pub(crate) mod text;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::caller::Caller;
use crate::tags::{Answer, Outcome, Push};

/// The client's own Authorization, for what the owner has to ask the registry.
const CLIENT_AUTHORIZATION: &str = "larder-client-authorization";
/// The longest question or answer: a push names at most a few dozen tags.
const MOST_BYTES: usize = 64 * 1024;
const CONNECT: Duration = Duration::from_secs(1);
/// For what no push waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to the other replicas.
pub struct Peers {
    client: Client<HttpConnector, Full<Bytes>>,
    token: HeaderValue,
}

/// Why a question came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("nobody counts for this namespace just now")]
    NotTheOwner,
    #[error("the other replica answered {0}")]
    Status(StatusCode),
    #[error("the other replica gave no answer in time")]
    Silent,
    #[error("the other replica cannot be asked")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the peer token cannot stand in a header")]
    Token,
}

/// What happened in a repository, or is said to have happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum News {
    TagDeleted(#[serde(with = "text")] Tag),
    ImageDeleted(#[serde(with = "text")] Digest),
    /// By a notification, which may be late.
    Said {
        #[serde(with = "text")]
        tag: Tag,
        present: bool,
    },
}

/// One question. What it is about decides who has to answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    Touch {
        #[serde(with = "text")]
        repository: Repository,
    },
    Reserve(Push),
    Settle {
        ticket: Option<u64>,
        push: Push,
        outcome: Outcome,
    },
    News {
        #[serde(with = "text")]
        repository: Repository,
        news: News,
    },
}

impl Question {
    fn repository(&self) -> &Repository {
        match self {
            Self::Reserve(push) | Self::Settle { push, .. } => &push.repository,
            Self::Touch { repository } | Self::News { repository, .. } => repository,
        }
    }
}

impl Peers {
    /// # Errors
    /// [`PeerError::Token`] when the token has line ends or the like in it.
    pub fn new(token: &SecretString) -> Result<Self, PeerError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let token = HeaderValue::try_from(format!("Bearer {}", token.expose_secret().trim()));
        let mut token = token.map_err(|_| PeerError::Token)?;
        token.set_sensitive(true);
        Ok(Self { client, token })
    }

    pub(crate) async fn reserve(
        &self,
        owner: SocketAddr,
        push: &Push,
        caller: &Caller,
        patience: Duration,
    ) -> Result<Answer, PeerError> {
        let answer = self.ask(owner, &Question::Reserve(push.clone()), Some(caller), patience).await?;
        serde_json::from_slice(&answer).map_err(|error| PeerError::Broken(error.into()))
    }

    pub(crate) async fn settle(
        &self,
        owner: SocketAddr,
        ticket: Option<u64>,
        push: &Push,
        outcome: Outcome,
    ) -> Result<(), PeerError> {
        let question = Question::Settle { ticket, push: push.clone(), outcome };
        self.ask(owner, &question, None, PATIENCE).await.map(drop)
    }

    pub(crate) async fn touch(
        &self,
        owner: SocketAddr,
        repository: &Repository,
        caller: &Caller,
    ) -> Result<(), PeerError> {
        let question = Question::Touch { repository: repository.clone() };
        self.ask(owner, &question, Some(caller), PATIENCE).await.map(drop)
    }

    pub(crate) async fn tell(
        &self,
        owner: SocketAddr,
        repository: &Repository,
        news: &News,
        caller: &Caller,
    ) -> Result<(), PeerError> {
        let question = Question::News { repository: repository.clone(), news: news.clone() };
        self.ask(owner, &question, Some(caller), PATIENCE).await.map(drop)
    }

    async fn ask(
        &self,
        owner: SocketAddr,
        question: &Question,
        caller: Option<&Caller>,
        patience: Duration,
    ) -> Result<Bytes, PeerError> {
        let body = serde_json::to_vec(question).map_err(|error| PeerError::Broken(error.into()))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let uri = format!("http://{owner}/v1/ask").parse();
        *request.uri_mut() = uri.map_err(|error: http::uri::InvalidUri| PeerError::Broken(error.into()))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, self.token.clone());
        if let Some(authorization) = caller.and_then(|caller| caller.authorization.clone()) {
            headers.insert(CLIENT_AUTHORIZATION, authorization);
        }
        let exchange = async {
            let response =
                self.client.request(request).await.map_err(|error| PeerError::Broken(error.into()))?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::CONFLICT => return Err(PeerError::NotTheOwner),
                status => return Err(PeerError::Status(status)),
            }
            let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
            body.map(|body| body.to_bytes()).map_err(PeerError::Broken)
        };
        timeout(patience, exchange).await.unwrap_or(Err(PeerError::Silent))
    }
}
