//! A registry that demands a certificate of its clients, by an authority of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Request;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::body::empty;
use crate::serve::tests::stage::reply;
use crate::upstream::{TlsFiles, Upstream, UpstreamError};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key.
    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

async fn registry(authority: &Authority) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build();
    let (certificate, key) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        );
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(async |_| Ok::<_, std::convert::Infallible>(reply(200, &[])));
            let mut serving = hyper::server::conn::http1::Builder::new();
            drop(serving.keep_alive(false).serve_connection(TokioIo::new(stream), service).await);
        }
    });
    address
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

async fn ask(upstream: &Upstream) -> Result<u16, UpstreamError> {
    let request = Request::get("/v2/").body(empty()).unwrap();
    Ok(upstream.send(request).await?.status().as_u16())
}

#[tokio::test]
async fn a_client_certificate_opens_the_registry_and_may_change() {
    let (ours, others) = (Authority::new(), Authority::new());
    let home = format!("https://localhost:{}", registry(&ours).await.port());
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.crt", &ours.pem);
    let nobody = Upstream::new(home.parse().unwrap(), TlsFiles { ca: Some(ca.clone()), client: None });
    assert!(ask(&nobody.unwrap()).await.is_err(), "no certificate, no answer");

    let (certificate, key) = others.issue(ExtendedKeyUsagePurpose::ClientAuth);
    let client = (write(dir.path(), "tls.crt", &certificate), write(dir.path(), "tls.key", &key));
    let files = TlsFiles { ca: Some(ca.clone()), client: Some(client) };
    let upstream = Upstream::new(home.parse().unwrap(), files).unwrap();
    assert!(ask(&upstream).await.is_err(), "somebody else's certificate");

    let (certificate, key) = ours.issue(ExtendedKeyUsagePurpose::ClientAuth);
    write(dir.path(), "tls.crt", &certificate);
    assert!(upstream.reload().is_err(), "a certificate without its key");
    write(dir.path(), "tls.key", &key);
    upstream.reload().unwrap();
    assert_eq!(ask(&upstream).await.unwrap(), 200);

    write(dir.path(), "ca.crt", &others.pem);
    upstream.reload().unwrap();
    assert!(matches!(ask(&upstream).await, Err(UpstreamError::Connect(_))), "another registry");
}
