//! What can go wrong between a request and its answer. Each variant says what happened; `refuse.rs` alone says what the
//! client is told. Cheap to clone: everybody who follows a failed flight gets the same error.

use std::sync::Arc;
use std::time::Duration;

use larder_wire::digest::Digest;
use larder_wire::route::RouteError;

/// A request that never reaches an upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the method is not GET or HEAD")]
    Method,
    #[error("the request has a body")]
    Body,
    #[error("the path is longer than 8 KiB")]
    TooLong,
    #[error("the request is no path of this server's")]
    Absolute,
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("ns is given more than once")]
    RepeatedNs,
    #[error("no upstream for ns={0:?}")]
    UnknownNs(String),
    #[error("no ns, and no default upstream")]
    NoNs,
    #[error("the catalog is not served")]
    Catalog,
    #[error("tags of this registry are asked of the registry itself")]
    TagsNotServed,
    #[error("the client does not accept {0}")]
    NotAccepted(String),
}

/// Why upstream did not give what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("not found")]
    NotFound,
    /// What it answered, with the rights we may use.
    #[error("upstream {0}")]
    Private(u16),
    #[error("rate limited")]
    Limited(Option<Duration>),
    #[error("upstream answered {0}")]
    Status(u16),
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    #[error("it cannot be reached")]
    Connect(#[source] Shared),
    /// Our own fault: it says nothing of the upstream.
    #[error("this node has no descriptors left")]
    Exhausted(#[source] Shared),
    #[error("it must not be reached")]
    Forbidden(#[source] Shared),
    #[error("{0}")]
    Unusable(&'static str),
    #[error("its body broke off")]
    Broken(#[source] Shared),
    #[error("its body stood still for {0:?}")]
    Idle(Duration),
    #[error("it failed too often and is probed")]
    Resting,
    #[error("its bytes are {}, not {}", .0.found, .0.expected)]
    WrongBytes(Arc<Mismatch>),
    /// These bytes were wrong a moment ago.
    #[error("it sent wrong bytes for this digest")]
    Banned,
    #[error("the media type {0} cannot be verified")]
    UnsupportedType(String),
    #[error("the manifest is larger than 4 MiB")]
    TooLarge,
    #[error("the credential cannot be read")]
    Credential(#[source] Shared),
    #[error("its token server failed")]
    TokenServer(#[source] Arc<Self>),
    /// The task that fetched it ended without a word.
    #[error("the fetch was given up")]
    Abandoned,
}

/// What was asked for, and what came.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub expected: Digest,
    pub found: Digest,
}

/// A source that several errors share.
pub(crate) type Shared = Arc<dyn std::error::Error + Send + Sync>;

/// Why a pull is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    #[error("a person turned the cache off (BYPASS)")]
    Bypass,
    #[error("the range lies beyond {size} bytes")]
    Range { size: u64 },
}

impl UpstreamError {
    /// Whether the upstream itself is at fault, which counts towards its breaker.
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Self::Status(status) => *status >= 500,
            Self::NoAnswer(_) | Self::Connect(_) | Self::Broken(_) | Self::Idle(_) => true,
            Self::NotFound
            | Self::Private(_)
            | Self::Limited(_)
            | Self::Forbidden(_)
            | Self::Unusable(_)
            | Self::Resting
            | Self::WrongBytes(_)
            | Self::Banned
            | Self::UnsupportedType(_)
            | Self::TooLarge
            | Self::Credential(_)
            | Self::TokenServer(_)
            | Self::Exhausted(_)
            | Self::Abandoned => false,
        }
    }

    /// Whether a stale tag may be served instead: upstream could not say, rather than said no.
    pub(crate) fn leaves_tag_standing(&self) -> bool {
        match self {
            Self::NotFound | Self::Private(_) | Self::UnsupportedType(_) | Self::Forbidden(_) => false,
            Self::Limited(_)
            | Self::Status(_)
            | Self::NoAnswer(_)
            | Self::Connect(_)
            | Self::Unusable(_)
            | Self::Broken(_)
            | Self::Idle(_)
            | Self::Resting
            | Self::WrongBytes(_)
            | Self::Banned
            | Self::TooLarge
            | Self::Credential(_)
            | Self::TokenServer(_)
            | Self::Exhausted(_)
            | Self::Abandoned => true,
        }
    }
}
