//! The pages as a probe, a scraper and the registry's notifications see them.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;

use super::*;
use crate::resync::Credential;
use crate::serve::tests::stage::{Registry, Stage, reply, rest, status};

async fn ask(address: SocketAddr, line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn start(events_token_file: Option<PathBuf>) -> (SocketAddr, CancellationToken, Stage) {
    let registry = Registry::start(|_| reply(200, &[])).await;
    let stage = Stage::new(registry.address, r#"{"generation":1,"action":"enforce","limits":{}}"#).await;
    let (tags, metrics) = (stage.gateway.tags.clone(), Arc::clone(&stage.gateway.metrics));
    let (events, ending) = (Events::new(tags.clone(), Credential(None)), CancellationToken::new());
    let admin = Admin { metrics, tags, events, events_token_file, ending: ending.clone() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::new(admin), CancellationToken::new()));
    (address, ending, stage)
}

#[tokio::test]
async fn a_gateway_that_ends_lives_but_is_not_ready() {
    let (address, ending, _stage) = start(None).await;
    for page in ["/livez", "/readyz", "/metrics", "/usage"] {
        assert_eq!(status(&ask(address, &format!("GET {page}"), "", "").await), 200, "{page}");
    }
    assert!(ask(address, "GET /metrics", "", "").await.contains("larder_gateway_in_flight"));
    assert_eq!(status(&ask(address, "POST /livez", "", "").await), 405);
    assert_eq!(status(&ask(address, "GET /events", "", "").await), 405);
    assert_eq!(status(&ask(address, "GET /v2/", "", "").await), 404);
    ending.cancel();
    assert_eq!(status(&ask(address, "GET /readyz", "", "").await), 503);
    assert_eq!(status(&ask(address, "GET /livez", "", "").await), 200);
}

#[tokio::test]
async fn notifications_need_the_token_that_the_file_holds_now() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let (address, _ending, _stage) = start(Some(file.clone())).await;
    let notify = async |token: &str, body: &str| {
        let header = format!("authorization: Bearer {token}\r\n");
        status(&ask(address, "POST /events", &header, body).await)
    };
    assert_eq!(notify("first", r#"{"events":[]}"#).await, 202);
    assert_eq!(notify("first", "not JSON").await, 202, "it would come again and again");
    assert_eq!(notify("second", "{}").await, 401);
    assert_eq!(notify("", "{}").await, 401);
    assert_eq!(notify("first", &" ".repeat(events::MOST_BYTES + 1)).await, 400);
    std::fs::write(&file, "second").unwrap();
    assert_eq!(notify("second", "{}").await, 202);
    std::fs::write(&file, "\n").unwrap();
    assert_eq!(notify("", "{}").await, 401, "no token is no password");
    let (address, ..) = start(None).await;
    assert_eq!(status(&ask(address, "POST /events", "authorization: Bearer x\r\n", "{}").await), 401);
}
