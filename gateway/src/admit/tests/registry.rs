//! A registry in memory that notes what it is asked, on a real socket. It checks what Distribution checks and
//! no more.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, LINK, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use larder_wire::digest::Digest;
use larder_wire::route::{Reference, Route};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

struct Inner {
    address: String,
    state: Mutex<State>,
    asked: watch::Sender<Vec<String>>,
    /// Lists are answered while this is true.
    lists: watch::Sender<bool>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) blobs: BTreeMap<String, u64>,
    pub(crate) manifests: BTreeMap<String, Bytes>,
    /// Repository and tag.
    pub(crate) tags: BTreeSet<(String, String)>,
    pub(crate) needs_credential: bool,
    /// Takes manifests and says that it did not.
    pub(crate) broken: bool,
}

type Reply = Response<Full<Bytes>>;

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, lists) = (watch::Sender::new(Vec::new()), watch::Sender::new(true));
        let registry = Self(Arc::new(Inner { address, state: Mutex::default(), asked, lists }));
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = serving.clone();
                let answer = service_fn(move |request| {
                    let registry = registry.clone();
                    async move { Ok::<_, Infallible>(registry.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        registry
    }

    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Holds lists back until they are let go.
    pub(crate) fn hold_lists(&self) {
        self.0.lists.send_replace(false);
    }

    pub(crate) fn let_lists_go(&self) {
        self.0.lists.send_replace(true);
    }

    /// What was asked since the last time, as `METHOD PATH`.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        self.0.asked.send_replace(Vec::new())
    }

    /// Waits for a request that has this in it.
    pub(crate) async fn was_asked(&self, part: &str) {
        let mut asked = self.0.asked.subscribe();
        let waiting = asked.wait_for(|asked| asked.iter().any(|line| line.contains(part)));
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "nobody asked for {part}");
    }

    pub(crate) fn add_blob(&self, letter: char, size: u64) -> String {
        let digest = format!("sha256:{}", letter.to_string().repeat(64));
        self.state().blobs.insert(digest.clone(), size);
        digest
    }

    pub(crate) fn add_tag(&self, repository: &str, tag: &str) {
        self.state().tags.insert((repository.to_owned(), tag.to_owned()));
    }

    pub(crate) fn tags(&self, repository: &str) -> usize {
        self.state().tags.iter().filter(|(name, _)| name == repository).count()
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let line = format!("{} {}", request.method(), request.uri());
        self.0.asked.send_modify(|asked| asked.push(line));
        if self.state().needs_credential && !request.headers().contains_key(AUTHORIZATION) {
            let mut reply = status(StatusCode::UNAUTHORIZED);
            reply
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"http://a\""));
            return reply;
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        match (head.method, Route::parse(head.uri.path()).unwrap()) {
            (Method::HEAD, Route::Blob(_, digest)) => {
                let size = self.state().blobs.get(&digest.to_string()).copied();
                size.map_or_else(|| status(StatusCode::NOT_FOUND), |size| sized(size, &digest.to_string()))
            }
            (Method::PUT, Route::Manifest(name, reference)) => self.put(name.as_str(), &reference, body),
            (Method::GET | Method::HEAD, Route::Manifest(name, reference)) => {
                self.manifest(name.as_str(), &reference)
            }
            (Method::GET, Route::Tags(name)) => {
                self.0.lists.subscribe().wait_for(|open| *open).await.unwrap();
                self.list(name.as_str(), head.uri.query().unwrap_or_default())
            }
            (Method::GET, Route::Catalog) => {
                let names: BTreeSet<String> =
                    self.state().tags.iter().map(|(name, _)| name.clone()).collect();
                Response::new(json!({"repositories": names}).to_string().into())
            }
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn put(&self, name: &str, reference: &Reference, body: Bytes) -> Reply {
        if body.is_empty() {
            return status(StatusCode::BAD_REQUEST);
        }
        let digest = Digest::Sha256(Sha256::digest(&body).into());
        let mut state = self.state();
        state.manifests.insert(digest.to_string(), body);
        if let Reference::Tag(tag) = reference {
            state.tags.insert((name.to_owned(), tag.to_string()));
        }
        status(if state.broken { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CREATED })
    }

    fn manifest(&self, name: &str, reference: &Reference) -> Reply {
        let state = self.state();
        match reference {
            Reference::Tag(tag) if state.tags.contains(&(name.to_owned(), tag.to_string())) => {
                sized(7, &format!("sha256:{}", hash(tag.as_str())))
            }
            Reference::Tag(_) => status(StatusCode::NOT_FOUND),
            Reference::Digest(digest) => match state.manifests.get(&digest.to_string()) {
                Some(body) => Response::new(body.clone().into()),
                None => status(StatusCode::NOT_FOUND),
            },
        }
    }

    /// At most as many as asked for, after `last`.
    fn list(&self, name: &str, query: &str) -> Reply {
        let asked = |key: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(&format!("{key}=")).map(str::to_owned))
        };
        let (most, last) = (asked("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX), asked("last"));
        let state = self.state();
        let all = state.tags.iter().filter(|(repository, _)| repository == name).map(|(_, tag)| tag);
        let mut rest: Vec<&String> = all.filter(|tag| last.as_ref().is_none_or(|last| *tag > last)).collect();
        if rest.is_empty() && last.is_none() {
            return status(StatusCode::NOT_FOUND);
        }
        let more = rest.len() > most;
        rest.truncate(most);
        let mut reply: Reply = Response::new(json!({"name": name, "tags": rest}).to_string().into());
        if more {
            let next = format!("</v2/{name}/tags/list?last={}&n={most}>; rel=\"next\"", rest[most - 1]);
            reply.headers_mut().insert(LINK, next.parse().unwrap());
        }
        reply
    }
}

fn hash(text: &str) -> String {
    larder_wire::digest::hex(&Sha256::digest(text))
}

fn sized(size: u64, digest: &str) -> Reply {
    let mut reply = status(StatusCode::OK);
    reply.headers_mut().insert(CONTENT_LENGTH, size.into());
    reply.headers_mut().insert("docker-content-digest", digest.parse().unwrap());
    reply
}

fn status(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}
