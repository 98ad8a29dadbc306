//! What can go wrong on the way to the registry, and what the client is told then.

use std::time::Duration;

use http::StatusCode;
use hyper_util::client::legacy;
use larder_wire::oci::Code;

use crate::body::{BoxError, WholeError};
use crate::refuse::{Reason, Refusal};

/// How soon a client may try again.
const AGAIN: Duration = Duration::from_secs(5);

/// Why the registry gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("no connection to the registry behind the gateway")]
    Connect(#[source] BoxError),
    #[error("the connection to the registry behind the gateway broke")]
    Broken(#[source] BoxError),
    #[error("the registry behind the gateway gave no answer in {} s", .0.as_secs())]
    Silent(Duration),
    /// To a question of the gateway's own.
    #[error("the registry behind the gateway answered {0}")]
    Status(StatusCode),
    #[error("the registry behind the gateway cannot be used: {0}")]
    Unusable(&'static str),
    #[error("the registry's answer cannot be taken as a whole")]
    Whole(#[from] WholeError),
}

impl UpstreamError {
    /// What a client is told whose request could not be passed on.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let words = format!("{self}; nothing is wrong with the push or pull itself, try again.");
        match self {
            Self::Connect(_) => Refusal::unavailable(Reason::Upstream, words, AGAIN),
            Self::Silent(_) => {
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, Code::Unavailable, Reason::Upstream, words)
            }
            Self::Broken(_) | Self::Status(_) | Self::Unusable(_) | Self::Whole(_) => {
                Refusal::new(StatusCode::BAD_GATEWAY, Code::Unavailable, Reason::Upstream, words)
            }
        }
    }
}

impl From<legacy::Error> for UpstreamError {
    fn from(error: legacy::Error) -> Self {
        if error.is_connect() { Self::Connect(error.into()) } else { Self::Broken(error.into()) }
    }
}
