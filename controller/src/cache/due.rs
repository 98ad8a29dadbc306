//! When a status is written: what people wait for at once, what merely counts at most every 30 s. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::apply::FIELD_MANAGER;

/// From one write of what merely counts to the next.
const BETWEEN_WRITES: SignedDuration = SignedDuration::from_secs(30);

/// `news`: something that people wait for changed; `changed`: anything did.
pub(crate) fn is_due(news: bool, changed: bool, written: Option<Timestamp>, now: Timestamp) -> bool {
    news || changed && written.is_none_or(|written| now.duration_since(written) >= BETWEEN_WRITES)
}

/// The API server remembers when it last took a changed status from us; so nobody else has to.
pub(crate) fn last_written<K: ResourceExt>(object: &K) -> Option<Timestamp> {
    let ours = object.managed_fields().iter().filter(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.as_deref() == Some("status")
    });
    ours.filter_map(|entry| entry.time.as_ref().map(|time| time.0)).max()
}

/// Conditions by what flips: their messages hold numbers.
pub(crate) fn words(conditions: &[Condition]) -> Vec<[&str; 3]> {
    let words = conditions.iter();
    words.map(|one| [one.type_.as_str(), one.status.as_str(), one.reason.as_str()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::NodeCache;

    #[test]
    fn numbers_wait_and_news_does_not() {
        let written: Timestamp = "2026-11-20T09:00:00Z".parse().unwrap();
        let after = |seconds| written + SignedDuration::from_secs(seconds);
        assert!(!is_due(false, true, Some(written), after(29)));
        assert!(is_due(false, true, Some(written), after(30)));
        assert!(!is_due(false, false, Some(written), after(300)));
        assert!(is_due(true, true, Some(written), after(0)));
        assert!(is_due(false, true, None, written));
    }

    #[test]
    fn the_api_server_remembers_our_last_write() {
        let text = "{apiVersion: registry-operator.dev/v1alpha1, kind: NodeCache, spec: {}, metadata: {name: a, \
                    managedFields: [{manager: larder-controller, operation: Apply, time: '2026-11-20T10:00:00Z'}, \
                    {manager: larder-controller, operation: Apply, subresource: status, time: '2026-11-20T09:00:00Z'}, \
                    {manager: kubectl, operation: Update, subresource: status, time: '2026-11-20T11:00:00Z'}]}}";
        let node_cache: NodeCache = serde_saphyr::from_str(text).unwrap();
        assert_eq!(
            last_written(&node_cache).map(|time| time.to_string()).as_deref(),
            Some("2026-11-20T09:00:00Z")
        );
        assert_eq!(last_written(&NodeCache::default()), None);
    }
}
