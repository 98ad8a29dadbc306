//! What holds for a repository, out of whole policy files.

use super::*;

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

fn limits(policy: &Policy, repository: &str) -> Limits {
    policy.limits(&repository.parse().unwrap())
}

fn max(bound: Option<&Bound>) -> Option<(u64, &str)> {
    bound.map(|bound| (bound.max, &*bound.whose))
}

#[test]
fn an_empty_policy_limits_only_manifests() {
    let limits = limits(&policy("{}"), "a/b");
    assert_eq!(
        (limits.image_bytes, limits.quota, limits.manifest_bytes),
        (None, Quota::default(), 4_194_304)
    );
    let signature: String = format!("sha256-{}.sig", "a".repeat(64));
    assert!(!limits.excluded.counts(&signature.parse().unwrap()));
    assert!(limits.excluded.counts(&"v1".parse().unwrap()));
}

#[test]
fn the_first_override_that_names_the_repository_holds() {
    let policy = policy(
        r#"{"limits":{"tags":10,"image_bytes":100,"scope":"index"},
            "overrides":[{"repositories":["team-a/*"],"limits":{"tags":50,"exclude_tags":"^x"}},
                         {"repositories":["team-a/app"],"limits":{"tags":70,"image_bytes":7}}]}"#,
    );
    let app = limits(&policy, "team-a/app");
    assert_eq!(max(app.quota.tags.as_ref()), Some((50, "the limits for team-a/*")));
    assert_eq!(max(app.image_bytes.as_ref()), Some((100, "the default limits")), "taken from the defaults");
    assert_eq!((app.scope, app.excluded.pattern()), (Scope::Index, "^x"));
    assert_eq!(max(limits(&policy, "team-b/app").quota.tags.as_ref()), Some((10, "the default limits")));
}

#[test]
fn the_smallest_limit_wins() {
    let policy = policy(
        r#"{"limits":{"tags":10,"image_bytes":100},
            "namespaces":{"team-a":{"image_bytes":70,"tags_per_repo":20,"images_per_repo":3,"repos":2,"images":4,"tags":5}}}"#,
    );
    let app = limits(&policy, "team-a/app");
    let quota = "the quota of namespace team-a";
    assert_eq!(max(app.image_bytes.as_ref()), Some((70, quota)));
    assert_eq!(max(app.quota.tags.as_ref()), Some((10, "the default limits")));
    assert_eq!(max(app.quota.images.as_ref()), Some((3, quota)));
    assert_eq!(max(app.quota.namespace_repositories.as_ref()), Some((2, quota)));
    assert_eq!(max(app.quota.namespace_images.as_ref()), Some((4, quota)));
    assert_eq!(max(app.quota.namespace_tags.as_ref()), Some((5, quota)));
    assert_eq!(policy.namespaces().collect::<Vec<_>>(), ["team-a"]);
    assert_eq!(limits(&policy, "team-b/app").quota.namespace_tags, None);
}

#[test]
fn a_bad_policy_says_what_is_wrong() {
    for (text, words) in [
        ("{", "line 1"),
        (r#"{"limit":{}}"#, "unknown field `limit`"),
        (r#"{"limits":{"tags":-1}}"#, "-1"),
        (r#"{"limits":{"tags":"5"}}"#, "string"),
        (r#"{"action":"deny"}"#, "enforce"),
        (r#"{"limits":{"exclude_tags":"("}}"#, "limits.exclude_tags"),
        (r#"{"limits":{"manifest_bytes":0}}"#, "limits.manifest_bytes"),
        (r#"{"overrides":[{"repositories":[]}]}"#, "overrides[0].repositories is empty"),
        (r#"{"overrides":[{"repositories":["A"]}]}"#, "overrides[0].repositories: \"A\""),
        (r#"{"namespaces":{"a/b":{}}}"#, "\"a/b\""),
        (r#"{"namespaces":{"a":{"tag":1}}}"#, "unknown field `tag`"),
    ] {
        let error = Policy::parse(text).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let told = format!("{error}: {source}");
        assert!(told.contains(words), "{text}: {told}");
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let error = Policy::parse(r#"{"limits":{"exclude_tags":"("},"namespaces":{"A":{}}}"#).unwrap_err();
    assert!(matches!(error, PolicyError::Mistakes(mistakes) if mistakes.len() == 2));
}
