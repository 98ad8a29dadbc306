//! Which changes of one kind concern the stories of another: a new object, another spec or other labels, an end. Must
//! not let a status through: it is written often, and by ourselves.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kube::ResourceExt;
use serde::Serialize;

/// What was last seen of each object.
#[derive(Default)]
pub(crate) struct Changes {
    seen: Mutex<HashMap<String, Seen>>,
}

#[derive(PartialEq)]
struct Seen {
    /// What others go by.
    spec: String,
    status: String,
}

impl Changes {
    /// Takes a look at an object from a watch. The watch does not say that an object ended; but then nothing of it is
    /// new, and neither is it just another status.
    pub(crate) fn concern<K: ResourceExt, S: Serialize>(&self, object: &K, status: &S) -> bool {
        let meta = object.meta();
        let seen = Seen {
            spec: format!("{:?} {:?} {:?}", meta.uid, meta.generation, meta.labels),
            status: serde_json::to_string(status).unwrap_or_default(),
        };
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(&object.name_any());
        let is_status_alone =
            before.is_some_and(|before| before.spec == seen.spec && before.status != seen.status);
        all.insert(object.name_any(), seen);
        !is_status_alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{Cache, CacheStatus};

    #[test]
    fn a_status_concerns_nobody_else_and_an_end_does() {
        let changes = Changes::default();
        let mut cache = Cache::default();
        let mut look = |change: fn(&mut Cache)| {
            change(&mut cache);
            changes.concern(&cache, &cache.status)
        };
        assert!(look(|_| {}), "new");
        assert!(!look(|cache| cache.status = Some(CacheStatus::default())), "a status");
        assert!(look(|cache| cache.metadata.generation = Some(2)), "a spec");
        assert!(
            look(|cache| cache.labels_mut().insert("pool".into(), "gpu".into()).map_or((), drop)),
            "a label"
        );
        assert!(look(|_| {}), "the end");
        let both = |cache: &mut Cache| (cache.metadata.generation, cache.status) = (Some(3), None);
        assert!(look(both), "a spec and a status, seen as one change");
    }
}
