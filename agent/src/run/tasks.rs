//! The agent's long tasks: they are kept together, missed when one ends by itself, and ended in an order that no pull
//! notices: not ready, entries out of certs.d, some more seconds for those on their way, drain, the rest.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use larder_mirror::Mirror;
use tokio::net::TcpListener;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// The name of the task that takes entries out of certs.d when `ending` is cancelled.
pub(super) const INSTALLER: &str = "installer";
const MIRROR: &str = "mirror";

/// How long the installer may take to remove its entries.
const REMOVAL: Duration = Duration::from_secs(10);
/// After the entries are gone, containerd may still be on its way to us.
const LINGER: Duration = Duration::from_secs(2);
/// How long running pulls may go on.
const DRAIN: Duration = Duration::from_secs(25);
/// Tasks with nothing to finish.
const REST: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Tasks {
    /// Cancelled first: readiness fails, the installer removes its entries.
    pub(super) ending: CancellationToken,
    /// Cancelled last: nobody asks any more.
    pub(super) stop: CancellationToken,
    mirror: CancellationToken,
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// Why an agent ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By a signal: nobody should notice.
    Asked,
    /// A task is gone: only the entries are taken out, the rest is the next agent's.
    Broken,
}

impl Tasks {
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    pub(super) fn spawn_mirror(&mut self, mirror: &Mirror, listener: TcpListener) {
        let (mirror, stop) = (mirror.clone(), self.mirror.clone());
        self.spawn(MIRROR, async move { mirror.serve(listener, stop, DRAIN).await });
    }

    /// Waits until a task ends that nobody has asked to, and names it.
    pub(super) async fn first_to_end(&mut self) -> &'static str {
        match self.set.join_next_with_id().await {
            Some(ended) => self.took(ended),
            None => std::future::pending().await,
        }
    }

    /// Ends every task.
    pub(super) async fn end(&mut self, ending: Ending) {
        self.ending.cancel();
        self.wait_for(INSTALLER, REMOVAL).await;
        if ending == Ending::Asked {
            info!("draining");
            sleep(LINGER).await;
            self.mirror.cancel();
            self.wait_for(MIRROR, DRAIN + REST).await;
        }
        self.stop.cancel();
        let rest = timeout(REST, async { while self.set.join_next().await.is_some() {} }).await;
        if rest.is_err() {
            warn!("some tasks are left behind");
        }
    }

    /// Waits until a task has ended, but not for ever.
    async fn wait_for(&mut self, name: &'static str, limit: Duration) {
        let ended = timeout(limit, async {
            while self.names.values().any(|running| *running == name) {
                match self.set.join_next_with_id().await {
                    Some(ended) => self.took(ended),
                    None => return,
                };
            }
        });
        if ended.await.is_err() {
            warn!(task = name, "not done in time, going on without");
        }
    }

    fn took(&mut self, ended: Result<(Id, ()), JoinError>) -> &'static str {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let name = self.names.remove(&id).unwrap_or("unnamed");
        if ended.is_err() {
            error!(task = name, "a task of the agent panicked");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_panic_ends_the_wait_and_names_its_task() {
        let mut tasks = Tasks::default();
        tasks.spawn("good", std::future::pending());
        tasks.spawn("bad", async { panic!("on purpose") });
        assert_eq!(tasks.first_to_end().await, "bad");
    }

    #[tokio::test(start_paused = true)]
    async fn the_installer_ends_first_then_the_mirror_then_the_rest() {
        let mut tasks = Tasks::default();
        let order = Arc::new(Mutex::new(Vec::new()));
        // Each is late, so that whoever does not wait for it is found out.
        for (name, token, late) in [
            ("rest", tasks.stop.clone(), REST / 2),
            (MIRROR, tasks.mirror.clone(), DRAIN - REST),
            (INSTALLER, tasks.ending.clone(), REMOVAL - REST),
        ] {
            let order = Arc::clone(&order);
            tasks.spawn(name, async move {
                token.cancelled().await;
                order.lock().unwrap().push((name, "asked"));
                sleep(late).await;
                order.lock().unwrap().push((name, "done"));
            });
        }
        tasks.end(Ending::Asked).await;
        let expected = [INSTALLER, MIRROR, "rest"].map(|name| [(name, "asked"), (name, "done")]);
        assert_eq!(*order.lock().unwrap(), expected.concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_is_left_behind() {
        let mut tasks = Tasks::default();
        for name in [INSTALLER, MIRROR, "rest"] {
            tasks.spawn(name, std::future::pending());
        }
        timeout(REMOVAL + LINGER + DRAIN + 3 * REST, tasks.end(Ending::Asked)).await.unwrap();
    }
}
