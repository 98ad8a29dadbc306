//! Registries by the controller that is shipped: what becomes of the YAML that was written before it, of storage that
//! is switched, of children that somebody changes. Pods are played. Rollouts that fail have a file of their own.

pub(crate) mod golden;
mod invalid;
mod stopped;

use larder_tests::cluster::{Cluster, Controller, Led, Pods, Space, image_of};
use serde_json::{Value, json};

const DRAFT: &str = include_str!("drafts/registry.yaml");
const TEMPLATE: &str = include_str!("drafts/template.yaml");
const CACHE: &str = include_str!("drafts/cache.yaml");
const EMPTY_DIR: &str = include_str!("drafts/storage-empty-dir.json");
const PVC: &str = include_str!("drafts/storage-pvc.json");
const S3: &str = include_str!("drafts/storage-s3.json");
const COSI: &str = include_str!("drafts/cosi.yaml");

/// What the object storage's keys are in, and what they are.
pub(crate) const KEYS: &str = "image-registry-private-configuration-user";
const SECRET_KEY: &str = "s3cret-of-the-bucket";

const CONFIGS: &str = "app.kubernetes.io/component=registry";

#[tokio::test]
async fn without_cosi_the_drafts_wait_and_say_for_what() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("drafts").await;
    let _ = led.cluster.apply(&space.name, DRAFT).await.well();
    let message = space.told("Registry", "my-registry", "StorageReady=False/CosiNotInstalled").await;
    assert!(message.contains("objectstorage.k8s.io"), "{message}");
    space.told("Registry", "my-registry", "Progressing=True/CosiNotInstalled").await;
    space.told("Registry", "my-registry", "Available=False/NotDeployed").await;
    assert_eq!(space.list("Deployment", "").await, Vec::<Value>::new());

    let other = led.cluster.space("drafts").await;
    let _ = led.cluster.apply(&other.name, TEMPLATE).await.well();
    other.told("Registry", "my-registry", "StorageReady=False/CosiNotInstalled").await;
    other.told("RegistryTemplate", "my-registry-template", "Ready=True/Valid").await;
    let used = |template: &Value| (template["status"]["usedBy"] == 1).then_some(());
    other.until("RegistryTemplate", "my-registry-template", "one uses it", used).await;
}

#[tokio::test]
async fn the_drafts_become_what_the_golden_files_show_and_then_nothing_is_written() {
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let _ = cluster.apply("default", COSI).await.well();
    let kubeconfig = cluster.install_rights().await;
    let controller = Controller::start(&kubeconfig, &["--leader-elect=false"]).await;
    let (plain, templated) = (cluster.space("plain").await, cluster.space("templated").await);
    let main = |yaml: &str| yaml.replace("name: my-registry\n", "name: main\n");
    let _ = cluster.apply(&plain.name, &main(DRAFT)).await.well();
    let _ = cluster.apply(&templated.name, &main(TEMPLATE)).await.well();
    for (space, case, but) in [
        (&plain, "registry/cosi_v1alpha1", &[][..]),
        // That one shows the newer COSI, which gives a CA too.
        (&templated, "registry/template", &["BucketClaim", "BucketAccess", "Secret", "Deployment"]),
    ] {
        drive(space).await;
        space.play_image("main-registry", "registry:2", Pods::Healthy).await;
        space.told("Registry", "main", "StorageReady=True/Probed").await;
        golden::shown(space, case, but).await;
        good(space, "registry:2").await;
        // What was told of that has been sent when the next look begins.
        looks_again(&controller, space, "Registry", "main").await;
        looks_again(&controller, space, "Registry", "main").await;
    }
    let live = templated.get("Deployment", "main-registry").await.unwrap();
    assert_eq!(live["spec"]["replicas"], 5);

    let before = (versions(&plain).await, versions(&templated).await);
    let written = writes(&controller).await;
    for _ in 0..3 {
        looks_again(&controller, &plain, "Registry", "main").await;
        looks_again(&controller, &templated, "Registry", "main").await;
        looks_again(&controller, &plain, "RegistryTemplate", "my-registry-template").await;
        let _ = cluster.apply(&plain.name, &main(DRAFT)).await.well();
    }
    assert_eq!((versions(&plain).await, versions(&templated).await), before);
    assert_eq!(writes(&controller).await, written);
    caches_become_settings(&cluster, &plain).await;
}

/// The bucket's driver: it says that the bucket is there, and hands out the keys.
async fn drive(space: &Space) {
    space.told("Registry", "main", "StorageReady=False/BucketNotReady").await;
    space.change_status("BucketClaim", "main-bucket", json!({"bucketReady": true})).await;
    space.touch("Registry", "main").await;
    assert_eq!(space.list("Deployment", "").await, Vec::<Value>::new());
    // The store knows the bucket by another name than the cluster does.
    let bucket = format!("bucket-{}", space.name);
    space.make("Bucket", &bucket, json!({"status": {"bucketID": "real-bucket"}})).await;
    space.change_status("Bucket", &bucket, json!({"bucketID": "real-bucket"})).await;
    let info = json!({"spec": {"bucketName": bucket, "authenticationType": "Key", "protocols": ["s3"],
        "secretS3": {"endpoint": "https://s3.example:9000", "region": "", "accessKeyID": "COSI",
                     "accessSecretKey": "cosi-secret"}}});
    let data = json!({"stringData": {"BucketInfo": info.to_string()}});
    space.make("Secret", "main-bucket-credentials", data).await;
    let granted = json!({"accessGranted": true});
    space.change_status("BucketAccess", "main-bucket-access", granted).await;
    space.touch("Registry", "main").await;
}

async fn caches_become_settings(cluster: &Cluster, space: &Space) {
    let _ = cluster.apply(&space.name, CACHE).await.well();
    space.make("NodeCache", "rest-of-drafts", json!({"spec": {}})).await;
    space.told("Cache", "my-cache", "Ready=True/Served").await;
    let agents = cluster.space_called(larder_tests::cluster::AGENTS).await;
    let has = |map: &Value| {
        let settings = map["data"]["larder.toml"].as_str().unwrap();
        settings.contains("https://my-upstream-registry.com").then_some(())
    };
    agents.until("ConfigMap", "larder-rest-of-drafts", "the nodes are told of it", has).await;
}

/// Touches an object, and waits until its story was told again.
pub(crate) async fn looks_again(controller: &Controller, space: &Space, kind: &str, name: &str) {
    let told = async || controller.metric("larder_controller_reconciles_total", &[("kind", kind)]).await;
    let before = told().await;
    space.touch(kind, name).await;
    let again = async || (told().await > before).then_some(());
    larder_tests::wait::until(format!("{kind} {name} is looked at"), again).await;
}

/// What the controller wrote so far, whatever it was.
async fn writes(controller: &Controller) -> f64 {
    let mut all = 0.0;
    for verb in ["create", "update", "patch", "delete"] {
        all += controller.metric("larder_controller_api_requests_total", &[("verb", verb)]).await;
    }
    all
}

/// Name and version of every child in a namespace.
async fn versions(space: &Space) -> Vec<String> {
    let mut versions = Vec::new();
    for kind in
        ["Registry", "Deployment", "Service", "Secret", "PodDisruptionBudget", "BucketClaim", "BucketAccess"]
    {
        for child in space.list(kind, "").await {
            // The Registry itself is touched by the test.
            let version =
                if kind == "Registry" { &child["status"] } else { &child["metadata"]["resourceVersion"] };
            versions.push(format!("{kind} {} {version}", child["metadata"]["name"]));
        }
    }
    assert!(versions.len() > 7, "{versions:?}");
    versions
}

#[tokio::test]
async fn storage_is_switched_and_the_pods_follow() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("switched").await;
    let spec = json!({"image": "registry:3.1.1", "ingress": {"host": "registry.example.com"}});
    space.make("Registry", "main", json!({"spec": spec})).await;
    change(&space, EMPTY_DIR).await;
    space.told("Registry", "main", "StorageReady=True/Ephemeral").await;
    let resources = |live: &Value| {
        let resources = &live["spec"]["template"]["spec"]["containers"][0]["resources"];
        (resources["limits"]["memory"] == "500Mi").then_some(())
    };
    space.until("Deployment", "main-registry", "its resources are the patch's", resources).await;
    golden::shown(&space, "registry/empty_dir", &[]).await;
    space.play("main-registry", Pods::Healthy).await;
    for wanted in ["Available=True/Ready", "Progressing=False/AsExpected", "Degraded=False/AsExpected"] {
        space.told("Registry", "main", wanted).await;
    }

    to_a_claim(&space).await;
    to_a_bucket(&space).await;
    change(&space, EMPTY_DIR).await;
    space
        .until("Deployment", "main-registry", "it has an emptyDir again", |live| volume(live, "emptyDir"))
        .await;
    space.told("Registry", "main", "StorageReady=True/Ephemeral").await;
    let claim = space.get("PersistentVolumeClaim", "image-registry").await.unwrap();
    assert_eq!(claim["metadata"]["deletionTimestamp"], Value::Null);
    assert_eq!(claim["metadata"]["ownerReferences"], Value::Null);
    let registry = space.get("Registry", "main").await.unwrap();
    assert_eq!(registry["spec"]["ingress"]["host"], "registry.example.com");
    let ingress = space.get("Ingress", "main-registry").await.unwrap();
    assert_eq!(ingress["spec"]["rules"][0]["host"], "registry.example.com");
}

/// One that is not there yet, then is, then is bound.
async fn to_a_claim(space: &Space) {
    let before = space.get("Deployment", "main-registry").await.unwrap();
    change(space, PVC).await;
    let message = space.told("Registry", "main", "StorageReady=False/ClaimNotFound").await;
    assert!(message.contains("image-registry"), "{message}");
    space.told("Registry", "main", "Degraded=True/InvalidConfiguration").await;
    space.told("Registry", "main", "Available=True/Ready").await;
    assert_eq!(space.get("Deployment", "main-registry").await.unwrap(), before);

    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Gi"}}});
    space.make("PersistentVolumeClaim", "image-registry", json!({"spec": spec})).await;
    space.touch("Registry", "main").await;
    space.told("Registry", "main", "StorageReady=False/ClaimPending").await;
    let live = |live: &Value| volume(live, "persistentVolumeClaim").map(|()| live.clone());
    let live = space.until("Deployment", "main-registry", "it has the claim", live).await;
    // A volume of one node is handed from pod to pod.
    assert_eq!(live["spec"]["strategy"], json!({"type": "Recreate"}));
    space.change_status("PersistentVolumeClaim", "image-registry", json!({"phase": "Bound"})).await;
    space.play("main-registry", Pods::Healthy).await;
    space.told("Registry", "main", "StorageReady=True/Bound").await;
    space.told("Registry", "main", "Available=True/Ready").await;
}

/// Keys are missing, then the CA is, then all is there.
async fn to_a_bucket(space: &Space) {
    change(space, S3).await;
    let message = space.told("Registry", "main", "StorageReady=False/SecretMissing").await;
    assert!(message.contains(KEYS), "{message}");
    keys(space).await;
    space.touch("Registry", "main").await;
    let message = space.told("Registry", "main", "StorageReady=False/TrustedCaMissing").await;
    assert!(message.contains("s3-ca"), "{message}");
    let live = space.get("Deployment", "main-registry").await.unwrap();
    assert!(volume(&live, "persistentVolumeClaim").is_some(), "{live:#}");

    let ca = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
    space.make("ConfigMap", "s3-ca", json!({"data": {"ca-bundle.crt": ca}})).await;
    space.touch("Registry", "main").await;
    let live = |live: &Value| {
        let text = live.to_string();
        (text.contains("SSL_CERT_DIR") && live["spec"]["replicas"] == 2).then(|| live.clone())
    };
    let live = space.until("Deployment", "main-registry", "it has the bucket", live).await;
    assert!(volume(&live, "persistentVolumeClaim").is_none(), "{live:#}");
    assert_eq!(live["spec"]["strategy"]["type"], "RollingUpdate");
    let revision = live["metadata"]["annotations"]["registry-operator.dev/revision"].as_str().unwrap();
    let config = space.get("Secret", &format!("main-registry-config-{revision}")).await.unwrap();
    let file = golden::decoded(&config, "config.yml");
    for part in ["regionendpoint: 'https://s3.example.com'", "bucket: 'images'", SECRET_KEY, "disable: true"]
    {
        assert!(file.contains(part), "{part} is not in\n{file}");
    }
    assert_eq!(golden::decoded(&config, "trusted-ca.crt"), ca);
    space.play("main-registry", Pods::Healthy).await;
    space.told("Registry", "main", "StorageReady=True/Probed").await;
    let told = space.get("Registry", "main").await.unwrap().to_string();
    assert!(!told.contains(SECRET_KEY), "{told}");
    assert_eq!(space.get("Registry", "main").await.unwrap()["status"]["storage"]["backend"], "s3");
    let budget = |budget: &Value| Some(budget["spec"]["minAvailable"].clone());
    space.until("PodDisruptionBudget", "main-registry", "two replicas have a budget", budget).await;
}

async fn change(space: &Space, patch: &str) {
    space.change("Registry", "main", serde_json::from_str(patch).unwrap()).await;
}

/// The keys of the object storage.
pub(crate) async fn keys(space: &Space) {
    let data = json!({"REGISTRY_STORAGE_S3_ACCESSKEY": "AKID", "REGISTRY_STORAGE_S3_SECRETKEY": SECRET_KEY});
    space.make("Secret", KEYS, json!({"stringData": data})).await;
}

/// Something where a Deployment has a volume of that kind.
fn volume(live: &Value, kind: &str) -> Option<()> {
    let volumes = live["spec"]["template"]["spec"]["volumes"].as_array()?;
    volumes.iter().any(|volume| !volume[kind].is_null()).then_some(())
}

/// A Registry of two pods that are healthy.
pub(crate) async fn healthy(space: &Space, image: &str) {
    keys(space).await;
    let spec = json!({
        "image": image, "replicas": 2, "storage": {"s3": {"bucket": "images", "region": "eu-1"}},
        "ingress": {"host": "registry.example.com"},
    });
    space.make("Registry", "main", json!({"spec": spec})).await;
    space.play_image("main-registry", image, Pods::Healthy).await;
    space.told("Registry", "main", "Available=True/Ready").await;
    good(space, image).await;
}

async fn good(space: &Space, image: &str) {
    let good = |registry: &Value| (registry["status"]["lastGood"]["image"] == image).then_some(());
    space.until("Registry", "main", "its image is the last good one", good).await;
}

#[tokio::test]
async fn what_somebody_changes_is_changed_back() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("drift").await;
    healthy(&space, "registry:3.1.1").await;
    let container = json!([{"name": "registry", "image": "evil:1"}]);
    for (kind, patch, path) in [
        (
            "Deployment",
            json!({"spec": {"template": {"spec": {"containers": container}}}}),
            "/spec/template/spec/containers/0/image",
        ),
        ("Deployment", json!({"spec": {"replicas": 7}}), "/spec/replicas"),
        ("Service", json!({"spec": {"type": "NodePort"}}), "/spec/type"),
        ("PodDisruptionBudget", json!({"spec": {"minAvailable": 0}}), "/spec/minAvailable"),
        ("Ingress", json!({"spec": {"rules": [{"host": "evil.example.com"}]}}), "/spec/rules/0/host"),
    ] {
        let before = space.get(kind, "main-registry").await.unwrap();
        let changed = space.change(kind, "main-registry", patch).await;
        assert_ne!(changed.pointer(path), before.pointer(path), "{kind} {path}");
        let back = |live: &Value| (live.pointer(path) == before.pointer(path)).then_some(());
        space.until(kind, "main-registry", format!("{path} is as before"), back).await;
    }
    for kind in ["Deployment", "Service", "PodDisruptionBudget", "Ingress"] {
        let before = space.get(kind, "main-registry").await.unwrap()["metadata"]["uid"].clone();
        space.delete(kind, "main-registry").await;
        let anew = |live: &Value| (live["metadata"]["uid"] != before).then_some(());
        space.until(kind, "main-registry", "it is made again", anew).await;
    }
    // Secrets are not watched.
    let live = space.get("Deployment", "main-registry").await.unwrap();
    let revision = live["metadata"]["annotations"]["registry-operator.dev/revision"].as_str().unwrap();
    let config = format!("main-registry-config-{revision}");
    let before = space.get("Secret", &config).await.unwrap();
    space.delete("Secret", &config).await;
    space.touch("Registry", "main").await;
    let same = |secret: &Value| (secret["data"] == before["data"]).then_some(());
    space.until("Secret", &config, "the configuration is made again", same).await;
}

#[tokio::test]
async fn what_is_others_stays_theirs() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("beside").await;
    healthy(&space, "registry:3.1.1").await;
    let note = json!({"metadata": {"annotations": {"team": "a"}, "labels": {"team": "a"}}});
    for kind in ["Deployment", "Service"] {
        space.change(kind, "main-registry", note.clone()).await;
    }
    space.change("Registry", "main", json!({"spec": {"image": "registry:3.0.0"}})).await;
    space.play_image("main-registry", "registry:3.0.0", Pods::Healthy).await;
    for kind in ["Deployment", "Service"] {
        let live = space.get(kind, "main-registry").await.unwrap();
        assert_eq!(live["metadata"]["annotations"]["team"], "a", "{kind}");
        assert_eq!(live["metadata"]["labels"]["team"], "a", "{kind}");
    }
}

#[tokio::test]
async fn unmanaged_is_left_alone_and_removed_is_taken_away() {
    let Some(led) = Led::start().await else { return };
    let space = led.cluster.space("states").await;
    let pvc = json!({"size": "1Gi", "accessModes": ["ReadWriteMany"]});
    let spec = json!({"image": "registry:3.1.1", "replicas": 2, "storage": {"pvc": pvc}});
    space.make("Registry", "main", json!({"spec": spec})).await;
    space.play_image("main-registry", "registry:3.1.1", Pods::Healthy).await;
    space.told("Registry", "main", "Available=True/Ready").await;

    let unmanaged = json!({"spec": {"managementState": "Unmanaged", "image": "registry:3.0.0"}});
    space.change("Registry", "main", unmanaged).await;
    space.told("Registry", "main", "Available=True/Unmanaged").await;
    space.change("Deployment", "main-registry", json!({"spec": {"replicas": 1}})).await;
    space.change("Registry", "main", json!({"spec": {"readOnly": true}})).await;
    space.told("Registry", "main", "Available=True/Unmanaged").await;
    let live = space.get("Deployment", "main-registry").await.unwrap();
    assert_eq!((image_of(&live), &live["spec"]["replicas"]), ("registry:3.1.1", &json!(1)));

    space.change("Registry", "main", json!({"spec": {"managementState": "Removed"}})).await;
    space.told("Registry", "main", "Available=True/Removed").await;
    for kind in ["Deployment", "Service", "PodDisruptionBudget"] {
        space.gone(kind, "main-registry").await;
    }
    assert_eq!(names(&space.list("Secret", CONFIGS).await), ["main-registry-http"]);
    let store = space.get("PersistentVolumeClaim", "main-registry").await.unwrap();
    assert_eq!(store["metadata"]["deletionTimestamp"], Value::Null);

    space.change("Registry", "main", json!({"spec": {"managementState": "Managed"}})).await;
    space.play_image("main-registry", "registry:3.0.0", Pods::Healthy).await;
    space.told("Registry", "main", "Available=True/Ready").await;
    let store = json!({"managementState": "Managed"});
    let all = json!({"spec": {"managementState": "Removed", "storage": store}});
    space.change("Registry", "main", all).await;
    space.told("Registry", "main", "Available=True/Removed").await;
    // Nobody here takes its protection away.
    let asked = |claim: &Value| (!claim["metadata"]["deletionTimestamp"].is_null()).then_some(());
    space.until("PersistentVolumeClaim", "main-registry", "it goes too", asked).await;
}

fn names(objects: &[Value]) -> Vec<&str> {
    objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_template_reaches_all_who_name_it() {
    let Some(led) = Led::start().await else { return };
    let (one, other) = (led.cluster.space("named").await, led.cluster.space("named").await);
    let name = led.cluster.name("shared");
    let template = json!({"spec": {"image": "registry:3.0.0", "resources": {"limits": {"memory": "1Gi"}}}});
    one.make("RegistryTemplate", &name, template).await;
    one.make("Registry", "main", json!({"template": name, "spec": {}})).await;
    let spec = json!({"templateRef": {"name": name}, "resources": {"limits": {"cpu": "2"}}});
    other.make("Registry", "main", json!({"spec": spec})).await;
    for space in [&one, &other] {
        space.play_image("main-registry", "registry:3.0.0", Pods::Healthy).await;
        space.told("Registry", "main", "Available=True/Ready").await;
    }
    let uses = async |count: i64| {
        let used = |template: &Value| (template["status"]["usedBy"] == count).then_some(());
        one.until("RegistryTemplate", &name, format!("{count} use it"), used).await;
    };
    uses(2).await;

    one.change("RegistryTemplate", &name, json!({"spec": {"image": "registry:3.1.1"}})).await;
    for space in [&one, &other] {
        space.play_image("main-registry", "registry:3.1.1", Pods::Healthy).await;
    }
    let live = other.get("Deployment", "main-registry").await.unwrap();
    let limits = &live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(*limits, json!({"cpu": "2", "memory": "1Gi"}));

    one.change("RegistryTemplate", &name, json!({"spec": {"image": "registry:latest"}})).await;
    let message = one.told("RegistryTemplate", &name, "Ready=False/InvalidConfiguration").await;
    assert!(message.contains("registry:latest"), "{message}");
    let is_told = |registry: &Value| registry.to_string().contains("UnknownVersion").then_some(());
    for space in [&one, &other] {
        space.until("Registry", "main", "it is told", is_told).await;
        let live = space.get("Deployment", "main-registry").await.unwrap();
        assert_eq!(image_of(&live), "registry:3.1.1");
    }

    other.delete("Registry", "main").await;
    uses(1).await;
    one.delete("RegistryTemplate", &name).await;
    one.until("Registry", "main", "it misses its template", |registry| {
        registry.to_string().contains(&format!("RegistryTemplate {name} is not there")).then_some(())
    })
    .await;
}
