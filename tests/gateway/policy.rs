//! The policy file changes while the gateway runs.

use larder_tests::gateway::Site;
use larder_tests::image::Image;
use larder_tests::wait::until;
use serde_json::json;

use crate::registry::{Registry, programs};
use crate::web::Web;

#[tokio::test]
async fn a_new_policy_holds_at_once_and_a_broken_one_changes_nothing() {
    for program in programs().into_iter().take(1) {
        let registry = Registry::start(&program).await;
        let (web, image) = (Web::new(), Image::oci(1, &[2000]));
        let mut site = Site::new(&registry.host, &json!({"generation": 1, "limits": {"tags": 1}}));
        let gateway = site.start().await;
        let host = gateway.address.to_string();
        let taken_over = async |generation: u64| {
            until(format!("policy {generation}"), async || {
                let page = gateway.admin("/usage").await;
                let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
                (page["policy"]["generation"] == generation).then_some(())
            })
            .await;
        };
        assert_eq!(web.push(&host, "team-a/app", "v1", &image).await.status, 201);
        assert_eq!(web.push(&host, "team-a/app", "v2", &image).await.status, 403);

        site.policy(&json!({"generation": 2, "limits": {"tags": 2}}).to_string());
        taken_over(2).await;
        assert_eq!(web.push(&host, "team-a/app", "v2", &image).await.status, 201);

        for (failures, broken) in
            [(1, "{\"limits\":"), (2, "{\"limits\":{\"tag\":9}}"), (3, "{\"limits\":{\"tags\":-1}}")]
        {
            site.policy(broken);
            until(format!("{broken} is told"), async || {
                let counted = gateway.metric("larder_gateway_policy_reload_failures_total").await;
                (counted == failures).then_some(())
            })
            .await;
            let refused = web.push(&host, "team-a/app", "v3", &image).await;
            assert_eq!(refused.refused(), (403, "DENIED".to_owned()), "{broken}");
        }
        let told = gateway.process.log().matches("going on with the last good one").count();
        assert_eq!(told, 3);

        // Looking only: it is admitted, and the client is told.
        site.policy(&json!({"generation": 3, "action": "audit", "limits": {"tags": 2}}).to_string());
        taken_over(3).await;
        let audited = web.push(&host, "team-a/app", "v3", &image).await;
        assert_eq!(audited.status, 201);
        assert!(audited.header("warning").contains("this push would be refused"), "{audited:?}");
        assert_eq!(gateway.decisions("audited", "tags").await, 1);
    }
}
