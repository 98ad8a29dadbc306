//! Places for tags: the index against a registry that is slow, silent, or written to past the gateway.

use super::*;
use crate::events::Events;
use crate::resync::Credential;

const FIVE: &str = r#"{"limits":{"tags":5}}"#;

fn fill(registry: &Registry, count: usize) {
    (0..count).for_each(|number| registry.add_tag("team-a/app", &format!("v{number}")));
}

/// Waits until the gateway has this many tags of the namespace in its index.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pushes_at_once_leave_as_many_as_the_limit() {
    for mode in ["indexed", "synchronous"] {
        let registry = Registry::start().await;
        let settings = format!("mode = \"{mode}\"\nseed_timeout = \"60s\"");
        let gateway = gateway(&registry, r#"{"limits":{"tags":50}}"#, &settings);
        let body = image(&registry, 1);
        let targets: Vec<String> = (0..100).map(|number| format!("team-a/app/v{number}")).collect();
        let pushes = join_all(targets.iter().map(|target| push(&gateway, target, &body))).await;
        let taken = pushes.iter().filter(|response| response.status() == 201).count();
        let denied = pushes.iter().filter(|response| response.status() == 403).count();
        assert_eq!((taken, denied, registry.tags("team-a/app")), (50, 50, 50), "{mode}");
    }
}

#[tokio::test]
async fn a_push_costs_the_same_requests_at_any_number_of_tags() {
    for count in [10, 3000] {
        let registry = Registry::start().await;
        fill(&registry, count);
        let gateway = gateway(&registry, r#"{"limits":{"tags":5000}}"#, "");
        gateway.tags.touch(&"team-a/app".parse().unwrap(), &caller());
        registry.was_asked("tags/list").await;
        let body = image(&registry, 1);
        assert_eq!(push(&gateway, "team-a/app/new", &body).await.status(), 201);
        let lists = registry.take_asked().iter().filter(|line| line.contains("tags/list")).count();
        assert_eq!(lists, count.div_ceil(1000), "one reading, begun by the upload");
        assert_eq!(push(&gateway, "team-a/app/newer", &body).await.status(), 201);
        assert_eq!(registry.take_asked(), ["PUT /v2/team-a/app/manifests/newer"]);
    }
}

#[tokio::test]
async fn a_full_repository_takes_what_it_has_and_what_a_deletion_makes_room_for() {
    let registry = Registry::start().await;
    fill(&registry, 5);
    let (gateway, body) = (gateway(&registry, FIVE, ""), image(&registry, 1));
    let (status, code, message) = words(push(&gateway, "team-a/app/new", &body).await).await;
    assert_eq!((status, code.as_str()), (403, "DENIED"));
    assert!(
        message.starts_with("with this push team-a/app has 6 tags; the limit is 5 (the default limits)"),
        "{message}"
    );
    let again = push(&gateway, "team-a/app/v3", &body).await;
    assert_eq!(again.status(), 201);
    assert!(again.headers()[WARNING].to_str().unwrap().contains("team-a/app has 5 tags of 5 allowed"));
    let signature = format!("team-a/app/sha256-{}.sig", "a".repeat(64));
    assert_eq!(push(&gateway, &signature, &body).await.status(), 201, "it does not count");
    let digest = put("team-a/app/x", OCI_MANIFEST, &body).digest();
    assert_eq!(push(&gateway, &format!("team-a/app/{digest}"), &body).await.status(), 201, "it has no tag");
    let bypass =
        put_manifest(&gateway, put(&format!("team-a/app/{digest}?tag=new"), OCI_MANIFEST, &body)).await;
    assert_eq!(bypass.status(), 403, "so it has one");

    let (repository, tag) = ("team-a/app".parse().unwrap(), "v0".parse().unwrap());
    registry.state().tags.remove(&("team-a/app".to_owned(), "v0".to_owned()));
    gateway.tags.deleted_tag(&repository, &tag, &caller());
    assert_eq!(push(&gateway, "team-a/app/new", &body).await.status(), 201);
    assert_eq!(push(&gateway, "team-a/app/newer", &body).await.status(), 403);

    registry.state().tags.remove(&("team-a/app".to_owned(), "v1".to_owned()));
    gateway.tags.deleted_digest(&repository, &digest, &caller());
    assert_eq!(push(&gateway, "team-a/app/newer", &body).await.status(), 201, "the tags were read again");
}

#[tokio::test]
async fn what_is_not_known_in_time_is_allowed_or_denied_as_set() {
    let registry = Registry::start().await;
    fill(&registry, 9);
    registry.hold_lists();
    let body = image(&registry, 1);
    let deny = gateway(&registry, FIVE, "on_unknown = \"deny\"\nseed_timeout = \"50ms\"");
    let response = push(&deny, "team-a/app/new", &body).await;
    assert!(response.headers().contains_key(RETRY_AFTER));
    assert_eq!(words(response).await.1, "UNAVAILABLE");
    assert_eq!(
        push(&deny, "team-a/app/v3", &body).await.status(),
        201,
        "a tag that is there is known by itself"
    );
    let allow = gateway(&registry, FIVE, "seed_timeout = \"50ms\"");
    assert_eq!(push(&allow, "team-a/app/new", &body).await.status(), 201);
    registry.let_lists_go();
    let patient = gateway(&registry, FIVE, "seed_timeout = \"60s\"");
    assert_eq!(push(&patient, "team-a/app/newer", &body).await.status(), 403);
}

#[tokio::test]
async fn a_push_whose_end_nobody_knows_keeps_its_place() {
    let registry = Registry::start().await;
    fill(&registry, 4);
    let (gateway, body) = (gateway(&registry, FIVE, "seed_timeout = \"60s\""), image(&registry, 1));
    assert_eq!(push(&gateway, "team-a/app/v0", &body).await.status(), 201);
    registry.state().broken = true;
    assert_eq!(push(&gateway, "team-a/app/new", &body).await.status(), 500);
    registry.state().broken = false;
    assert_eq!(push(&gateway, "team-a/app/newer", &body).await.status(), 403, "it is in the registry");
    assert_eq!(registry.tags("team-a/app"), 5);
}

#[tokio::test]
async fn notifications_say_where_to_look_and_are_not_believed() {
    let registry = Registry::start().await;
    fill(&registry, 3);
    let (gateway, body) = (gateway(&registry, FIVE, "seed_timeout = \"60s\""), image(&registry, 1));
    assert_eq!(push(&gateway, "team-a/app/v0", &body).await.status(), 201);
    let events = Events::new(gateway.tags.clone(), Credential::default());
    let event = |id: &str, action: &str, tag: &str| {
        format!(
            r#"{{"events":[{{"id":"{id}","action":"{action}","target":{{"repository":"team-a/app","tag":"{tag}"}}}}]}}"#
        )
    };
    registry.add_tag("team-a/app", "past");
    registry.take_asked();
    assert_eq!(events.receive(event("1", "push", "past").as_bytes()).unwrap(), 1);
    assert_eq!(events.receive(event("1", "push", "past").as_bytes()).unwrap(), 0, "it came before");
    registry.was_asked("HEAD /v2/team-a/app/manifests/past").await;
    assert_eq!(events.receive(event("2", "push", "never").as_bytes()).unwrap(), 1);
    registry.was_asked("HEAD /v2/team-a/app/manifests/never").await;
    let index = gateway.tags.index();
    until("the tag is known", || index.tags_of(&"team-a/app".parse().unwrap()) == Some(4)).await;

    // Late: the tag is still, or again, in the registry.
    assert_eq!(events.receive(event("3", "delete", "past").as_bytes()).unwrap(), 1);
    registry.was_asked("tags/list").await;
    assert_eq!(push(&gateway, "team-a/app/fifth", &body).await.status(), 201);
    assert_eq!(push(&gateway, "team-a/app/sixth", &body).await.status(), 403);
    assert!(events.receive(b"{").is_err());
}

#[tokio::test]
async fn whole_namespaces_are_counted_by_a_walk() {
    let registry = Registry::start().await;
    fill(&registry, 2);
    registry.add_tag("team-a/web", "v1");
    registry.add_tag("team-b/web", "v1");
    let policy = r#"{"namespaces":{"team-a":{"tags":4,"repos":2}}}"#;
    let gateway = gateway(&registry, policy, "on_unknown = \"deny\"\nseed_timeout = \"60s\"");
    let stop = tokio_util::sync::CancellationToken::new();
    let resync = crate::resync::Resync {
        tags: gateway.tags.clone(),
        upstream: Arc::clone(&gateway.upstream),
        policy: gateway.policy.clone(),
        credential: Credential::default(),
        every: Duration::ZERO,
    };
    let body = image(&registry, 1);
    assert_eq!(push(&gateway, "team-a/app/new", &body).await.status(), 503);
    let running = tokio::spawn(crate::resync::run(resync, stop.clone()));
    let known = || gateway.tags.usage()["namespaces"]["team-a"] == serde_json::json!({"repos": 2, "tags": 3});
    until("the namespace is counted", known).await;
    let (status, _, message) = words(push(&gateway, "team-a/third/v1", &body).await).await;
    assert_eq!(status, 403);
    assert!(
        message
            .contains("namespace team-a has 3 repositories; the limit is 2 (the quota of namespace team-a)"),
        "{message}"
    );
    assert_eq!(push(&gateway, "team-a/web/v2", &body).await.status(), 201);
    let (_, _, message) = words(push(&gateway, "team-a/app/new", &body).await).await;
    assert!(message.contains("namespace team-a has 5 tags; the limit is 4"), "{message}");
    assert_eq!(push(&gateway, "team-b/other/v1", &body).await.status(), 201);
    stop.cancel();
    running.await.unwrap();
}
