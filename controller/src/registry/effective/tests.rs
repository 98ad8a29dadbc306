//! The three layers on top of each other.

use super::*;
use crate::crd::{AuthType, TlsMode};

fn spec(yaml: &str) -> RegistrySpec {
    serde_saphyr::from_str(yaml).unwrap()
}

fn merged(template: &str, object: &str) -> Effective {
    merge(Some(&spec(template)), &spec(object))
}

#[test]
fn the_object_wins_over_the_template_and_the_template_over_the_tier() {
    let effective = merged(
        "{capacityTier: Large, replicas: 3, image: 'registry:2', service: {type: NodePort, port: 5000}}",
        "{replicas: 5, service: {port: 443}, resources: {limits: {cpu: '8'}}}",
    );
    assert_eq!((effective.spec.replicas, effective.tier_replicas), (Some(5), Some(3)));
    assert_eq!(effective.spec.image.as_deref(), Some("registry:2"));
    let service = effective.spec.service.unwrap();
    assert_eq!((service.type_, service.port), (Some(crate::crd::ServiceType::NodePort), Some(443)));
    let limits = effective.spec.resources.unwrap().limits.unwrap();
    assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("8", "4Gi"));
}

#[test]
fn a_backend_of_the_object_drops_the_templates() {
    let storage = |template: &str, object: &str| merged(template, object).spec.storage.unwrap();
    let both = storage(
        "storage: {managementState: Managed, bucketClassName: c, bucketAccessClass: a}",
        "storage: {emptyDir: {}}",
    );
    assert_eq!(both.bucket_class_name, None);
    assert_eq!(both.bucket_access_class, None);
    assert!(both.empty_dir.is_some() && both.management_state.is_some());

    let none_named =
        storage("storage: {s3: {bucket: b, region: r}}", "storage: {managementState: Unmanaged}");
    assert_eq!(none_named.s3.unwrap().bucket, "b");

    let same = storage(
        "storage: {s3: {bucket: b, region: r, encrypt: true, trustedCA: {name: ca}}}",
        "storage: {s3: {bucket: other, region: r2}}",
    );
    let s3 = same.s3.unwrap();
    assert_eq!((s3.bucket.as_str(), s3.region.as_str(), s3.encrypt), ("other", "r2", Some(true)));
    assert_eq!(s3.trusted_ca.unwrap().name, "ca");

    let named =
        storage("storage: {pvc: {size: 1Gi, storageClassName: fast}}", "storage: {pvc: {claim: mine}}");
    assert_eq!(
        named.pvc.unwrap(),
        PersistentVolume { claim: Some("mine".into()), ..PersistentVolume::default() }
    );
}

#[test]
fn another_kind_of_certificate_or_login_is_not_mixed_with_the_templates() {
    let effective = merged(
        "{tls: {mode: CertManager, issuerRef: {name: ca}}, auth: {type: Htpasswd, secretRef: {name: users}}}",
        "{tls: {mode: None}, auth: {type: None}}",
    );
    assert_eq!(effective.spec.tls, Some(Tls { mode: TlsMode::None, ..Tls::default() }));
    assert_eq!(effective.spec.auth, Some(Auth { type_: AuthType::None, ..Auth::default() }));
}

#[test]
fn a_version_belongs_to_the_image_that_it_was_written_for() {
    let effective = merged("{image: 'registry@sha256:00', version: 3.0.0}", "image: 'registry:2.8.3'");
    assert_eq!(effective.spec.version, None);
    let effective = merged("{image: 'registry@sha256:00', version: 3.0.0}", "{}");
    assert_eq!(effective.spec.version.as_deref(), Some("3.0.0"));
}

#[test]
fn without_layers_there_is_nothing() {
    let effective = merge(None, &RegistrySpec::default());
    assert_eq!(effective, Effective { spec: RegistrySpec::default(), tier_replicas: None });
}
