//! What can go wrong between a story and the API server, and passes by itself. What an administrator wrote wrongly is
//! no error here: the story tells it in a condition and ends well.

use std::time::Duration;

/// A fault after which the same reconcile is worth trying again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or was not there.
    #[error("{what}")]
    Api {
        /// Verb and object: `apply Deployment registry-system/main-registry`.
        what: String,
        source: kube::Error,
    },
    /// A reconcile took longer than it may.
    #[error("no end within {}s", .0.as_secs())]
    Deadline(Duration),
    /// An object that the API server cannot have meant: it has no name, or does not read as its type.
    #[error("{what} does not read as what it should be")]
    Malformed { what: String, source: serde_json::Error },
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// It is being deleted, and can only be made when it is gone.
    #[error("{0} is being deleted")]
    Going(String),
    /// Somebody else made an object of this name, and it is not taken over.
    #[error("{0} is there and was not made by this controller: delete or rename it")]
    NotOurs(String),
}

impl Error {
    /// For `map_err`: names what was asked of the API server.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source }
    }

    /// For `map_err`: names the object that does not read.
    pub fn malformed(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let what = what.into();
        move |source| Self::Malformed { what, source }
    }

    /// It was understood and refused: the same object will be refused again.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Api { source: kube::Error::Api(status), .. } => matches!(status.code, 400 | 403 | 422),
            Self::NotOurs(_) => true,
            _ => false,
        }
    }

    /// The controller has no right to what it asked for.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == 403)
    }

    /// What was asked and what the API server said to it, for a condition; not the whole chain with its codes.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Api { what, source: kube::Error::Api(status) } => format!("{what}: {}", status.message),
            other => other.to_string(),
        }
    }

    /// A short word for metrics: `conflict`, `forbidden`, `api`, `deadline`, `other`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Api { source: kube::Error::Api(status), .. } => match status.code {
                403 => "forbidden",
                409 => "conflict",
                _ => "api",
            },
            Self::Api { .. } => "api",
            Self::Deadline(_) => "deadline",
            Self::Malformed { .. } | Self::Random(_) | Self::Going(_) | Self::NotOurs(_) => "other",
        }
    }
}

/// An error and its sources, joined by colons; told once, at the edge.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    std::iter::once(error.to_string()).chain(sources.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}
