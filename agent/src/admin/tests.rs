//! The pages over real connections, in front of a real, empty mirror.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::HeaderMap;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1 as client;
use larder_wire::report::Report;
use larder_wire::settings::Settings;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::*;
use crate::report::tests::facts;

struct Agent {
    address: SocketAddr,
    data_dir: PathBuf,
    ending: CancellationToken,
    stop: CancellationToken,
    _settings: watch::Sender<Settings>,
    _dir: TempDir,
}

async fn agent(pages: Pages) -> Agent {
    let dir = tempfile::tempdir().unwrap();
    let (facts, settings) = facts(dir.path()).await;
    let metrics = Metrics::new(facts.settings.clone(), |registry| facts.mirror.register(registry));
    let ending = CancellationToken::new();
    let data_dir = facts.settings.borrow().data_dir.clone();
    let admin = Admin { facts: Arc::new(facts), metrics: Arc::new(metrics), ending: ending.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(serve(listener, Arc::new(admin), pages, stop.clone()));
    Agent { address, data_dir, ending, stop, _settings: settings, _dir: dir }
}

impl Agent {
    async fn ask(&self, method: Method, path: &str) -> (StatusCode, HeaderMap, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "node");
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn status(&self, path: &str) -> StatusCode {
        self.ask(Method::GET, path).await.0
    }
}

#[tokio::test]
async fn probes() {
    let agent = agent(Pages::All).await;
    assert_eq!(agent.status("/livez").await, StatusCode::OK);
    assert_eq!(agent.status("/readyz").await, StatusCode::OK);

    fs::write(agent.data_dir.join("BYPASS"), "").unwrap();
    let (status, _, words) = agent.ask(Method::GET, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(words.contains("BYPASS"), "{words}");
    fs::remove_file(agent.data_dir.join("BYPASS")).unwrap();
    assert_eq!(agent.status("/readyz").await, StatusCode::OK);

    agent.ending.cancel();
    let (status, _, words) = agent.ask(Method::GET, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(words.contains("ending"), "{words}");
    assert_eq!(agent.status("/livez").await, StatusCode::OK);
    agent.stop.cancel();
}

#[tokio::test]
async fn metrics_and_stats() {
    let agent = agent(Pages::All).await;
    let (status, headers, page) = agent.ask(Method::GET, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(page.contains("larder_config_unknown_keys 0\n"), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");

    let (status, headers, page) = agent.ask(Method::GET, "/stats").await;
    assert_eq!(
        (status, &headers[CONTENT_TYPE]),
        (StatusCode::OK, &HeaderValue::from_static("application/json"))
    );
    let report: Report = serde_json::from_str(&page).unwrap();
    assert_eq!((report.generation, report.instance.as_str()), (7, "i1"));
    agent.stop.cancel();
}

#[tokio::test]
async fn what_is_no_page() {
    let agent = agent(Pages::All).await;
    for path in ["/", "/v2/", "/metrics/", "/stats?x=1/../"] {
        let expected = if path.starts_with("/stats") { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(agent.status(path).await, expected, "{path}");
    }
    let (status, headers, _) = agent.ask(Method::POST, "/stats").await;
    assert_eq!(
        (status, &headers[ALLOW]),
        (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET, HEAD"))
    );
    let (status, _, body) = agent.ask(Method::HEAD, "/livez").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
    agent.stop.cancel();
}

#[tokio::test]
async fn the_address_for_metrics_has_nothing_else() {
    let agent = agent(Pages::Metrics).await;
    assert_eq!(agent.status("/metrics").await, StatusCode::OK);
    for path in ["/livez", "/readyz", "/stats"] {
        assert_eq!(agent.status(path).await, StatusCode::NOT_FOUND, "{path}");
    }
    agent.stop.cancel();
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let agent = agent(Pages::All).await;
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let mut reply = Vec::new();
    let long = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    // The agent may hang up in the middle of this.
    let _ = stream.write_all(long.as_bytes()).await;
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut reply)).await.expect("in time");
    assert!(!reply.starts_with(b"HTTP/1.1 200"));
    assert_eq!(agent.status("/livez").await, StatusCode::OK);
    agent.stop.cancel();
}
