//! Reports to a controller of ours on a real port, over TCP and TLS.

use std::convert::Infallible;
use std::fs;
use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use http::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use larder_wire::report::{Cache, Evicted, SCHEMA};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::log::tests::Kept;

const PATIENCE: Duration = Duration::from_secs(10);
const TAKEN: &str = r#"{"desired_generation":7,"next_report_after":"30s"}"#;

fn report() -> Report {
    Report {
        schema: SCHEMA,
        node: "n1".to_owned(),
        version: "0.1.0".to_owned(),
        instance: "i1".to_owned(),
        started: "2026-11-20T09:00:00Z".to_owned(),
        generation: 7,
        cache: Cache::default(),
        evicted_bytes: Evicted::default(),
        registries: Vec::new(),
    }
}

fn settings(controller: &str) -> Settings {
    let mut settings = Settings::default();
    settings.report.controller = Some(controller.to_owned());
    settings.report.token_file = "/nonexistent/token".into();
    settings.report.interval = Duration::from_millis(100);
    settings
}

/// One request as it came.
type Told = (http::request::Parts, Report);

async fn hear(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: Answer,
    to: mpsc::Sender<Told>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let to = to.clone();
        async move {
            let (head, body) = request.into_parts();
            let zipped = body.collect().await.unwrap().to_bytes();
            let mut json = String::new();
            GzDecoder::new(&zipped[..]).read_to_string(&mut json).unwrap();
            to.send((head, serde_json::from_str(&json).unwrap())).await.unwrap();
            Ok::<_, Infallible>(answer())
        }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap();
}

type Answer = fn() -> Response<Full<Bytes>>;

/// A controller that answers so; its URL and what it hears.
async fn controller(answer: Answer) -> (String, mpsc::Receiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (to, told) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(hear(stream, answer, to.clone()));
        }
    });
    (url, told)
}

fn taken() -> Response<Full<Bytes>> {
    Response::new(Full::from(TAKEN))
}

fn busy() -> Response<Full<Bytes>> {
    Response::builder().status(503).header(RETRY_AFTER, "42").body(Full::default()).unwrap()
}

fn broken() -> Response<Full<Bytes>> {
    Response::builder().status(500).body(Full::default()).unwrap()
}

fn nonsense() -> Response<Full<Bytes>> {
    Response::new(Full::from("thanks"))
}

async fn next(told: &mut mpsc::Receiver<Told>) -> Told {
    timeout(PATIENCE, told.recv()).await.expect("in time").expect("still listening")
}

#[tokio::test]
async fn a_report_is_zipped_json_with_the_token_of_the_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (url, mut told) = controller(broken).await;
    let mut settings = settings(&url);
    settings.report.token_file = dir.path().join("token");
    fs::write(&settings.report.token_file, "first\n").unwrap();
    let (_sender, receiver) = watch::channel(settings.clone());
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(receiver, report, stop.clone()));

    let (head, sent) = next(&mut told).await;
    assert_eq!((head.method, head.uri.path()), (Method::POST, "/v1/reports"));
    assert_eq!(head.headers[CONTENT_TYPE], "application/json");
    assert_eq!(head.headers[AUTHORIZATION], "Bearer first");
    assert_eq!(sent, report());

    fs::write(&settings.report.token_file, "second").unwrap();
    let renewed = async { while next(&mut told).await.0.headers[AUTHORIZATION] != "Bearer second" {} };
    timeout(PATIENCE, renewed).await.expect("in time");
    stop.cancel();
    timeout(PATIENCE, task).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_report_is_made_where_waiting_holds_nobody_up() {
    let (url, mut told) = controller(taken).await;
    let (_sender, receiver) = watch::channel(settings(&url));
    let stop = CancellationToken::new();
    let runtime = std::thread::current().id();
    let made = move || Report { generation: u64::from(std::thread::current().id() != runtime), ..report() };
    tokio::spawn(run(receiver, made, stop.clone()));
    assert_eq!(next(&mut told).await.1.generation, 1);
    stop.cancel();
}

#[tokio::test]
async fn a_controller_named_later_is_told() {
    let (url, mut told) = controller(taken).await;
    let mut without = settings(&url);
    without.report.controller = None;
    let (sender, receiver) = watch::channel(without);
    let stop = CancellationToken::new();
    tokio::spawn(run(receiver, report, stop.clone()));
    tokio::task::yield_now().await;
    sender.send_replace(settings(&url));
    let (head, _) = next(&mut told).await;
    assert!(!head.headers.contains_key(AUTHORIZATION));
    stop.cancel();
}

#[tokio::test]
async fn the_controller_sets_the_pace() {
    for (answer, wanted) in [
        (taken as Answer, Some(Duration::from_secs(30))),
        (busy, Some(Duration::from_secs(42))),
        (broken, None),
        (nonsense, None),
    ] {
        let (url, _told) = controller(answer).await;
        assert_eq!(Controller::default().tell(&settings(&url), &report()).await, wanted);
    }
}

#[test]
fn the_pace_is_kept_within_reason() {
    let second = Duration::from_secs;
    assert_eq!(pace(None, second(30), 0.0), second(24));
    assert_eq!(pace(None, second(30), 1.0), second(36));
    assert_eq!(pace(Some(second(60)), second(30), 0.5), second(60));
    assert_eq!(pace(Some(second(0)), second(30), 0.5), SOONEST);
    assert_eq!(pace(Some(second(86_400)), second(30), 0.5), LATEST);
    assert!((0.0..=1.0).contains(&fraction()));
}

#[tokio::test]
async fn a_lost_controller_is_told_once() {
    let lines = Kept::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lost = settings(&format!("http://{}", free.local_addr().unwrap()));
    drop(free);
    let (url, _told) = controller(taken).await;
    let found = settings(&url);

    let mut controller = Controller::default();
    for settings in [&lost, &lost, &found, &found, &lost, &lost] {
        controller.tell(settings, &report()).await;
    }
    let lines = lines.take();
    assert_eq!(lines.matches("takes no report").count(), 2, "{lines}");
    assert_eq!(lines.matches("takes reports").count(), 1, "{lines}");
}

#[tokio::test]
async fn a_token_that_is_no_header_is_an_error_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "hunter2\nhunter2").unwrap();
    let error = authorization(&path).await.unwrap_err();
    assert!(!run::chain(&error).contains("hunter2"));
    fs::write(&path, "hunter2").unwrap();
    assert!(!format!("{:?}", authorization(&path).await.unwrap()).contains("hunter2"));
}

#[tokio::test]
async fn https_is_trusted_by_the_ca_file() {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&ca_file, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (to, mut told) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us hangs up here.
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(hear(stream, taken, to.clone()));
            }
        }
    });
    let mut settings = settings(&url);
    let untrusting = Controller::default().send(&settings, &report()).await;
    assert!(matches!(untrusting, Err(SendError::Connection(_))), "{untrusting:?}");
    settings.ca_file = Some(ca_file);
    assert_eq!(Controller::default().send(&settings, &report()).await.unwrap().desired_generation, 7);
    assert_eq!(next(&mut told).await.1, report());
}
