//! Many pushes at the same time for few places.

use futures_util::future::join_all;
use larder_tests::gateway::Site;
use larder_tests::image::Image;
use serde_json::json;

use crate::registry::{Registry, programs};
use crate::web::{Answer, Web};

/// Pushes `count` new tags at the same time, by these gateways in turn.
pub(crate) async fn storm(web: &Web, hosts: &[String], repository: &str, count: usize) -> Vec<Answer> {
    let pushes = (0..count).map(|number| {
        let (host, tag) = (&hosts[number % hosts.len()], format!("t{number}"));
        async move {
            // An image of its own each: registries get into trouble when the same blob is pushed at the same time.
            let image = Image::oci(number as u64 + 1000, &[2000]);
            web.push(host, repository, &tag, &image).await
        }
    });
    join_all(pushes).await
}

/// How many were taken; the others were all refused for the limit.
pub(crate) fn taken(answers: &[Answer]) -> usize {
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(answer.refused(), (403, "DENIED".to_owned()), "{answer:?}");
    }
    answers.iter().filter(|answer| answer.status == 201).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_pushes_for_fifty_places_fifty_are_taken() {
    for program in programs() {
        let registry = Registry::start(&program).await;
        let web = Web::new();
        let mut site = Site::new(&registry.host, &json!({"limits": {"tags": 50}}));
        // Not knowing would let pushes through, and so hide a count that is late.
        site = site.settings("on_unknown = \"deny\"\nseed_timeout = \"20s\"");
        let gateway = site.start().await;
        let hosts = [gateway.address.to_string()];
        let answers = storm(&web, &hosts, "team-a/app", 100).await;
        assert_eq!(taken(&answers), 50);
        assert_eq!(registry.tags(&web, "team-a/app").await.len(), 50);
        assert_eq!(gateway.decisions("refused", "tags").await, 50);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_limits_of_a_namespace_are_not_shared_by_two_repositories() {
    for program in programs().into_iter().take(1) {
        let registry = Registry::start(&program).await;
        let web = Web::new();
        let policy = json!({"namespaces": {"team-a": {"tags": 10, "repos": 2}}});
        let mut site = Site::new(&registry.host, &policy);
        site = site.settings("on_unknown = \"deny\"\nseed_timeout = \"20s\"");
        let gateway = site.start().await;
        let hosts = [gateway.address.to_string()];
        let (one, two) =
            tokio::join!(storm(&web, &hosts, "team-a/one", 10), storm(&web, &hosts, "team-a/two", 10),);
        assert_eq!(taken(&one) + taken(&two), 10);
        let (one, two) = (registry.tags(&web, "team-a/one").await, registry.tags(&web, "team-a/two").await);
        assert_eq!(one.len() + two.len(), 10, "{one:?} {two:?}");
        let usage = gateway.admin("/usage").await;
        let usage: serde_json::Value = serde_json::from_slice(&usage.body).unwrap();
        assert_eq!(usage["namespaces"]["team-a"]["tags"], 10, "{usage}");
    }
}
