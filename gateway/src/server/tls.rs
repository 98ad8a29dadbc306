//! The certificate that clients see, read again when its files change. Must not end anything: a file that
//! cannot be used changes nothing.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::upstream::{TlsFilesError, certificates, key};

/// TLS as it is offered now.
pub struct Tls {
    files: (PathBuf, PathBuf),
    current: RwLock<TlsAcceptor>,
}

impl Tls {
    /// `files` are the certificate, with its chain, and its key.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn new(files: (PathBuf, PathBuf)) -> Result<Self, TlsFilesError> {
        let current = RwLock::new(acceptor(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again, for connections from now on.
    ///
    /// # Errors
    /// When one cannot be used; then nothing changes.
    pub fn reload(&self) -> Result<(), TlsFilesError> {
        let acceptor = acceptor(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
        Ok(())
    }

    /// What is offered now, to be compared with what is offered later.
    #[cfg(test)]
    pub(crate) fn offered(&self) -> Arc<ServerConfig> {
        Arc::clone(self.current.read().unwrap().config())
    }

    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        acceptor.accept(stream).await
    }
}

fn acceptor((certificate, key_file): &(PathBuf, PathBuf)) -> Result<TlsAcceptor, TlsFilesError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, key(key_file)?)
        .map_err(|error| TlsFilesError::Pair(certificate.clone(), error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
