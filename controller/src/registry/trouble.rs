//! Why a Registry cannot be run as it is written, or not yet. Plain values; the status stage tells them.

use crate::error::Error;

/// What ends a reconcile early: something to tell, or something that passes by itself.
#[derive(Debug)]
pub(crate) enum Stop {
    Trouble(Trouble),
    Fault(Error),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

/// What stands between a spec and its pods. Nothing that runs is touched for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub kind: Kind,
    /// Which condition shows it besides the general ones.
    pub part: Part,
    /// PascalCase.
    pub reason: &'static str,
    /// What is wrong and what to do. Never holds a secret.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody must change something.
    Invalid,
    /// It comes by itself.
    Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Spec,
    Version,
    Storage,
    Certificate,
}

impl Trouble {
    pub(super) fn invalid(part: Part, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Kind::Invalid, part, reason, message: message.into() }
    }

    pub(super) fn waiting(part: Part, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Kind::Waiting, part, reason, message: message.into() }
    }
}
