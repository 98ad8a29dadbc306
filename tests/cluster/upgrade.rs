//! Upgrades of a Registry: one that goes well, one whose pods do not start, one with nothing to go back to, and a
//! controller that is killed in the middle of going back. Pods are played: the image never matters.

use larder_tests::cluster::{Cluster, Controller, Gate, Pods, Space, image_of};
use serde_json::{Value, json};

use crate::registry::{healthy, looks_again};

const GOOD: &str = "registry:3.0.0";
const BAD: &str = "registry:3.1.1";
const OTHER: &str = "registry:3.1.0";
const ALONE: [&str; 1] = ["--leader-elect=false"];

#[tokio::test]
async fn an_upgrade_that_does_not_start_is_taken_back_and_stays_so() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let controller = Controller::start(&cluster.install_rights().await, &ALONE).await;
    let space = cluster.space("upgrade").await;
    healthy(&space, GOOD).await;
    let good = config(&space).await;

    upgrade_fails(&space).await;
    let message = space.told("Registry", "main", "Degraded=True/UpgradeRolledBack").await;
    assert!(message.contains(BAD) && message.contains(GOOD), "{message}");
    is_back(&space, &good).await;
    space.play("main-registry", Pods::Healthy).await;
    space.told("Registry", "main", "Progressing=False/AsExpected").await;
    let before = space.get("Deployment", "main-registry").await.unwrap();
    for _ in 0..3 {
        looks_again(&controller, &space, "Registry", "main").await;
    }
    assert_eq!(space.get("Deployment", "main-registry").await.unwrap(), before);
    let again = space.told("Registry", "main", "Degraded=True/UpgradeRolledBack").await;
    assert_eq!(again, message);
    assert_eq!(count(&space, "UpgradeRolledBack").await, 1);
    // More pods are no new try.
    space.change("Registry", "main", json!({"spec": {"replicas": 3}})).await;
    let more = |live: &Value| (live["spec"]["replicas"] == 3).then(|| image_of(live).to_owned());
    assert_eq!(space.until("Deployment", "main-registry", "it has three", more).await, GOOD);

    space.change("Registry", "main", json!({"spec": {"image": OTHER}})).await;
    space.play_image("main-registry", OTHER, Pods::Healthy).await;
    space.told("Registry", "main", "Degraded=False/AsExpected").await;
    let good = |registry: &Value| {
        let status = &registry["status"];
        (status["lastGood"]["image"] == OTHER && status["configs"].as_array()?.len() == 1)
            .then(|| status.clone())
    };
    let status = space.until("Registry", "main", "the third image is good", good).await;
    assert_eq!((&status["rejected"], &status["image"]), (&Value::Null, &json!(OTHER)));
    assert_eq!(configs(&space).await, [config(&space).await]);
    for reason in ["RolledOut", "Recovered"] {
        assert!(count(&space, reason).await > 0, "no event {reason}");
    }
}

/// The bad image is rolled out, its first pod does not start, and it is taken back.
async fn upgrade_fails(space: &Space) {
    space.change("Registry", "main", json!({"spec": {"image": BAD}})).await;
    space.play_image("main-registry", BAD, Pods::Stuck).await;
    let back = |live: &Value| (image_of(live) == GOOD).then_some(());
    space.until("Deployment", "main-registry", "the good image is back", back).await;
}

/// What runs is the last good revision, whole; its old pods were never asked to go.
async fn is_back(space: &Space, good: &str) {
    let live = space.get("Deployment", "main-registry").await.unwrap();
    assert_eq!(image_of(&live), GOOD);
    assert_eq!(config(space).await, good);
    assert!(live.to_string().contains(&format!("\"secretName\":\"{good}\"")), "{live:#}");
    assert!(configs(space).await.contains(&good.to_owned()));
    assert_eq!(live["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let status = space.get("Registry", "main").await.unwrap()["status"].clone();
    assert_eq!((&status["lastGood"]["image"], &status["image"]), (&json!(GOOD), &json!(GOOD)));
    assert!(status["rejected"].is_string(), "{status:#}");
}

/// The Secret of the revision that runs.
async fn config(space: &Space) -> String {
    let live = space.get("Deployment", "main-registry").await.unwrap();
    let revision = live["metadata"]["annotations"]["registry-operator.dev/revision"].as_str().unwrap();
    format!("main-registry-config-{revision}")
}

/// The Secrets of all revisions that are kept.
async fn configs(space: &Space) -> Vec<String> {
    let secrets = space.list("Secret", "app.kubernetes.io/component=registry").await;
    let names = secrets.iter().map(|secret| secret["metadata"]["name"].as_str().unwrap().to_owned());
    names.filter(|name| name.contains("-config-")).collect()
}

async fn count(space: &Space, reason: &str) -> usize {
    space.list("Event", "").await.iter().filter(|event| event["reason"] == reason).count()
}

#[tokio::test]
async fn killed_while_it_goes_back_the_next_one_goes_on() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let gate = Gate::open(&cluster, &cluster.install_rights().await).await;
    let mut controller = Controller::start(gate.kubeconfig(), &ALONE).await;
    // What is given up, the Deployment, the status.
    for writes in 1..=3 {
        let space = cluster.space("back").await;
        healthy(&space, GOOD).await;
        let good = config(&space).await;
        space.change("Registry", "main", json!({"spec": {"image": BAD}})).await;
        space.told("Registry", "main", "Progressing=True/RollingOut").await;
        looks_again(&controller, &space, "Registry", "main").await;
        gate.shut_after(writes, &space.name);
        space.play_image("main-registry", BAD, Pods::Stuck).await;
        gate.shut().await;
        controller.kill().await;
        gate.reopen();
        controller = Controller::start(gate.kubeconfig(), &ALONE).await;

        let message = space.told("Registry", "main", "Degraded=True/UpgradeRolledBack").await;
        assert!(message.contains(BAD), "after {writes} writes: {message}");
        is_back(&space, &good).await;
        space.play("main-registry", Pods::Healthy).await;
        space.told("Registry", "main", "Progressing=False/AsExpected").await;
        looks_again(&controller, &space, "Registry", "main").await;
        is_back(&space, &good).await;
        // Once the status says so, nobody knows that the event was not sent.
        if writes < 3 {
            let told = async || (count(&space, "UpgradeRolledBack").await > 0).then_some(());
            larder_tests::wait::until(format!("after {writes} writes there is an event"), told).await;
        }
    }
}

#[tokio::test]
async fn without_the_good_revisions_secret_it_says_so_and_stays() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let controller = Controller::start(&cluster.install_rights().await, &ALONE).await;
    let space = cluster.space("nothing").await;
    healthy(&space, GOOD).await;
    let good = config(&space).await;
    space.change("Registry", "main", json!({"spec": {"image": BAD}})).await;
    let bad = |live: &Value| (image_of(live) == BAD).then_some(());
    space.until("Deployment", "main-registry", "the bad image is tried", bad).await;
    space.delete("Secret", &good).await;
    space.play("main-registry", Pods::Stuck).await;
    space.told("Registry", "main", "Degraded=True/NothingToRollBackTo").await;
    looks_again(&controller, &space, "Registry", "main").await;
    assert_eq!(image_of(&space.get("Deployment", "main-registry").await.unwrap()), BAD);

    let never = json!({"spec": {"image": OTHER, "upgrade": {"autoRollback": false}}});
    space.change("Registry", "main", never).await;
    space.play_image("main-registry", OTHER, Pods::Stuck).await;
    space.told("Registry", "main", "Degraded=True/ProgressDeadlineExceeded").await;
    assert_eq!(image_of(&space.get("Deployment", "main-registry").await.unwrap()), OTHER);
}
