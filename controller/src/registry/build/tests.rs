//! Every kind of registry as its children; the files in tests/golden/registry are what an administrator will see.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;

use super::*;
use crate::apply::golden;
use crate::registry::cases::{everything, materials, registry, valid, with_bucket};
use crate::registry::dereference::Found;
use crate::registry::foreign::CosiVersion;
use crate::registry::material::mounted_hash;

/// All children of a case, in the order in which they are applied.
fn children(root: &str, template: Option<&str>, found: &Found) -> Vec<Child> {
    let valid = valid(&registry(root), template, found).unwrap();
    let materials = materials(&valid, found).unwrap();
    let mut children = foundation(&valid);
    let built = build(&valid, materials, None);
    let mounted = mounted_hash(&mounts(&built.deployment), found).unwrap();
    let is = Running { revision: built.revision.clone(), since: SINCE.parse().unwrap() };
    children.push(readable(built.config));
    children.push(deployment_of(&valid, built.deployment, &is, valid.replicas, &mounted));
    children.push(built.service);
    children.extend(built.children);
    children
}

const SINCE: &str = "2026-11-20T09:00:00Z";

fn deployment_of(valid: &Valid, spec: DeploymentSpec, is: &Running, replicas: i32, mounted: &str) -> Child {
    let rolled = Rolled { running: is, replicas, health_timeout: valid.health_timeout, mounted };
    running(&valid.names, &valid.owner, spec, &rolled)
}

fn read(child: &Child) -> Deployment {
    serde_json::from_value(serde_json::to_value(&child.object).unwrap()).unwrap()
}

/// A Secret with its text where base64 stands, and without the copy of the Deployment that follows anyway.
fn readable(mut child: Child) -> Child {
    let secret: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(serde_json::to_value(&child.object).unwrap()).unwrap();
    assert!(kept_deployment(&secret).is_some());
    let text = |(key, value): (String, k8s_openapi::ByteString)| {
        let text = String::from_utf8(value.0).unwrap();
        (key, Value::String(text))
    };
    let data = secret.data.unwrap().into_iter().filter(|(key, _)| key != "deployment.json").map(text);
    child.object.data["data"] = Value::Object(data.collect());
    child
}

fn golden_case(case: &str, root: &str) {
    golden_of(case, root, None, &everything());
}

fn golden_of(case: &str, root: &str, template: Option<&str>, found: &Found) {
    golden::check(&format!("registry/{case}"), &children(root, template, found));
}

#[test]
fn development_storage() {
    golden_case(
        "empty_dir",
        "spec: {managementState: Managed, replicas: 1, image: 'registry:3.1.1', storage: {emptyDir: {}},
          resources: {requests: {cpu: 500m, memory: 500Mi}, limits: {cpu: 500m, memory: 500Mi}}}",
    );
}

#[test]
fn nothing_written_is_a_small_registry_of_the_default_image() {
    golden_case("defaults", "spec: {}");
}

#[test]
fn a_claim_that_is_named() {
    let mut found = everything();
    let claim = "{metadata: {name: image-registry}, spec: {accessModes: [ReadWriteOnce]}}";
    found.claim = Some(serde_saphyr::from_str(claim).unwrap());
    let root =
        "spec: {image: 'registry:2', storage: {managementState: Unmanaged, pvc: {claim: image-registry}}}";
    golden_of("pvc_claim", root, None, &found);
}

#[test]
fn a_claim_that_is_made_and_shared() {
    golden_case(
        "pvc_made",
        "spec: {image: 'registry:3.1.1', replicas: 2, storage: {managementState: Managed,
          pvc: {size: 100Gi, storageClassName: nfs, accessModes: [ReadWriteMany]}}}",
    );
}

#[test]
fn object_storage_of_ones_own_with_a_ca() {
    golden_case(
        "s3_trusted_ca",
        "spec: {image: 'registry:3.1.1', replicas: 2, disableRedirect: true, storage: {managementState: Unmanaged,
          s3: {bucket: images, region: eu-1, regionEndpoint: 'https://s3.example:9000', trustedCA: {name: s3-ca},
               encrypt: true, chunkSizeMiB: 64}}}",
    );
}

#[test]
fn object_storage_of_amazon_for_the_old_major() {
    golden_case(
        "s3_amazon_2",
        "spec: {image: 'registry:2.8.3', storage: {s3: {bucket: images, region: eu-west-1}}}",
    );
}

#[test]
fn a_bucket_of_cosi_in_both_shapes() {
    let root = "spec: {replicas: 3, image: 'registry:2', service: {type: ClusterIP, port: 5000},
      storage: {bucketClassName: my-s3-class, bucketAccessClass: my-s3-access-class}}";
    golden_of("cosi_v1alpha1", root, None, &with_bucket(CosiVersion::V1alpha1));
    golden_of("cosi_v1alpha2", root, None, &with_bucket(CosiVersion::V1alpha2));
}

#[test]
fn redis_for_both_majors() {
    let root = |image: &str| {
        format!(
            "spec: {{image: '{image}', storage: {{s3: {{bucket: b, region: eu-west-1}}}}, metadataCache: {{type: Redis,
              redis: {{addrs: ['valkey:6379'], passwordSecretRef: {{name: valkey, key: password}}, db: 2}}}}}}"
        )
    };
    golden_case("redis_2", &root("registry:2.8.3"));
    golden_case("redis_3", &root("registry:3.1.1"));
}

#[test]
fn who_may_use_it() {
    golden_case(
        "htpasswd",
        "spec: {image: 'registry:3.1.1', auth: {type: Htpasswd, secretRef: {name: users}}}",
    );
    golden_case(
        "token",
        "spec: {image: 'registry:3.1.1', auth: {type: Token, token: {realm: 'https://auth.example/token',
          service: main, issuer: auth.example, rootCertSecretRef: {name: token-roots}}}}",
    );
}

#[test]
fn certificates_and_an_ingress() {
    golden_case(
        "cert_manager",
        "spec: {image: 'registry:3.1.1', ingress: {className: nginx, host: registry.example.com},
          tls: {mode: CertManager, issuerRef: {kind: ClusterIssuer, name: ca}, renewBefore: 720h}}",
    );
    golden_case(
        "load_balancer",
        "spec: {image: 'registry:3.1.1', tls: {mode: Secret, secretRef: {name: my-tls}},
          service: {type: LoadBalancer, port: 443, annotations: {cloud.example/internal: 'true'}}}",
    );
}

#[test]
fn pulls_only() {
    golden_case(
        "read_only",
        "spec: {image: 'registry:3.1.1', readOnly: true, metadataCache: {type: InMemory},
          proxy: {https: 'http://proxy.example:3128', noProxy: .svc}, nodeSelector: {disk: fast},
          tolerations: [{key: dedicated, operator: Exists}]}",
    );
}

#[test]
fn the_three_tiers() {
    for tier in ["Small", "Medium", "Large"] {
        let root = format!(
            "spec: {{capacityTier: {tier}, image: 'registry:3.1.1', storage: {{s3: {{bucket: b, region: eu-west-1}}}}}}"
        );
        golden_case(&format!("tier_{}", tier.to_lowercase()), &root);
    }
}

#[test]
fn a_template_and_what_the_registry_says_itself() {
    let template = "{replicas: 3, image: 'registry:2', service: {type: ClusterIP, port: 5000},
      storage: {bucketClassName: my-s3-class, bucketAccessClass: my-s3-access-class},
      resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: '1', memory: 2Gi}}}";
    let root = "{template: my-registry-template, spec: {replicas: 5}}";
    golden_of("template", root, Some(template), &with_bucket(CosiVersion::V1alpha2));
}

#[test]
fn whom_the_registry_tells_of_pushes_is_part_of_its_configuration() {
    let found = everything();
    let valid = valid(&registry("spec: {image: 'registry:3.1.1'}"), None, &found).unwrap();
    let notifications = Notifications {
        url: "http://main-gateway:5001/events".to_owned(),
        authorization: "Bearer token".to_owned().into(),
    };
    let built = build(&valid, materials(&valid, &found).unwrap(), Some(notifications));
    golden::check("registry/notifications", &[readable(built.config)]);
}

#[test]
fn scaling_and_a_renewed_certificate_are_no_new_revision() {
    let mut found = everything();
    let revision = |root: &str, found: &Found| {
        let valid = valid(&registry(root), None, found).unwrap();
        let materials = materials(&valid, found).unwrap();
        let built = build(&valid, materials, None);
        let mounted = mounted_hash(&mounts(&built.deployment), found);
        (built.revision, mounted)
    };
    let root = |replicas: i32| {
        format!(
            "spec: {{image: 'registry:3.1.1', replicas: {replicas}, tls: {{mode: Secret, secretRef: {{name: my-tls}}}},
              storage: {{s3: {{bucket: b, region: eu-west-1}}}}}}"
        )
    };
    let (one, mounted) = revision(&root(1), &found);
    assert_eq!(revision(&root(3), &found), (one.clone(), mounted.clone()));
    crate::registry::cases::secret(&mut found, "my-tls", &[("tls.crt", "renewed"), ("tls.key", "key")]);
    let (renewed, mounted_then) = revision(&root(1), &found);
    assert_eq!(renewed, one);
    assert_ne!(mounted_then, mounted);
    let keys = [("REGISTRY_STORAGE_S3_ACCESSKEY", "AKID"), ("REGISTRY_STORAGE_S3_SECRETKEY", "rotated")];
    crate::registry::cases::secret(&mut found, "image-registry-private-configuration-user", &keys);
    assert_ne!(revision(&root(1), &found).0, one);
}

#[test]
fn pods_that_cannot_share_their_store_stay_alone_also_after_a_rollback() {
    let found = everything();
    let valid = valid(&registry("spec: {image: 'registry:3.1.1'}"), None, &found).unwrap();
    let built = build(&valid, materials(&valid, &found).unwrap(), None);
    let is = Running { revision: built.revision, since: SINCE.parse().unwrap() };
    let made = read(&deployment_of(&valid, built.deployment, &is, 5, ""));
    assert_eq!(made.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(Running::of(&made), Some(is));
}

#[test]
fn how_long_pods_may_take_is_no_new_revision() {
    let found = everything();
    let built = |timeout: &str| {
        let root = format!("spec: {{image: 'registry:3.1.1', upgrade: {{healthTimeout: {timeout}}}}}");
        let valid = valid(&registry(&root), None, &found).unwrap();
        let built = build(&valid, materials(&valid, &found).unwrap(), None);
        let is = Running { revision: built.revision.clone(), since: SINCE.parse().unwrap() };
        let made = read(&deployment_of(&valid, built.deployment, &is, 1, ""));
        (built.revision, made.spec.unwrap().progress_deadline_seconds.unwrap())
    };
    let (revision, seconds) = built("20m");
    assert_eq!(seconds, 1200);
    // Above minReadySeconds, or the API server refuses it.
    assert_eq!(built("1s"), (revision, 11));
}

#[test]
fn pods_are_started_anew_for_what_they_mount_and_not_for_what_is_wanted() {
    let mut found = everything();
    let root = "spec: {image: 'registry:3.1.1', tls: {mode: Secret, secretRef: {name: my-tls}},
      auth: {type: Htpasswd, secretRef: {name: users}}}";
    let valid = valid(&registry(root), None, &found).unwrap();
    let mounts = mounts(&build(&valid, materials(&valid, &found).unwrap(), None).deployment);
    let mount = |key: &str| Mount { secret: "my-tls".to_owned(), key: key.to_owned() };
    assert_eq!(mounts, [mount("tls.crt"), mount("tls.key")]);
    let before = mounted_hash(&mounts, &found).unwrap();
    let pair = [("tls.crt", "renewed"), ("tls.key", "key")];
    crate::registry::cases::secret(&mut found, "other-tls", &pair);
    assert_eq!(mounted_hash(&mounts, &found), Some(before.clone()));
    crate::registry::cases::secret(&mut found, "my-tls", &pair);
    assert_ne!(mounted_hash(&mounts, &found), Some(before));
    found.secrets.remove("my-tls");
    assert_eq!(mounted_hash(&mounts, &found), None);
}

#[test]
fn an_empty_proxy_is_none() {
    let root = "spec: {image: 'registry:2.8.3', proxy: {http: '', https: 'http://proxy:3128', noProxy: ''}}";
    let found = everything();
    let valid = valid(&registry(root), None, &found).unwrap();
    let built = build(&valid, materials(&valid, &found).unwrap(), None);
    let pods = built.deployment.template.spec.unwrap();
    let names: Vec<_> = pods.containers[0].env.iter().flatten().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["HTTPS_PROXY"]);
}
