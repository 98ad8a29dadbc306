//! What an administrator writes wrongly, where only the whole shows it: told in a condition, with a reason and what to
//! do, while what runs is not touched and others do not wait.

use larder_tests::cluster::{Cluster, Led, Pods, Space};
use serde_json::{Value, json};

use super::{KEYS, healthy};

/// A condition of a Registry that runs well, after a change of its spec.
struct Case {
    change: Value,
    /// `Type=Status/Reason`
    told: &'static str,
    part: &'static str,
}

fn case(change: Value, told: &'static str, part: &'static str) -> Case {
    Case { change, told, part }
}

fn cases() -> Vec<Case> {
    let s3 = |more: Value| {
        let mut s3 = json!({"bucket": "images", "region": "eu-1"});
        s3.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"storage": {"s3": s3}})
    };
    let pvc = |pvc: Value| json!({"storage": {"s3": null, "pvc": pvc}});
    let invalid = "Degraded=True/InvalidConfiguration";
    vec![
        case(json!({"image": "registry:latest"}), "Upgradeable=False/UnknownVersion", "registry:latest"),
        case(json!({"image": "registry:2.7.1"}), "Upgradeable=False/UnsupportedVersion", "2.7.1"),
        case(json!({"image": "registry:2.8.3"}), "Upgradeable=False/DowngradeRefused", "3.1.1 to 2.8.3"),
        case(pvc(json!({"size": "1Gi"})), invalid, "2 replicas cannot share PersistentVolumeClaim"),
        case(
            pvc(json!({"claim": "gone"})),
            "StorageReady=False/ClaimNotFound",
            "PersistentVolumeClaim gone is not there",
        ),
        case(
            s3(json!({"credentialsSecretRef": {"name": "gone"}})),
            "StorageReady=False/SecretMissing",
            "Secret gone is not there; it needs the key REGISTRY_STORAGE_S3_ACCESSKEY",
        ),
        case(
            s3(json!({"regionEndpoint": "https://s3.example.com", "trustedCA": {"name": "gone"}})),
            "StorageReady=False/TrustedCaMissing",
            "ConfigMap gone",
        ),
        case(
            json!({"tls": {"mode": "CertManager", "issuerRef": {"name": "ca"}}}),
            "CertificateReady=False/CertManagerNotInstalled",
            "cert-manager.io/v1",
        ),
        case(
            json!({"tls": {"mode": "Secret", "secretRef": {"name": "gone"}}}),
            "CertificateReady=False/SecretMissing",
            "Secret gone needs tls.crt and tls.key",
        ),
        case(json!({"auth": {"type": "Htpasswd", "secretRef": {"name": "gone"}}}), invalid, "Secret gone"),
        case(json!({"templateRef": {"name": "gone"}}), invalid, "RegistryTemplate gone is not there"),
        case(
            json!({"capacityTier": "Large", "resources": {"limits": {"memory": "1Gi"}}}),
            invalid,
            "2Gi is above its limit 1Gi",
        ),
        case(
            json!({"service": {"annotations": {"no key at all": "x"}}}),
            "Degraded=True/ApplyRefused",
            "no key at all",
        ),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_told_and_what_runs_is_not_touched() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("wrong").await;
    healthy(&space, "registry:3.1.1").await;
    let before = space.get("Deployment", "main-registry").await.unwrap();
    let good = space.get("Registry", "main").await.unwrap()["spec"].clone();
    for Case { change, told, part } in cases() {
        space.change("Registry", "main", json!({"spec": change})).await;
        let message = space.told("Registry", "main", told).await;
        assert!(message.contains(part), "{change}: {message}, not {part}");
        space.told("Registry", "main", "Available=True/Ready").await;
        let after = space.get("Deployment", "main-registry").await.unwrap();
        assert_eq!(after, before, "{change}");
        back(&space, &good).await;
    }
    let told = space.list("Event", "").await;
    for reason in ["UnknownVersion", "ClaimNotFound", "Recovered"] {
        let is_there = told.iter().any(|event| event["reason"] == reason);
        assert!(is_there, "no event {reason} in {told:#?}");
    }
    assert!(space.get("Secret", KEYS).await.is_some());
}

/// The spec as it was, field by field: what is not in it is taken out.
async fn back(space: &Space, good: &Value) {
    let now = space.get("Registry", "main").await.unwrap()["spec"].clone();
    let mut patch = good.clone();
    for field in now.as_object().unwrap().keys().filter(|field| good.get(field.as_str()).is_none()) {
        patch[field.as_str()] = Value::Null;
    }
    patch["storage"]["pvc"] = Value::Null;
    for field in ["credentialsSecretRef", "regionEndpoint", "trustedCA"] {
        patch["storage"]["s3"][field] = Value::Null;
    }
    space.change("Registry", "main", json!({"spec": patch})).await;
    space.told("Registry", "main", "Degraded=False/AsExpected").await;
    space.told("Registry", "main", "Upgradeable=True/AsExpected").await;
}

#[tokio::test]
async fn replicas_beyond_what_a_templates_store_can_have_are_refused() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("beyond").await;
    let name = led.cluster.name("ephemeral");
    let template = json!({"spec": {"image": "registry:3.1.1", "storage": {"emptyDir": {}}}});
    space.make("RegistryTemplate", &name, template).await;
    space.make("Registry", "main", json!({"template": name, "spec": {}})).await;
    space.play_image("main-registry", "registry:3.1.1", Pods::Healthy).await;
    space.told("Registry", "main", "Available=True/Ready").await;
    let before = space.get("Deployment", "main-registry").await.unwrap();
    space.change("Registry", "main", json!({"spec": {"replicas": 3}})).await;
    let message = space.told("Registry", "main", "Degraded=True/InvalidConfiguration").await;
    assert!(message.contains("3 replicas cannot share an emptyDir"), "{message}");
    assert_eq!(space.get("Deployment", "main-registry").await.unwrap(), before);
    nobody_waits(&led.cluster, &space).await;
}

/// Twenty that cannot be run do not delay one that can.
async fn nobody_waits(cluster: &Cluster, space: &Space) {
    for number in 0..20 {
        let spec = json!({"image": "registry:latest"});
        space.make("Registry", &format!("wrong-{number}"), json!({"spec": spec})).await;
    }
    let other = cluster.space("right").await;
    other.make("Registry", "main", json!({"spec": {"image": "registry:3.1.1"}})).await;
    other.play_image("main-registry", "registry:3.1.1", Pods::Healthy).await;
    other.told("Registry", "main", "Available=True/Ready").await;
}
