//! Until when a client can wait: from its request to the head of its answer, queue, token and redirects included. Must
//! not stop what it stops waiting for.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::PullError;
use crate::request::Pull;

/// A moment, and how long it was away when the client asked.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    patience: Duration,
}

impl Deadline {
    pub(super) fn of(pull: &Pull, head_only: bool) -> Self {
        let settings = &pull.upstream.settings;
        Self::after(if head_only { settings.head_timeout } else { settings.first_byte_timeout })
    }

    fn after(patience: Duration) -> Self {
        Self { at: Instant::now() + patience, patience }
    }

    /// What a HEAD upstream may take of it.
    pub(super) fn for_heads(self, pull: &Pull) -> Self {
        let heads = Self::after(pull.upstream.settings.head_timeout);
        if heads.at < self.at { heads } else { self }
    }

    /// Waits for a stage no longer than the client can.
    pub(super) async fn wait<T, E: Into<PullError>>(
        self,
        stage: impl Future<Output = Result<T, E>>,
    ) -> Result<T, PullError> {
        match tokio::time::timeout_at(self.at, stage).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => Err(PullError::Deadline(self.patience)),
        }
    }
}
