//! Registries for the stages' tests, made from YAML the way the story makes them. Test code only.

use std::collections::BTreeMap;

use clap::{Args, Command, FromArgMatches};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::dereference::{Found, FoundCertificate};
use super::effective;
use super::foreign::CosiVersion;
use super::material::{self, Materials};
use super::trouble::Trouble;
use super::validate::{Valid, validate};
use crate::config::Config;
use crate::crd::{Registry, RegistrySpec};

/// Registry `main` in `registry-system`, with this at its root beside the metadata.
pub(super) fn registry(root: &str) -> Registry {
    let mut root: Value = serde_saphyr::from_str(root).unwrap();
    root["apiVersion"] = json!("registry-operator.dev/v1alpha1");
    root["kind"] = json!("Registry");
    root["metadata"] = json!({
        "name": "main", "namespace": "registry-system", "uid": "11111111-2222-3333-4444-555555555555", "generation": 1,
    });
    serde_json::from_value(root).unwrap()
}

pub(super) fn spec(yaml: &str) -> RegistrySpec {
    serde_saphyr::from_str(yaml).unwrap()
}

pub(super) fn config() -> Config {
    let command = Config::augment_args(Command::new("run"));
    Config::from_arg_matches(&command.get_matches_from(["run"])).unwrap()
}

pub(super) fn secret(found: &mut Found, name: &str, data: &[(&str, &str)]) {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
    let data = Some(data.collect::<BTreeMap<_, _>>());
    found.secrets.insert(name.to_owned(), Secret { data, ..Secret::default() });
}

pub(super) fn foreign(data: Value) -> DynamicObject {
    serde_json::from_value(json!({"metadata": {"name": "x"}}))
        .map(|object: DynamicObject| object.data(data))
        .unwrap()
}

/// Everything that a case may name, as it should be.
pub(super) fn everything() -> Found {
    let mut found = Found::default();
    let keys = [("REGISTRY_STORAGE_S3_ACCESSKEY", "AKID\n"), ("REGISTRY_STORAGE_S3_SECRETKEY", "0123456789")];
    secret(&mut found, "image-registry-private-configuration-user", &keys);
    secret(&mut found, "users", &[("htpasswd", "alice:$2y$05$abc")]);
    secret(&mut found, "token-roots", &[("tls.crt", "-----BEGIN CERTIFICATE-----")]);
    secret(&mut found, "valkey", &[("password", "on")]);
    for name in ["main-registry-tls", "my-tls"] {
        secret(&mut found, name, &[("tls.crt", "certificate"), ("tls.key", "key")]);
    }
    let ca = ("ca-bundle.crt".to_owned(), "-----BEGIN CERTIFICATE-----\nCA\n".to_owned());
    found.trusted_ca = Some(ConfigMap { data: Some(BTreeMap::from([ca])), ..ConfigMap::default() });
    found.certificate = FoundCertificate {
        is_installed: true,
        live: Some(foreign(
            json!({"status": {"conditions": [{"type": "Ready", "status": "True", "message": "up to date"}]}}),
        )),
    };
    found
}

/// COSI, served and ready.
pub(super) fn with_bucket(version: CosiVersion) -> Found {
    let mut found = everything();
    found.bucket.version = Some(version);
    let status = match version {
        CosiVersion::V1alpha1 => json!({"bucketReady": true, "accessGranted": true}),
        CosiVersion::V1alpha2 => json!({"readyToUse": true}),
    };
    found.bucket.claim = Some(foreign(json!({"spec": {"bucketClassName": "my-s3-class"}, "status": status})));
    let access = json!({"spec": {"bucketAccessClassName": "my-s3-access-class"}, "status": status});
    found.bucket.access = Some(foreign(access));
    let info = json!({"spec": {"bucketName": "bucket-object", "authenticationType": "Key", "protocols": ["s3"], "secretS3": {
        "endpoint": "https://s3.example:9000", "region": "", "accessKeyID": "COSI", "accessSecretKey": "cosi-secret",
    }}});
    found.bucket.bucket = Some(foreign(json!({"status": {"bucketID": "real-bucket"}})));
    match version {
        CosiVersion::V1alpha1 => {
            secret(&mut found, "main-bucket-credentials", &[("BucketInfo", &info.to_string())]);
        }
        CosiVersion::V1alpha2 => secret(
            &mut found,
            "main-bucket-credentials",
            &[
                ("COSI_PROTOCOL", "S3"),
                ("COSI_S3_BUCKET_ID", "real-bucket"),
                ("COSI_S3_ENDPOINT", "https://s3.example:9000"),
                ("COSI_S3_REGION", "eu-1"),
                ("COSI_S3_ADDRESSING_STYLE", "virtual"),
                ("COSI_S3_ACCESS_KEY_ID", "COSI"),
                ("COSI_S3_ACCESS_SECRET_KEY", "cosi-secret"),
                ("COSI_CERTIFICATE_AUTHORITY", "-----BEGIN CERTIFICATE-----\nCOSI\n"),
            ],
        ),
    }
    found
}

/// The story up to the valid spec.
pub(super) fn valid(registry: &Registry, template: Option<&str>, found: &Found) -> Result<Valid, Trouble> {
    let template = template.map(spec);
    validate(registry, effective::merge(template.as_ref(), registry.written()), found, &config())
}

pub(super) fn materials(valid: &Valid, found: &Found) -> Result<Materials, Trouble> {
    material::gather(valid, found, "0".repeat(64).into())
}
