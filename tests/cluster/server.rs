//! The harness itself, where a mistake in it would make other tests pass: who may do what, whose token is whose, and an
//! API server that goes away and comes back. Must not try our own parts.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Resource};
use larder_tests::cluster::{Cluster, wait_for};
use larder_tests::wait::DEADLINE;

const AUDIENCE: &str = "larder-controller";

#[tokio::test]
async fn a_service_account_may_do_nothing_by_itself() {
    let Some(cluster) = Cluster::start().await else { return };
    let namespace = cluster.namespace("rights").await;
    let client = cluster.client_of(&namespace, "nobody").await;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let Err(kube::Error::Api(refused)) = maps.list(&ListParams::default()).await else {
        panic!("RBAC let it through");
    };
    assert_eq!(refused.code, 403);

    let of = ["--namespace", &namespace];
    let role = ["create", "role", "reader", "--verb=list", "--resource=configmaps"];
    let _ = cluster.kubectl(&[&role[..], &of[..]].concat(), "").await.well();
    let whom = format!("--serviceaccount={namespace}:nobody");
    let binding = ["create", "rolebinding", "reader", "--role=reader", &whom];
    let _ = cluster.kubectl(&[&binding[..], &of[..]].concat(), "").await.well();
    // What RBAC goes by is a watch behind.
    let allowed = async || maps.list(&ListParams::default()).await.ok();
    wait_for("the binding is known", DEADLINE, allowed).await;
}

#[tokio::test]
async fn a_pods_token_names_its_node_and_its_audience() {
    let Some(cluster) = Cluster::start().await else { return };
    let (namespace, node) = (cluster.namespace("tokens").await, cluster.name("node"));
    let token = cluster.node_token(&node, &namespace, "larder-default", AUDIENCE).await;
    let reviewed = review(&cluster, &token, AUDIENCE).await;
    assert_eq!(reviewed.authenticated, Some(true), "{reviewed:?}");
    let user = reviewed.user.unwrap();
    assert_eq!(user.username.unwrap(), format!("system:serviceaccount:{namespace}:larder-default"));
    assert_eq!(user.extra.unwrap()["authentication.kubernetes.io/node-name"], [node]);

    let elsewhere = review(&cluster, &token, "somebody-else").await;
    assert_ne!(elsewhere.authenticated, Some(true));
}

#[tokio::test]
async fn an_api_server_that_was_away_knows_what_it_knew() {
    let Some((cluster, mut plane)) = Cluster::private().await else { return };
    let namespace = cluster.namespace("away").await;
    plane.stop().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    assert!(namespaces.get(&namespace).await.is_err());
    plane.resume().await.unwrap();
    assert_eq!(namespaces.get(&namespace).await.unwrap().metadata.name, Some(namespace));
}

#[tokio::test]
async fn what_belonged_to_something_deleted_goes_with_it() {
    let Some((cluster, mut plane)) = Cluster::private().await else { return };
    if !plane.start_controller_manager("garbage collection").unwrap() {
        return;
    }
    let namespace = cluster.namespace("garbage").await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin.clone(), &namespace);
    let map = |name: &str| ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    };
    let owner = maps.create(&PostParams::default(), &map("owner")).await.unwrap();
    let mut child = map("child");
    child.metadata.owner_references = owner.owner_ref(&()).map(|owner| vec![owner]);
    maps.create(&PostParams::default(), &child).await.unwrap();
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    let gone = async || maps.get_opt("child").await.unwrap().is_none().then_some(());
    wait_for("the child is collected", Duration::from_secs(60), gone).await;
}

async fn review(
    cluster: &Cluster,
    token: &str,
    audience: &str,
) -> k8s_openapi::api::authentication::v1::TokenReviewStatus {
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) };
    let api: Api<TokenReview> = Api::all(cluster.admin.clone());
    let review = TokenReview { spec, ..TokenReview::default() };
    api.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
}
