//! A held place, from the moment a push may go on until everybody knows how it ended. Must not be lost:
//! dropped without a word, it asks the registry how the push ended.

use std::time::Duration;

use larder_wire::route::Reference;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::space::Ticket;
use super::{Outcome, Push, Tags};
use crate::caller::Caller;
use crate::limits::Used;
use crate::owner::Place;

/// When the registry is asked how an unclear push ended: at first, and after each try that told nothing.
const ASK: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];
/// Tries to tell the owner; afterwards its own clock runs out, and a reading tells.
const TELL: usize = 3;

/// A place for one push, or the right to go on without one.
pub struct Reservation {
    /// How full the limits are with it.
    used: Vec<Used>,
    /// `None` once it has ended.
    open: Option<Open>,
}

struct Open {
    tags: Tags,
    push: Push,
    caller: Caller,
    owner: Place,
    ticket: Option<Ticket>,
}

impl Reservation {
    pub(super) fn new(
        tags: Tags,
        push: Push,
        caller: Caller,
        owner: Place,
        ticket: Option<Ticket>,
        used: Vec<Used>,
    ) -> Self {
        Self { used, open: Some(Open { tags, push, caller, owner, ticket }) }
    }

    /// How full the limits are, this push included.
    #[must_use]
    pub fn used(&self) -> &[Used] {
        &self.used
    }

    /// The registry has taken the push.
    pub fn commit(mut self) {
        self.end(Outcome::Landed);
    }

    /// The registry has refused the push.
    pub fn release(mut self) {
        self.end(Outcome::Refused);
    }

    /// Nobody knows what the registry did. The place is held until it tells.
    pub fn settle_later(self) {
        drop(self);
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(open) = self.open.take() else { return };
        match open.owner {
            Place::Here => open.tags.0.index.settle(open.ticket, &open.push, outcome),
            // Nothing was held, and nothing has come of it.
            Place::There(_) | Place::Nowhere if open.ticket.is_none() && outcome == Outcome::Refused => {}
            Place::There(_) | Place::Nowhere => spawn(async move { open.tell(outcome).await }),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.owner == Place::Here {
            open.tags.0.index.settle(open.ticket, &open.push, Outcome::Unclear);
        }
        spawn(async move {
            let outcome = open.find_out().await;
            debug!(repository = %open.push.repository, ?outcome, "how an unclear push ended");
            open.tell(outcome).await;
        });
    }
}

impl Open {
    /// Asks the registry.
    async fn find_out(&self) -> Outcome {
        let Push { repository, tags, digest } = &self.push;
        let reference = tags.first().map_or(Reference::Digest(*digest), |tag| Reference::Tag(tag.clone()));
        for wait in ASK {
            sleep(wait).await;
            match self.tags.0.upstream.head_manifest(repository, &reference, &self.caller).await {
                Ok(Some(_)) => return Outcome::Landed,
                Ok(None) => return Outcome::Refused,
                Err(error) => debug!(%error, "the registry does not tell how a push ended"),
            }
        }
        Outcome::Unclear
    }

    async fn tell(&self, outcome: Outcome) {
        for _ in 0..TELL {
            let place = self.tags.place(&self.push.repository);
            match (place, &self.tags.0.peers) {
                // A ticket of another replica names nothing here.
                (Place::Here, _) => {
                    let ticket = self.ticket.filter(|_| self.owner == Place::Here);
                    return self.tags.0.index.settle(ticket, &self.push, outcome);
                }
                (Place::There(owner), Some(peers)) => {
                    let ticket = self.ticket.filter(|_| self.owner == place);
                    match peers.settle(owner, ticket, &self.push, outcome).await {
                        Ok(()) => return,
                        Err(error) => debug!(%owner, %error, "the owner could not be told how a push ended"),
                    }
                }
                (Place::There(_) | Place::Nowhere, _) => {}
            }
            sleep(ASK[0]).await;
        }
        let repository = &self.push.repository;
        warn!(%repository, "nobody could be told how a push ended; a resync will tell");
    }
}

/// At the end of the process there may be nobody left to run it.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(task);
    }
}
