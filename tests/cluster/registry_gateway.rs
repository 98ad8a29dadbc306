//! RegistryGateways by the controller that is shipped: what is made of one, what its policy touches, and what it says when
//! something is missing. Its data plane is not tried here.

use larder_tests::cluster::{Led, Pods, Space};
use serde_json::{Value, json};

use crate::registry::golden::{missing, read};

async fn registry(space: &Space) {
    space.make("Registry", "main", json!({"spec": {"image": "registry:3.1.1"}})).await;
    space.play_image("main-registry", "registry:3.1.1", Pods::Healthy).await;
    space.told("Registry", "main", "Available=True/Ready").await;
}

/// What the golden file of the least gateway shows of that kind, as it would be here.
fn shown(space: &Space, kind: &str, uid: &str) -> Value {
    let text = read("registry_gateway/least").replace("registry-system", &space.name).replace("u-1", uid);
    let text = text.replace("\"generation\": 7", "\"generation\": 1");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    documents.into_iter().find(|document| document["kind"] == kind).unwrap()
}

#[tokio::test]
async fn a_gateway_waits_for_its_registry_and_then_stands_before_it() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("gateway").await;
    let spec = json!({"registryRef": {"name": "main"}});
    let made = space.make("RegistryGateway", "main", json!({"spec": spec})).await;
    let message = space.told("RegistryGateway", "main", "Degraded=True/RegistryNotFound").await;
    assert!(message.contains("no Registry main"), "{message}");
    space.told("RegistryGateway", "main", "Available=False/NotDeployed").await;
    space.told("RegistryGateway", "main", "PolicyAccepted=Unknown/RegistryNotFound").await;
    assert_eq!(space.list("Deployment", "").await, Vec::<Value>::new());

    registry(&space).await;
    space.touch("RegistryGateway", "main").await;
    space.told("RegistryGateway", "main", "PolicyAccepted=True/Accepted").await;
    let uid = made["metadata"]["uid"].as_str().unwrap();
    for kind in ["ConfigMap", "Service", "Deployment"] {
        let (live, mut wanted) = (space.get(kind, "main-gateway").await.unwrap(), shown(&space, kind, uid));
        if kind == "Deployment" {
            // The golden file's Registry is elsewhere, and its controller was given other images and Secrets.
            wanted["spec"]["template"]["metadata"].as_object_mut().unwrap().remove("annotations");
            let pod = &mut wanted["spec"]["template"]["spec"];
            pod.as_object_mut().unwrap().remove("imagePullSecrets");
            pod["containers"][0].as_object_mut().unwrap().remove("image");
        }
        assert_eq!(missing(&live, &wanted, ""), None, "{live:#}");
    }
    assert!(space.get("PodDisruptionBudget", "main-gateway").await.is_none());

    space.play("main-gateway", Pods::Healthy).await;
    for wanted in ["Available=True/Ready", "Progressing=False/AsExpected", "Degraded=False/AsExpected"] {
        space.told("RegistryGateway", "main", wanted).await;
    }
    let status = space.get("RegistryGateway", "main").await.unwrap()["status"].clone();
    assert_eq!((&status["replicas"], &status["readyReplicas"]), (&json!(1), &json!(1)));
    let selector = status["selector"].as_str().unwrap();
    assert_eq!(space.list("Deployment", "").await.len(), 2);
    assert!(selector.contains("app.kubernetes.io/component=gateway"), "{selector}");

    space.change("RegistryGateway", "main", json!({"spec": {"replicas": 2}})).await;
    let two = |live: &Value| (live["spec"]["replicas"] == 2).then_some(());
    space.until("Deployment", "main-gateway", "it has two", two).await;
    let there = |budget: &Value| (budget["spec"]["minAvailable"] == 1).then_some(());
    space.until("PodDisruptionBudget", "main-gateway", "two have a budget", there).await;
}

#[tokio::test]
async fn a_policy_changes_the_config_map_and_rolls_no_pod() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("policy").await;
    registry(&space).await;
    let spec = json!({"registryRef": {"name": "main"}, "limits": {"image": {"max": "1Gi"}}});
    space.make("RegistryGateway", "main", json!({"spec": spec})).await;
    space.told("RegistryGateway", "main", "PolicyAccepted=True/Accepted").await;
    space.play("main-gateway", Pods::Healthy).await;
    space.told("RegistryGateway", "main", "Available=True/Ready").await;
    let before = space.get("Deployment", "main-gateway").await.unwrap();
    let hash = async || {
        let gateway = space.get("RegistryGateway", "main").await.unwrap();
        gateway["status"]["policyHash"].as_str().unwrap().to_owned()
    };
    let old = hash().await;

    let limits = json!({"image": {"max": "2Gi"}, "tags": {"maxPerRepository": 7}});
    space.change("RegistryGateway", "main", json!({"spec": {"limits": limits, "action": "Audit"}})).await;
    let has = |map: &Value| {
        let policy: Value = serde_json::from_str(map["data"]["policy.json"].as_str()?).ok()?;
        (policy["limits"]["image_bytes"] == 2_147_483_648_u64).then_some(policy)
    };
    let policy = space.until("ConfigMap", "main-gateway", "it has the new limit", has).await;
    assert_eq!((&policy["limits"]["tags"], &policy["action"]), (&json!(7), &json!("audit")));
    space.told("RegistryGateway", "main", "PolicyAccepted=True/Accepted").await;
    assert_eq!(space.get("Deployment", "main-gateway").await.unwrap(), before);
    let new = hash().await;
    assert_ne!(new, old);

    space.change("ConfigMap", "main-gateway", json!({"data": {"policy.json": "x"}})).await;
    space.until("ConfigMap", "main-gateway", "it is changed back", has).await;
    let half = json!({"spec": {"limits": {"image": {"max": "100m"}}}});
    space.change("RegistryGateway", "main", half).await;
    let message = space.told("RegistryGateway", "main", "PolicyAccepted=False/InvalidPolicy").await;
    assert!(message.contains("100m") && message.contains("keeps its policy"), "{message}");
    assert!(has(&space.get("ConfigMap", "main-gateway").await.unwrap()).is_some());
    assert_eq!(hash().await, new);
    assert_eq!(space.get("Deployment", "main-gateway").await.unwrap(), before);
}

#[tokio::test]
async fn without_cert_manager_it_says_so_and_goes_on_without() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("certificates").await;
    registry(&space).await;
    let tls = json!({"mode": "CertManager", "issuerRef": {"name": "ca"}});
    let spec = json!({"registryRef": {"name": "main"}, "tls": tls});
    space.make("RegistryGateway", "main", json!({"spec": spec})).await;
    let message = space.told("RegistryGateway", "main", "Degraded=True/CertManagerNotInstalled").await;
    assert!(message.contains("cert-manager.io/v1"), "{message}");
    assert!(space.get("Deployment", "main-gateway").await.is_none());

    let tls = json!({"mode": "Secret", "issuerRef": null, "secretRef": {"name": "given"}});
    space.change("RegistryGateway", "main", json!({"spec": {"tls": tls}})).await;
    let message = space.told("RegistryGateway", "main", "Degraded=True/CertificateNotFound").await;
    assert!(message.contains("given"), "{message}");
    let pair = json!({"stringData": {"tls.crt": "certificate", "tls.key": "key"}});
    space.make("Secret", "given", pair).await;
    space.touch("RegistryGateway", "main").await;
    space.told("RegistryGateway", "main", "Degraded=False/AsExpected").await;
    let service = space.get("Service", "main-gateway").await.unwrap();
    assert_eq!(service["spec"]["ports"][0]["port"], 443);

    space.change("RegistryGateway", "main", json!({"spec": {"tls": null}})).await;
    let plain = |service: &Value| (service["spec"]["ports"][0]["port"] == 5000).then_some(());
    space.until("Service", "main-gateway", "it serves without a certificate", plain).await;
    let of = [("kind", "RegistryGateway"), ("result", "api")];
    assert_eq!(led.metric("larder_controller_reconciles_total", &of).await, 0.0);
}
