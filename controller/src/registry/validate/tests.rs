//! What cannot be run is told in words; what can be is read as it was meant.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;

use super::*;
use crate::registry::cases::{everything, foreign, registry, valid, with_bucket};
use crate::registry::foreign::CosiVersion;
use crate::registry::trouble::Kind;

fn trouble(root: &str, found: &Found) -> (Part, &'static str) {
    let trouble = valid(&registry(root), None, found).unwrap_err();
    assert!(!trouble.message.is_empty());
    (trouble.part, trouble.reason)
}

fn claim(yaml: &str) -> Found {
    let claim: PersistentVolumeClaim = serde_saphyr::from_str(yaml).unwrap();
    Found { claim: Some(claim), ..everything() }
}

const OURS: &str =
    "metadata: {name: main-registry, labels: {app.kubernetes.io/managed-by: larder-controller}}";

#[test]
fn an_image_without_a_version_is_not_run() {
    let found = Found::default();
    assert_eq!(trouble("spec: {image: 'registry:latest'}", &found), (Part::Version, "UnknownVersion"));
    assert_eq!(trouble("spec: {image: 'registry@sha256:00'}", &found), (Part::Version, "UnknownVersion"));
    assert_eq!(trouble("spec: {image: 'registry:2.7.1'}", &found), (Part::Version, "UnsupportedVersion"));
    let known =
        valid(&registry("spec: {image: 'registry@sha256:00', version: 3.1.1}"), None, &found).unwrap();
    assert_eq!((known.version.as_str(), known.image.as_str()), ("3.1.1", "registry@sha256:00"));
}

#[test]
fn a_store_of_a_newer_major_is_not_given_to_an_older_one() {
    let root = |image: &str| {
        format!(
            "{{spec: {{image: '{image}'}}, status: {{conditions: [], lastGood: {{version: 3.0.0, image: 'registry:3.0.0',
              configHash: ab}}}}}}"
        )
    };
    assert_eq!(trouble(&root("registry:2.8.3"), &Found::default()), (Part::Version, "DowngradeRefused"));
    assert!(valid(&registry(&root("registry:3.1.1")), None, &Found::default()).is_ok());
}

#[test]
fn replicas_share_a_store_or_there_is_one() {
    let refused = (Part::Spec, "StoreNotShared");
    let found = claim("{metadata: {name: mine}, spec: {accessModes: [ReadWriteOnce]}}");
    // The API server cannot see that the template has an emptyDir.
    assert_eq!(trouble("spec: {replicas: 2}", &Found::default()), refused);
    assert_eq!(trouble("spec: {replicas: 2, storage: {pvc: {claim: mine}}}", &found), refused);
    let rolling = "spec: {upgrade: {strategy: RollingUpdate}, storage: {pvc: {claim: mine}}}";
    assert_eq!(trouble(rolling, &found), refused);

    let alone =
        valid(&registry("spec: {capacityTier: Large, storage: {pvc: {claim: mine}}}"), None, &found).unwrap();
    assert_eq!((alone.replicas, alone.strategy), (1, UpgradeStrategy::Recreate));
    let found = claim("{metadata: {name: mine}, spec: {accessModes: [ReadWriteMany]}}");
    let many =
        valid(&registry("spec: {capacityTier: Large, storage: {pvc: {claim: mine}}}"), None, &found).unwrap();
    assert_eq!((many.replicas, many.strategy), (3, UpgradeStrategy::RollingUpdate));
}

#[test]
fn a_claim_that_is_not_there_or_not_ours_is_told() {
    let named = "spec: {storage: {pvc: {claim: image-registry}}}";
    assert_eq!(trouble(named, &Found::default()), (Part::Storage, "ClaimNotFound"));
    let found = claim("{metadata: {name: main-registry}, spec: {accessModes: [ReadWriteOnce]}}");
    assert_eq!(trouble("spec: {storage: {pvc: {size: 1Gi}}}", &found), (Part::Storage, "ClaimNotOurs"));
}

#[test]
fn what_a_claim_is_stays_so_also_when_the_template_changes() {
    let found = claim(&format!(
        "{{{OURS}, spec: {{accessModes: [ReadWriteOnce], storageClassName: fast, resources: {{requests: {{storage: 10Gi}}}}}}}}"
    ));
    let immutable = (Part::Storage, "ClaimImmutable");
    for volume in
        ["{size: 5Gi}", "{size: 10Gi, storageClassName: slow}", "{size: 10Gi, accessModes: [ReadWriteMany]}"]
    {
        assert_eq!(trouble(&format!("spec: {{storage: {{pvc: {volume}}}}}"), &found), immutable, "{volume}");
    }
    assert_eq!(trouble("spec: {storage: {pvc: {size: much}}}", &found), (Part::Storage, "BadSize"));
    assert!(valid(&registry("spec: {storage: {pvc: {size: 20Gi}}}"), None, &found).is_ok());
}

#[test]
fn an_api_that_is_not_there_is_waited_for() {
    let bucket = "spec: {storage: {bucketClassName: c, bucketAccessClass: a}}";
    let absent = valid(&registry(bucket), None, &Found::default()).unwrap_err();
    assert_eq!((absent.kind, absent.reason), (Kind::Waiting, "CosiNotInstalled"));
    let tls = "spec: {tls: {mode: CertManager, issuerRef: {name: ca}}}";
    let absent = valid(&registry(tls), None, &Found::default()).unwrap_err();
    assert_eq!((absent.kind, absent.reason), (Kind::Waiting, "CertManagerNotInstalled"));
}

#[test]
fn the_class_of_a_bucket_is_fixed() {
    let mut found = with_bucket(CosiVersion::V1alpha2);
    let root = "spec: {storage: {bucketClassName: other, bucketAccessClass: my-s3-access-class}}";
    assert_eq!(trouble(root, &found), (Part::Storage, "BucketImmutable"));
    found.bucket.claim = Some(foreign(json!({})));
    assert!(valid(&registry(root), None, &found).is_ok());
}

#[test]
fn the_old_major_is_not_asked_for_what_it_cannot_do() {
    let redis = |image: &str| {
        format!(
            "spec: {{image: '{image}', metadataCache: {{type: Redis, redis: {{addrs: ['a:1', 'b:1']}}}}}}"
        )
    };
    assert_eq!(trouble(&redis("registry:2.8.3"), &everything()), (Part::Version, "NeedsDistribution3"));
    assert!(valid(&registry(&redis("registry:3.1.1")), None, &everything()).is_ok());
    let style = "spec: {image: 'registry:2', storage: {s3: {bucket: b, region: r, regionEndpoint: 'https://s3', virtualHostedStyle: true}}}";
    assert_eq!(trouble(style, &everything()), (Part::Version, "NeedsDistribution3"));
}

#[test]
fn a_request_above_the_tiers_limit_is_told_before_the_api_server_refuses_it() {
    let root = "spec: {capacityTier: Small, resources: {requests: {memory: 4Gi}}}";
    assert_eq!(trouble(root, &Found::default()), (Part::Spec, "RequestAboveLimit"));
}

#[test]
fn what_is_unwise_runs_and_is_told() {
    let reasons = |root: &str| {
        let valid = valid(&registry(root), None, &everything()).unwrap();
        valid.warnings.into_iter().map(|(reason, _)| reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons("spec: {}"), ["StoreEphemeral"]);
    let s3 = "storage: {s3: {bucket: b, region: r}}, metadataCache: {type: InMemory}";
    assert_eq!(reasons(&format!("spec: {{replicas: 2, {s3}}}")), ["StaleMetadata"]);
    assert!(reasons(&format!("spec: {{replicas: 1, {s3}}}")).is_empty());
}

#[test]
fn storage_is_switched_as_the_seed_patches_it() {
    let found = claim("{metadata: {name: image-registry}, spec: {accessModes: [ReadWriteOnce]}}");
    let mut backends = Vec::new();
    for storage in [
        "{emptyDir: {}, pvc: null, s3: null}",
        "{managementState: Unmanaged, emptyDir: null, pvc: {claim: image-registry}, s3: null}",
        "{managementState: Unmanaged, emptyDir: null, pvc: null, s3: {bucket: b, region: r, regionEndpoint: 'https://s3', trustedCA: {name: ca}}}",
    ] {
        let valid = valid(&registry(&format!("spec: {{storage: {storage}}}")), None, &found).unwrap();
        backends.push(valid.store.backend());
    }
    assert_eq!(backends, ["emptyDir", "pvc", "s3"]);
}

#[test]
fn a_store_that_nobody_names_any_more_is_not_replaced_by_an_empty_one() {
    let root = |storage: &str, backend: &str| {
        format!("{{spec: {{{storage}}}, status: {{conditions: [], storage: {{backend: {backend}}}}}}}")
    };
    for backend in ["pvc", "s3", "bucket"] {
        let silent = root("storage: {managementState: Managed}", backend);
        assert_eq!(trouble(&silent, &Found::default()), (Part::Storage, "StoreNotNamed"), "{backend}");
        let meant = root("storage: {emptyDir: {}}", backend);
        assert!(valid(&registry(&meant), None, &Found::default()).is_ok(), "{backend}");
    }
    assert!(valid(&registry(&root("", "emptyDir")), None, &Found::default()).is_ok());
}
