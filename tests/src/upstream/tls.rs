//! Certificates for upstreams over TLS: an authority of our own, made anew for each. Must not touch the system's roots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// What is wrong with a certificate, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Its time is over.
    Expired,
    /// For a host that nobody asked for.
    WrongName,
    /// Signed by an authority that is not the one in the CA file.
    UnknownAuthority,
}

/// An authority's certificate on disk, and an acceptor with a leaf that it signed.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    ca: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tls {
    pub(super) fn new(names: &[&str], flaw: Flaw) -> Self {
        let (trusted, stranger) = (authority(), authority());
        let signer = if flaw == Flaw::UnknownAuthority { &stranger } else { &trusted };
        let names = if flaw == Flaw::WrongName { vec!["elsewhere.test".to_owned()] } else { owned(names) };
        let mut params = CertificateParams::new(names).expect("test names are valid");
        if flaw == Flaw::Expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().expect("a key can be made");
        let leaf = params.signed_by(&key, signer).expect("the authority signs");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("the key is the certificate's");
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, trusted.pem()).expect("the CA file can be written");
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), ca, _dir: dir }
    }

    /// The authority's certificate as PEM.
    pub(super) fn ca_file(&self) -> &Path {
        &self.ca
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names are valid names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    CertifiedIssuer::self_signed(params, key).expect("the authority signs itself")
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
