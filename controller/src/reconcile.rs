//! Runs a kind's story for every object that changed: read afresh, within a deadline, again after a fault with a pause
//! that grows per object, counted. Must not know what a story does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::api::GetParams;
use kube::core::Request;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::context::Context;
use crate::error::{Error, chain};

/// How long one reconcile may take. Waiting for a rollout is not waiting here: the story looks again later.
const DEADLINE: Duration = Duration::from_secs(60);

/// Objects of one kind that are reconciled at once.
const AT_ONCE: u16 = 8;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Serves `controller` until `stop`; those that have begun end first.
pub async fn run<K, F, Fut>(
    controller: Controller<K>,
    context: Arc<Context>,
    story: F,
    stop: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    F: Fn(Arc<K>, Arc<Context>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let pauses = Arc::new(Pauses::default());
    let reconcile = move |object: Arc<K>, context: Arc<Context>| {
        let (story, pauses) = (story.clone(), Arc::clone(&pauses));
        async move { Ok::<_, Infallible>(once(object, context, story, &pauses).await) }
    };
    controller
        .with_config(Config::default().concurrency(AT_ONCE))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |_, never, _| match *never {}, context)
        .for_each(|ended| async move {
            if let Err(error) = ended {
                tell(&K::kind(&()), &error);
            }
        })
        .await;
}

/// A watch that breaks is taken up again by itself; an object deleted meanwhile is no fault.
fn tell(kind: &str, error: &kube::runtime::controller::Error<Infallible, watcher::Error>) {
    match error {
        kube::runtime::controller::Error::ObjectNotFound(_) => {}
        error => debug!(kind, error = chain(error), "a watch is taken up again"),
    }
}

async fn once<K, F, Fut>(object: Arc<K>, context: Arc<Context>, story: F, pauses: &Pauses<K>) -> Action
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + 'static,
    F: Fn(Arc<K>, Arc<Context>) -> Fut,
    Fut: Future<Output = Result<Action, Error>>,
{
    let (kind, key, began) = (K::kind(&()), ObjectRef::from_obj(object.as_ref()), Instant::now());
    let running = context.metrics.running(&kind);
    let ended = timeout(DEADLINE, async {
        // The watch may be behind our own last write, and a decision must not rest on an old status.
        match fresh(object.as_ref(), &context).await? {
            Some(object) => story(Arc::new(object), Arc::clone(&context)).await,
            None => Ok(Action::await_change()),
        }
    })
    .await
    .unwrap_or(Err(Error::Deadline(DEADLINE)));
    drop(running);
    context.metrics.reconciled(&kind, ended.as_ref().err().map_or("ok", Error::kind), began.elapsed());
    match ended {
        Ok(action) => {
            context.metrics.waiting(&kind, pauses.forget(&key));
            action
        }
        Err(error) => {
            let (pause, waiting) = pauses.next(key);
            context.metrics.waiting(&kind, waiting);
            let (name, namespace) = (object.name_any(), object.namespace());
            warn!(%kind, name, namespace, error = chain(&error), again_in = ?pause, "a reconcile failed");
            Action::requeue(pause)
        }
    }
}

async fn fresh<K>(object: &K, context: &Context) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let what = || format!("read {} {}", K::kind(&()), object.name_any());
    let request = Request::new(K::url_path(&(), object.namespace().as_deref()))
        .get(&object.name_any(), &GetParams::default())
        .map_err(|error| Error::api(what())(kube::Error::BuildRequest(error)))?;
    match context.client.request::<K>(request).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Error::api(what())(error)),
    }
}

/// How often each object failed in a row.
struct Pauses<K: Resource<DynamicType = ()> + 'static> {
    failures: Mutex<HashMap<ObjectRef<K>, u32>>,
}

impl<K: Resource<DynamicType = ()> + 'static> Default for Pauses<K> {
    fn default() -> Self {
        Self { failures: Mutex::default() }
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Pauses<K> {
    /// The pause before the next try, and how many objects wait so.
    fn next(&self, key: ObjectRef<K>) -> (Duration, usize) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*count).min(10)).min(LONGEST_PAUSE);
        *count += 1;
        (pause, failures.len())
    }

    fn forget(&self, key: &ObjectRef<K>) -> usize {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(key);
        failures.len()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn the_pause_grows_for_one_object_and_ends_with_success() {
        let pauses = Pauses::<ConfigMap>::default();
        let (one, other) = (ObjectRef::new("one"), ObjectRef::new("other"));
        let seconds: Vec<u64> = (0..11).map(|_| pauses.next(one.clone()).0.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pauses.next(other).0, FIRST_PAUSE);
        assert_eq!(pauses.forget(&one), 1);
        assert_eq!(pauses.next(one).0, FIRST_PAUSE);
    }
}
