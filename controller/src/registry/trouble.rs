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

/// What does not pass by itself is a trouble: no right to read or write, and objects of somebody else.
impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::NotOurs(_) => Trouble::invalid(Part::Spec, NOT_OURS, error.told()).into(),
            error if error.is_forbidden() => {
                Trouble::invalid(Part::Spec, NOT_ALLOWED, format!("{}; {MAY_NOT}", error.told())).into()
            }
            error => Self::Fault(error),
        }
    }
}

/// Reasons that conditions show as they are.
pub(crate) const NOT_OURS: &str = "NotOurs";
pub(crate) const NOT_ALLOWED: &str = "NamespaceNotAllowed";
pub(crate) const REFUSED: &str = "ApplyRefused";

const MAY_NOT: &str = "the controller needs its rights in this namespace";

impl Stop {
    /// What the API server finds wrong with an object was written by somebody; everything else passes.
    pub(super) fn refused(error: Error) -> Self {
        match error {
            Error::NotOurs(_) => error.into(),
            error if error.is_refusal() => Trouble::invalid(Part::Spec, REFUSED, error.told()).into(),
            error => Self::Fault(error),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16) -> Error {
        let status = kube::core::Status { code, message: "no".to_owned(), ..kube::core::Status::default() };
        Error::api("read Secret a")(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn what_does_not_pass_by_itself_is_told() {
        let reason = |stop: Stop| match stop {
            Stop::Trouble(trouble) => Some(trouble.reason),
            Stop::Fault(_) => None,
        };
        assert_eq!(reason(answer(403).into()), Some(NOT_ALLOWED));
        assert_eq!(reason(answer(500).into()), None);
        assert_eq!(reason(Stop::refused(answer(422))), Some(REFUSED));
        assert_eq!(reason(Stop::refused(answer(403))), Some(REFUSED));
        assert_eq!(reason(Stop::refused(answer(409))), None);
        let foreign = || Error::NotOurs("Service a/b".to_owned());
        assert_eq!(reason(Stop::refused(foreign())), Some(NOT_OURS));
        assert_eq!(reason(foreign().into()), Some(NOT_OURS));
    }
}
