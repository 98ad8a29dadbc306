//! The test registry's tokens: who gets one, what it opens, when it ends. Shared between upstreams by cloning, so that
//! one can issue for another. Must not know HTTP.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Stands in every secret that the harness hands out, so that a leak can be found by it.
pub const CANARY: &str = "larder-secret";

/// The state of a token service, shared by its clones.
#[derive(Clone, Default)]
pub struct Tokens(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    issued: HashMap<String, Grant>,
    credentials: Vec<(String, String)>,
    /// Repositories for which an anonymous token is not even given.
    closed: HashSet<String>,
    expires_in: Option<u64>,
    next: u64,
}

/// What a token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) user: Option<String>,
    scopes: Vec<String>,
}

impl Tokens {
    /// Takes this user and password from now on, besides others.
    pub fn accept(&self, user: &str, password: &str) {
        self.state().credentials.push((user.to_owned(), password.to_owned()));
    }

    /// Takes no credential of before any more; tokens given for them end too.
    pub fn forget_credentials(&self) {
        let mut state = self.state();
        state.credentials.clear();
        state.issued.retain(|_, grant| grant.user.is_none());
    }

    /// Ends every token given so far.
    pub fn revoke(&self) {
        self.state().issued.clear();
    }

    /// What replies say as `expires_in` from now on.
    pub fn expire_in(&self, seconds: u64) {
        self.state().expires_in = Some(seconds);
    }

    /// Gives no anonymous token for a repository.
    pub(super) fn close(&self, repository: &str) {
        self.state().closed.insert(repository.to_owned());
    }

    /// The user of a `Basic` header's value, when it is known.
    pub(super) fn basic_user(&self, authorization: &str) -> Option<String> {
        let encoded = authorization.strip_prefix("Basic ")?;
        let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        let state = self.state();
        let known = state.credentials.iter().any(|(u, p)| u == user && p == password);
        known.then(|| user.to_owned())
    }

    /// What a `Bearer` header's value opens.
    pub(super) fn grant(&self, authorization: &str) -> Option<Grant> {
        self.state().issued.get(authorization.strip_prefix("Bearer ")?).cloned()
    }

    /// A token reply's JSON, or nothing when the service refuses.
    pub(super) fn issue(&self, authorization: Option<&str>, scopes: Vec<String>) -> Option<String> {
        let user = match authorization {
            Some(authorization) => Some(self.basic_user(authorization)?),
            None => None,
        };
        let mut state = self.state();
        let closed = |scope: &String| scope.split(':').nth(1).is_some_and(|name| state.closed.contains(name));
        if user.is_none() && scopes.iter().any(closed) {
            return None;
        }
        state.next += 1;
        let token = format!("{CANARY}-token-{}", state.next);
        state.issued.insert(token.clone(), Grant { user, scopes });
        let expires_in = state.expires_in.unwrap_or(300);
        Some(format!(r#"{{"token":"{token}","access_token":"{token}","expires_in":{expires_in}}}"#))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Grant {
    /// Whether the token is for pulling from a repository.
    pub(super) fn opens(&self, repository: &str) -> bool {
        self.scopes.iter().any(|scope| {
            let parts: Vec<&str> = scope.splitn(3, ':').collect();
            matches!(parts[..], ["repository", name, actions] if name == repository
                && actions.split(',').any(|action| action == "pull"))
        })
    }
}
