//! Caches among others in a cluster: duplicates, credentials that are wrong, missing or new. Must not stop anything.

use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use larder_tests::cluster::wait_for;
use larder_wire::settings::Access;
use serde_json::json;

use crate::scene::{Pool, SOON, caches, of_agents, secret, told, touch};

#[tokio::test]
async fn of_two_for_one_upstream_the_younger_waits() {
    let Some(pool) = Pool::new("duplicate").await else { return };
    let caches = caches(&pool.led.cluster);
    pool.node_cache(json!({})).await;
    let upstream = "registry.duplicate.example";
    let spec =
        |host: &str| json!({"upstream": upstream, "upstreamRegistryURL": format!("https://{host}.example")});
    let elder = pool.cache("a", spec("a")).await;
    told(&caches, &elder, ["Ready", "True", "Served"]).await;
    // Made in the same second, the name decides.
    let younger = pool.cache("b", spec("b")).await;
    let message = told(&caches, &younger, ["Ready", "False", "DuplicateUpstream"]).await;
    assert!(message.contains(&elder) && message.contains(upstream), "{message}");
    let other = pool.cache("c", json!({})).await;
    told(&caches, &other, ["Ready", "True", "Served"]).await;
    let settings = pool.until_settings("the third is there", |now| now.upstreams.len() == 2).await;
    let url = |at: usize| settings.upstreams[at].url.to_string();
    assert!([url(0), url(1)].contains(&"https://a.example".to_owned()), "{settings:?}");

    caches.delete(&elder, &DeleteParams::default()).await.unwrap();
    told(&caches, &younger, ["Ready", "True", "Served"]).await;
    let healed = |url: &str| url == "https://b.example";
    let is_there = |now: &larder_wire::settings::Settings| {
        now.upstreams.iter().any(|upstream| healed(&upstream.url.to_string()))
    };
    pool.until_settings("the younger is served", is_there).await;
    pool.end().await;
}

#[tokio::test]
async fn a_wrong_credential_is_told_and_delays_nobody() {
    let Some(pool) = Pool::new("credential").await else { return };
    let (cluster, caches) = (&pool.led.cluster, caches(&pool.led.cluster));
    let named = format!("{}-secret", pool.name);
    pool.node_cache(json!({})).await;
    let spec = json!({"secretReferenceName": named, "access": "Shared"});
    let shared = pool.cache("shared", spec).await;
    let public = pool.cache("public", json!({"secretReferenceName": named})).await;
    let other = pool.cache("other", json!({})).await;
    told(&caches, &other, ["Ready", "True", "Served"]).await;
    told(&caches, &shared, ["Ready", "False", "CredentialsInvalid"]).await;
    told(&caches, &shared, ["CredentialsValid", "False", "SecretMissing"]).await;
    told(&caches, &public, ["Ready", "True", "Served"]).await;
    told(&caches, &public, ["CredentialsValid", "False", "SecretMissing"]).await;
    pool.until_settings("two of the three are there", |now| now.upstreams.len() == 2).await;

    let wrong = "wrong wrong";
    secret(cluster, &named, json!({"username": wrong, "password": "s3cret"})).await;
    touch(&caches, &shared).await;
    let message = told(&caches, &shared, ["CredentialsValid", "False", "SecretInvalid"]).await;
    assert!(message.contains(&named) && !message.contains(wrong) && !message.contains("s3cret"), "{message}");

    secret(cluster, &named, json!({"username": "robot", "password": "s3cret"})).await;
    touch(&caches, &shared).await;
    told(&caches, &shared, ["CredentialsValid", "True", "Valid"]).await;
    told(&caches, &shared, ["Ready", "True", "Served"]).await;
    let settings = pool.until_settings("all three are there", |now| now.upstreams.len() == 3).await;
    let with: Vec<Access> =
        settings.upstreams.iter().filter(|it| it.password_file.is_some()).map(|it| it.access).collect();
    assert!(with.contains(&Access::Shared), "{with:?}");
    pool.end().await;
}

#[tokio::test]
async fn a_new_password_reaches_the_nodes_and_no_pod_is_replaced() {
    let Some(pool) = Pool::new("password").await else { return };
    let (cluster, caches) = (&pool.led.cluster, caches(&pool.led.cluster));
    let named = format!("{}-secret", pool.name);
    secret(cluster, &named, json!({"username": "robot", "password": "first"})).await;
    let cache = pool.cache("a", json!({"secretReferenceName": named})).await;
    pool.node_cache(json!({})).await;
    let mounted = async || {
        let name = format!("{}-credentials", pool.child());
        let secret: Secret = of_agents(cluster).get_opt(&name).await.unwrap()?;
        Some(String::from_utf8(secret.data?.get(&format!("{cache}.password"))?.0.clone()).unwrap())
    };
    let first = async || mounted().await.filter(|password| password == "first");
    wait_for("the password is mounted", SOON, first).await;
    let before = pool.until_settings("the Cache is there", |now| now.upstreams.len() == 1).await;
    let daemon_set = pool.generation().await;

    secret(cluster, &named, json!({"username": "robot", "password": "second"})).await;
    touch(&caches, &cache).await;
    let second = async || mounted().await.filter(|password| password == "second");
    wait_for("the new password is mounted", SOON, second).await;
    assert_eq!(pool.settings().await, Some(before), "agents read credential files by themselves");
    assert_eq!(pool.generation().await, daemon_set);
    pool.end().await;
}
