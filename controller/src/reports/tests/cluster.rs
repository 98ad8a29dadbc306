//! A cluster of one API server, played, and replicas of the reports' server. Everything ends with the value.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_wire::report::Report;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::reports::{Fleet, Leader, Limits, Rates, ReportMetrics, Reports, serve};

/// Whom a token is of.
#[derive(Clone)]
pub(super) struct User {
    name: String,
    node: Option<String>,
    audiences: Vec<&'static str>,
}

/// How the API server is doing.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Well,
    Broken,
    /// It looks at no audience, and names none.
    Unaware,
}

/// What the API server knows, and how often it was asked.
pub(super) struct Api {
    users: Mutex<HashMap<String, User>>,
    mood: Mutex<Mood>,
    /// The non-resource URL that `reader` may get; empty is every one.
    readable: Mutex<&'static str>,
    pub(super) reviews: AtomicUsize,
    address: SocketAddr,
    _stop: DropGuard,
}

/// One replica.
pub(super) struct Replica {
    pub(super) address: SocketAddr,
    pub(super) fleet: Arc<Fleet>,
    pub(super) leader: watch::Sender<Option<Leader>>,
    pub(super) stop: CancellationToken,
    pub(super) served: JoinHandle<()>,
    metrics: Registry,
    _stop: DropGuard,
}

/// An answer that was read.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answered {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(super) fn agent(node: &str) -> User {
    let name = "system:serviceaccount:larder-agents:larder-default".to_owned();
    User { name, node: Some(node.to_owned()), audiences: vec!["larder-controller"] }
}

pub(super) fn person(name: &str) -> User {
    User { name: name.to_owned(), node: None, audiences: vec!["https://kubernetes.default.svc"] }
}

impl User {
    pub(super) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    pub(super) fn without_node(self) -> Self {
        Self { node: None, ..self }
    }

    pub(super) fn for_audience(self, audience: &'static str) -> Self {
        Self { audiences: vec![audience], ..self }
    }
}

impl Api {
    pub(super) async fn start(users: &[(&str, User)]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let users = users.iter().map(|(token, user)| ((*token).to_owned(), user.clone())).collect();
        let api = Arc::new(Self {
            users: Mutex::new(users),
            mood: Mutex::new(Mood::Well),
            readable: Mutex::new("/v1/nodes"),
            reviews: AtomicUsize::new(0),
            address: listener.local_addr().unwrap(),
            _stop: stop.clone().drop_guard(),
        });
        let weak = Arc::downgrade(&api);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let weak = weak.clone();
                let service = service_fn(move |request| {
                    let api = weak.upgrade();
                    async move { Ok::<_, Infallible>(api.unwrap().answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        }));
        api
    }

    pub(super) fn add(&self, token: &str, user: User) {
        self.users.lock().unwrap().insert(token.to_owned(), user);
    }

    /// `reader` may.
    pub(super) fn may_get_anything(&self) {
        *self.readable.lock().unwrap() = "";
    }

    pub(super) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        self.reviews.fetch_add(1, Ordering::Relaxed);
        if *self.mood.lock().unwrap() == Mood::Broken {
            return answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"kind": "Status", "code": 500}));
        }
        review["status"] = match path.as_str() {
            "/apis/authentication.k8s.io/v1/tokenreviews" => self.whose(&review["spec"]),
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                let (spec, readable) = (&review["spec"], *self.readable.lock().unwrap());
                let asked = &spec["nonResourceAttributes"];
                let readable = readable.is_empty() || asked["path"] == readable;
                json!({"allowed": spec["user"] == "reader" && asked["verb"] == "get" && readable})
            }
            other => panic!("{other} was asked"),
        };
        answer(StatusCode::CREATED, &review)
    }

    fn whose(&self, spec: &Value) -> Value {
        let users = self.users.lock().unwrap();
        let Some(user) = spec["token"].as_str().and_then(|token| users.get(token)) else {
            return json!({"error": "[invalid bearer token, service account token has expired]"});
        };
        let default = vec![json!("https://kubernetes.default.svc")];
        let wanted = spec["audiences"].as_array().unwrap_or(&default);
        let audiences: Vec<_> =
            user.audiences.iter().filter(|audience| wanted.contains(&json!(audience))).collect();
        let unaware = *self.mood.lock().unwrap() == Mood::Unaware;
        if audiences.is_empty() && !unaware {
            return json!({"error": "token audiences do not match"});
        }
        let extra = user.node.as_ref().map(|node| json!({"authentication.kubernetes.io/node-name": [node]}));
        let user = json!({"username": user.name, "extra": extra});
        let audiences = (!unaware).then_some(audiences);
        json!({"authenticated": true, "audiences": audiences, "user": user})
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(body.to_string())).unwrap()
}

/// Patient, so that a slow machine refuses nobody.
pub(super) fn patient() -> Limits {
    let minute = Duration::from_secs(60);
    Limits { reviews: Rates { at_rest: 1e6, warming: 1e6 }, head: minute, body: minute }
}

impl Replica {
    pub(super) async fn start(api: &Api, leader: Option<Leader>, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = kube::Config::new(format!("http://{}", api.address).parse().unwrap());
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        let (fleet, (leader, led)) = (Arc::new(Fleet::default()), watch::channel(leader));
        let (counts, mut metrics) = (ReportMetrics::default(), Registry::default());
        counts.register(&mut metrics);
        let reports = Reports::with(client, Arc::clone(&fleet), led, "larder-agents", limits, counts);
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, Arc::new(reports), stop.clone()));
        Self { address, fleet, leader, _stop: stop.clone().drop_guard(), stop, served, metrics }
    }

    /// With an API server that is never in a hurry.
    pub(super) async fn leading(users: &[(&str, User)]) -> (Arc<Api>, Self) {
        let api = Api::start(users).await;
        let replica = Self::start(&api, Some(Leader::Me), patient()).await;
        (api, replica)
    }

    /// Sends a report as an agent does.
    pub(super) async fn tell(&self, token: &str, report: &Report) -> Answered {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(&serde_json::to_vec(report).unwrap()).unwrap();
        self.post(token, "gzip", packer.finish().unwrap()).await
    }

    pub(super) async fn post(&self, token: &str, encoding: &str, body: Vec<u8>) -> Answered {
        let request = Request::post(format!("http://{}/v1/reports", self.address))
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_ENCODING, encoding);
        send(request.body(Full::from(body)).unwrap()).await
    }

    pub(super) async fn page(&self, token: &str, path: &str) -> Answered {
        let request = Request::get(format!("http://{}{path}", self.address))
            .header(AUTHORIZATION, format!("Bearer {token}"));
        send(request.body(Full::default()).unwrap()).await
    }

    /// A line of the metrics page, such as `reports_total{code="200"} 1`.
    pub(super) fn counts(&self, line: &str) -> bool {
        let mut page = String::new();
        text::encode(&mut page, &self.metrics).unwrap();
        page.lines().any(|counted| counted == line)
    }
}

pub(super) async fn send(request: Request<Full<Bytes>>) -> Answered {
    let client: Client<HttpConnector, _> = Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answered {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}
