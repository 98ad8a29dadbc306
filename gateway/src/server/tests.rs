//! Certificates that change while clients come, and an end that finishes what is under way.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Tls;
use crate::serve::tests::stage::{DEADLINE, Registry, Stage, reply, rest, status, until};

const OPEN: &str = r#"{"generation":1,"action":"enforce","limits":{}}"#;

fn write_pair(dir: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
    fs::write(dir.join("tls.key"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

async fn ask_over_tls(stage: &Stage, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(stage.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("the connection ends")?;
    Ok(text)
}

#[tokio::test]
async fn certificates_change_while_clients_come() {
    let dir = tempfile::tempdir().unwrap();
    let first = write_pair(dir.path());
    let tls = Arc::new(Tls::new((dir.path().join("tls.crt"), dir.path().join("tls.key"))).unwrap());
    let registry = Registry::start(|_| reply(200, &[])).await;
    let stage = Stage::with(registry.address, OPEN, "", Some(Arc::clone(&tls))).await;
    assert_eq!(status(&ask_over_tls(&stage, &first).await.unwrap()), 200);
    assert_eq!(registry.take()[0].headers["x-forwarded-proto"], "https");

    fs::write(dir.path().join("tls.crt"), "no certificate").unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(status(&ask_over_tls(&stage, &first).await.unwrap()), 200, "the last good one holds on");

    let second = write_pair(dir.path());
    tls.reload().unwrap();
    assert_eq!(status(&ask_over_tls(&stage, &second).await.unwrap()), 200);
    assert!(ask_over_tls(&stage, &first).await.is_err(), "the old one is gone");
}

#[tokio::test]
async fn what_is_under_way_is_finished_and_nothing_new_begins() {
    let registry = Registry::start(|_| reply(202, &[])).await;
    let stage = Stage::new(registry.address, OPEN).await;
    let mut idle = stage.connect().await;
    let mut pushing = stage.connect().await;
    let head = "PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nhost: a\r\n\
                content-length: 4\r\nexpect: 100-continue\r\n\r\n";
    pushing.write_all(head.as_bytes()).await.unwrap();
    until(&mut pushing, "100 Continue\r\n\r\n").await;
    stage.stop.cancel();
    assert_eq!(rest(&mut idle).await, "", "who asked nothing is let go");
    pushing.write_all(b"rest").await.unwrap();
    // Kept alive by the client, ended by us.
    assert_eq!(status(&rest(&mut pushing).await), 202);
    drop((idle, pushing));
    timeout(DEADLINE, stage.serving).await.expect("the server ends").unwrap();
    assert!(TcpStream::connect(stage.address).await.is_err());
    assert_eq!(registry.take()[0].body.as_ref(), b"rest");
}
