//! What is missing is told by name, and never by value.

use serde_json::json;

use super::*;
use crate::registry::cases::{everything, foreign, materials, registry, secret, valid, with_bucket};
use crate::registry::trouble::Kind;

fn gathered(root: &str, found: &Found) -> Result<Materials, Trouble> {
    materials(&valid(&registry(root), None, found).unwrap(), found)
}

fn bucket_of(root: &str, found: &Found) -> config_file::S3 {
    match gathered(root, found).unwrap().store {
        config_file::Store::S3(s3) => s3,
        config_file::Store::FileSystem { .. } => panic!("no bucket"),
    }
}

const S3_SPEC: &str = "spec: {storage: {s3: {bucket: b, region: r, regionEndpoint: 'https://s3'}}}";
const BUCKET_SPEC: &str =
    "spec: {storage: {bucketClassName: my-s3-class, bucketAccessClass: my-s3-access-class}}";

#[test]
fn keys_come_from_the_named_secret_without_an_editors_newline() {
    let s3 = bucket_of(S3_SPEC, &everything());
    assert_eq!((s3.access_key.expose_secret(), s3.secret_key.expose_secret()), ("AKID", "0123456789"));
    assert!(s3.path_style);
}

#[test]
fn what_is_missing_is_named() {
    let mut found = everything();
    found.secrets.remove("image-registry-private-configuration-user");
    let missing = gathered(S3_SPEC, &found).unwrap_err();
    assert_eq!((missing.kind, missing.part, missing.reason), (Kind::Invalid, Part::Storage, "SecretMissing"));
    assert!(missing.message.contains("image-registry-private-configuration-user"), "{}", missing.message);

    secret(
        &mut found,
        "image-registry-private-configuration-user",
        &[("REGISTRY_STORAGE_S3_ACCESSKEY", "AKID")],
    );
    let missing = gathered(S3_SPEC, &found).unwrap_err();
    assert!(missing.message.contains("REGISTRY_STORAGE_S3_SECRETKEY"), "{}", missing.message);
    assert!(!missing.message.contains("AKID"));

    found.secrets.clear();
    found.trusted_ca = None;
    for (root, reason) in [
        ("spec: {auth: {type: Htpasswd, secretRef: {name: users}}}", "SecretMissing"),
        ("spec: {tls: {mode: Secret, secretRef: {name: my-tls}}}", "SecretMissing"),
        ("spec: {tls: {mode: CertManager, issuerRef: {name: ca}}}", "CertificateNotIssued"),
        (
            "spec: {metadataCache: {type: Redis, redis: {addrs: ['a:1'], passwordSecretRef: {name: v, key: p}}}}",
            "SecretMissing",
        ),
        (
            "spec: {auth: {type: Token, token: {realm: 'https://a', service: s, issuer: i, rootCertSecretRef: {name: t}}}}",
            "SecretMissing",
        ),
    ] {
        assert_eq!(gathered(root, &found).unwrap_err().reason, reason, "{root}");
    }
}

#[test]
fn a_ca_is_found_under_its_usual_keys() {
    let root =
        "spec: {storage: {s3: {bucket: b, region: r, regionEndpoint: 'https://s3', trustedCA: {name: ca}}}}";
    let mut found = everything();
    assert!(gathered(root, &found).unwrap().trusted_ca.unwrap().contains("CA"));
    found.trusted_ca.as_mut().unwrap().data = Some([("any.pem".into(), "BEGIN CERTIFICATE".into())].into());
    assert!(gathered(root, &found).is_ok());
    found.trusted_ca.as_mut().unwrap().data = Some([("ca.crt".into(), "nothing".into())].into());
    assert_eq!(gathered(root, &found).unwrap_err().reason, "TrustedCaMissing");
    found.trusted_ca = None;
    assert_eq!(gathered(root, &found).unwrap_err().reason, "TrustedCaMissing");
}

#[test]
fn a_claimed_bucket_is_waited_for_and_then_used_by_its_real_name() {
    for version in [CosiVersion::V1alpha1, CosiVersion::V1alpha2] {
        let mut found = with_bucket(version);
        let s3 = bucket_of(BUCKET_SPEC, &found);
        assert_eq!(s3.bucket, "real-bucket");
        assert_eq!(s3.endpoint.as_deref(), Some("https://s3.example:9000"));
        assert_eq!(s3.path_style, version == CosiVersion::V1alpha1);

        let error = json!({"status": {"error": {"message": "no space"}}});
        found.bucket.access = Some(foreign(error));
        let waiting = gathered(BUCKET_SPEC, &found).unwrap_err();
        assert_eq!((waiting.kind, waiting.reason), (Kind::Waiting, "BucketNotReady"));
        assert!(waiting.message.contains("no space"));
    }
}

#[test]
fn debug_output_hides_what_is_secret() {
    let told = format!("{:?}", gathered(S3_SPEC, &everything()).unwrap());
    assert!(!told.contains("0123456789") && !told.contains("AKID"), "{told}");
}

#[test]
fn a_bucket_without_a_name_of_its_own_is_waited_for() {
    for status in [json!({}), json!({"status": {"bucketID": ""}})] {
        let mut found = with_bucket(CosiVersion::V1alpha1);
        found.bucket.bucket = Some(foreign(status));
        let waiting = gathered(BUCKET_SPEC, &found).unwrap_err();
        assert_eq!((waiting.kind, waiting.reason), (Kind::Waiting, "BucketNotReady"));
    }
    let mut found = with_bucket(CosiVersion::V1alpha1);
    found.bucket.bucket = None;
    assert_eq!(gathered(BUCKET_SPEC, &found).unwrap_err().reason, "BucketNotReady");
}

fn hash(root: &str, found: &Found, http_secret: &str) -> String {
    let valid = valid(&registry(root), None, found).unwrap();
    spec_hash(&valid, &gather(&valid, found, http_secret.into()).unwrap())
}

#[test]
fn a_spec_is_tried_again_when_what_it_takes_from_elsewhere_changes() {
    let token = "auth: {type: Token, token: {realm: 'https://a', service: s, issuer: i,
      rootCertSecretRef: {name: token-roots}}}";
    for (fields, name, key) in [
        ("tls: {mode: Secret, secretRef: {name: my-tls}}", "my-tls", "tls.crt"),
        ("tls: {mode: Secret, secretRef: {name: my-tls}}", "my-tls", "tls.key"),
        ("auth: {type: Htpasswd, secretRef: {name: users}}", "users", "htpasswd"),
        (token, "token-roots", "tls.crt"),
    ] {
        let root = format!("spec: {{{fields}}}");
        let mut found = everything();
        let before = hash(&root, &found, "one");
        assert_eq!(hash(&root, &found, "one"), before);
        let data = found.secrets.get_mut(name).unwrap().data.as_mut().unwrap();
        data.get_mut(key).unwrap().0.push(b'!');
        assert_ne!(hash(&root, &found, "one"), before, "{name} {key}");
    }
}

#[test]
fn whoever_reads_the_status_cannot_try_passwords_on_it() {
    let found = everything();
    assert_ne!(hash(S3_SPEC, &found, "one"), hash(S3_SPEC, &found, "other"));
}
