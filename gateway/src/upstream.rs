//! The registry behind: every request to it goes through here, the client's and those made on a client's
//! behalf. Must not retry, remember an answer, or show one client's credential for another's request.

mod ask;
mod client;
mod error;

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use larder_wire::settings::UpstreamUrl;
use tokio::time::timeout;

use crate::body::{Body, Flow};
use client::Pool;

pub use ask::{Found, Listing, TagsPage};
pub use client::{TlsFiles, TlsFilesError};
pub(crate) use client::{certificates, key};
pub use error::UpstreamError;

/// The longest wait for a reply's head, once the registry has the whole request.
const HEAD_WAIT: Duration = Duration::from_secs(60);
/// The same after an upload, which the registry may have to copy within its storage before it answers.
const UPLOAD_WAIT: Duration = Duration::from_secs(600);

/// The registry behind, and the connections to it.
pub struct Upstream {
    home: UpstreamUrl,
    files: TlsFiles,
    /// Replaced as a whole when certificates change; what is under way keeps the one it started with.
    pool: RwLock<Pool>,
}

impl Upstream {
    /// `home` has no path.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn new(home: UpstreamUrl, files: TlsFiles) -> Result<Self, TlsFilesError> {
        let pool = RwLock::new(client::pool(&files)?);
        Ok(Self { home, files, pool })
    }

    #[must_use]
    pub fn home(&self) -> &UpstreamUrl {
        &self.home
    }

    /// Reads certificates and keys again, for connections made from now on.
    ///
    /// # Errors
    /// When one cannot be used; then nothing changes.
    pub fn reload(&self) -> Result<(), TlsFilesError> {
        let pool = client::pool(&self.files)?;
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = pool;
        Ok(())
    }

    /// Sends a request whose URI is a path and a query, and waits for the reply's head.
    ///
    /// # Errors
    /// When no head came.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, UpstreamError> {
        let sending = self.pool().request(self.addressed(request)?);
        let sent = timeout(HEAD_WAIT, sending).await;
        sent.map_err(|_| UpstreamError::Silent(HEAD_WAIT))?.map_err(UpstreamError::from)
    }

    /// The same for a request whose body streams and tells `flow`: waiting begins when the body has ended.
    ///
    /// # Errors
    /// When no head came.
    pub async fn stream(
        &self,
        request: Request<Body>,
        flow: &Flow,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let sending = self.pool().request(self.addressed(request)?);
        let mut sending = std::pin::pin!(sending);
        tokio::select! {
            sent = sending.as_mut() => return sent.map_err(UpstreamError::from),
            () = flow.ended() => {}
        }
        let sent = timeout(UPLOAD_WAIT, sending).await;
        sent.map_err(|_| UpstreamError::Silent(UPLOAD_WAIT))?.map_err(UpstreamError::from)
    }

    fn pool(&self) -> Pool {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn addressed(&self, mut request: Request<Body>) -> Result<Request<Body>, UpstreamError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("{}{path}", self.home);
        *request.uri_mut() = Uri::try_from(uri).map_err(|_| UpstreamError::Unusable("its address"))?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
