//! Counts whole namespaces: which repositories there are by one walk through the catalog, then what each of
//! them holds. Only where such a limit applies. Must not run twice at once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use larder_wire::name::Repository;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::{CENSUS, Resync};
use crate::caller::Caller;
use crate::limits::namespace;
use crate::owner::Place;
use crate::tags::Trouble;

const PAGE: usize = 1000;
/// How often somebody looks whether a namespace waits to be counted for the first time.
const LOOK: Duration = Duration::from_secs(5);
/// After a walk that failed.
const AGAIN: Duration = Duration::from_secs(60);

impl Resync {
    /// At the start, each hour, and soon after a namespace gets such a limit or comes to this replica.
    pub(super) async fn censuses(&self) {
        let mut due = Instant::now();
        loop {
            let namespaces = self.to_count();
            let waiting = namespaces.iter().any(|name| !self.tags.index().knows_names(name));
            if namespaces.is_empty() || (!waiting && Instant::now() < due) {
                sleep(LOOK).await;
                continue;
            }
            match self.census(&namespaces, &self.credential.caller()).await {
                Ok(()) => due = Instant::now() + CENSUS,
                Err(trouble) => {
                    warn!(%trouble, "the catalog cannot be read: limits over whole namespaces are not known");
                    sleep_until(Instant::now() + AGAIN).await;
                }
            }
        }
    }

    fn to_count(&self) -> HashSet<String> {
        let policy = self.policy.current();
        let owners = self.tags.owners();
        let whole = policy.namespaces().filter(|name| policy.counts_whole(name));
        whole.filter(|name| owners.place(name) == Place::Here).map(str::to_owned).collect()
    }

    async fn census(&self, namespaces: &HashSet<String>, caller: &Caller) -> Result<(), Trouble> {
        let index = self.tags.index();
        let readings: HashMap<&String, _> =
            namespaces.iter().map(|name| (name, index.begin_names(name))).collect();
        let catalog = self.catalog(namespaces, caller).await;
        let mut found = match catalog {
            Ok(found) => found,
            Err(trouble) => {
                readings.into_iter().for_each(|(name, reading)| index.abandon_names(name, reading));
                return Err(trouble);
            }
        };
        for (name, reading) in readings {
            let repositories = found.remove(name).unwrap_or_default();
            index.names_read(name, reading, repositories.clone());
            for repository in &repositories {
                self.read(repository, caller).await;
            }
            debug!(namespace = name, repositories = repositories.len(), "counted");
        }
        Ok(())
    }

    async fn catalog(
        &self,
        namespaces: &HashSet<String>,
        caller: &Caller,
    ) -> Result<HashMap<String, HashSet<Repository>>, Trouble> {
        let mut found: HashMap<String, HashSet<Repository>> = HashMap::new();
        let mut last: Option<String> = None;
        loop {
            let page =
                self.upstream.catalog_page(PAGE, last.as_deref(), caller.authorization.as_ref()).await?;
            for repository in page.repositories {
                if namespaces.contains(namespace(&repository)) {
                    found.entry(namespace(&repository).to_owned()).or_default().insert(repository);
                }
            }
            // A page that leads back to itself would never end.
            match page.next.filter(|next| last.as_ref() != Some(next)) {
                Some(next) => last = Some(next),
                None => return Ok(found),
            }
        }
    }
}
