//! Whether a live object is what was asked for: everything wanted is there with its value, and it was we who last
//! asked for exactly this. What the API server or others add beside it does not count. Pure.

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::APPLIED;
use crate::quantity::Quantity;

/// `wanted` carries the mark of what it is; a live object with another mark may hold fields no longer wanted.
pub(super) fn is_as_wanted(live: &DynamicObject, wanted: &DynamicObject) -> bool {
    let mark = |object: &DynamicObject| object.annotations().get(APPLIED).cloned();
    mark(live) == mark(wanted)
        && holds_all(live.labels(), wanted.labels())
        && holds_all(live.annotations(), wanted.annotations())
        && wanted
            .metadata
            .owner_references
            .iter()
            .flatten()
            .all(|owner| live.owner_references().contains(owner))
        && wanted.finalizers().iter().all(|finalizer| live.finalizers().contains(finalizer))
        && holds(&live.data, &wanted.data)
}

fn holds_all<K: Ord, V: PartialEq>(
    live: &std::collections::BTreeMap<K, V>,
    wanted: &std::collections::BTreeMap<K, V>,
) -> bool {
    wanted.iter().all(|(key, value)| live.get(key) == Some(value))
}

/// Everything in `wanted` is in `live`. Lists of named things agree by name, other lists as a whole.
fn holds(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| match live.get(key) {
                Some(live) => holds(live, wanted),
                // The API server leaves empty maps, lists, texts and nulls away.
                None => is_nothing(wanted),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => hold_items(live, wanted),
        (Value::String(live), Value::String(wanted)) => live == wanted || is_same_amount(live, wanted),
        (Value::Number(live), Value::Number(wanted)) => live == wanted || live.as_f64() == wanted.as_f64(),
        // A quantity may be asked for as a number, and is kept as text.
        (Value::String(live), Value::Number(wanted)) => is_same_amount(live, &wanted.to_string()),
        _ => live == wanted,
    }
}

fn hold_items(live: &[Value], wanted: &[Value]) -> bool {
    if !wanted.is_empty() && wanted.iter().all(|item| name(item).is_some()) {
        return wanted
            .iter()
            .all(|item| live.iter().any(|live| name(live) == name(item) && holds(live, item)));
    }
    live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| holds(live, wanted))
}

fn name(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

fn is_same_amount(live: &str, wanted: &str) -> bool {
    live.parse::<Quantity>().is_ok_and(|live| wanted.parse() == Ok(live))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_server_adds_does_not_count() {
        let live = json!({"spec": {"replicas": 2, "strategy": {"type": "RollingUpdate"}, "paused": false}});
        assert!(holds(&live, &json!({"spec": {"replicas": 2, "selector": {}, "extra": null, "value": ""}})));
        assert!(!holds(&live, &json!({"spec": {"replicas": 3}})));
        assert!(!holds(&live, &json!({"spec": {"missing": 1}})));
    }

    #[test]
    fn quantities_agree_by_value() {
        let live = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert!(holds(&live, &json!({"limits": {"cpu": "1000m", "memory": "1024Mi"}})));
        assert!(holds(&live, &json!({"limits": {"cpu": 1}})));
        assert!(!holds(&live, &json!({"limits": {"cpu": "1001m"}})));
    }

    #[test]
    fn named_things_agree_by_name_and_others_as_a_whole() {
        let live = json!([{"name": "sidecar"}, {"name": "registry", "image": "registry:3", "terminationMessagePath": "/dev"}]);
        assert!(holds(&live, &json!([{"name": "registry", "image": "registry:3"}])));
        assert!(!holds(&live, &json!([{"name": "registry", "image": "registry:2"}])));
        assert!(!holds(&json!(["a", "b"]), &json!(["a"])));
    }
}
