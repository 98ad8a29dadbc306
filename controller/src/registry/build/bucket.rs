//! The BucketClaim and BucketAccess of COSI, in its two shapes. The claim is owned by the Registry only where its author
//! said that the store goes with it; the access is no store. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject};
use serde_json::{Value, json};

use super::metadata;
use crate::apply::Child;
use crate::crd::StoreManagement;
use crate::registry::foreign::CosiVersion;
use crate::registry::names::Names;
use crate::registry::validate::{Store, Valid};

pub(super) fn build(valid: &Valid) -> Vec<Child> {
    let Store::Bucket { class, access_class, version } = &valid.store else { return Vec::new() };
    let names = &valid.names;
    let claim = json!({"bucketClassName": class, "protocols": ["S3"]});
    let access = match version {
        CosiVersion::V1alpha1 => json!({
            "bucketClaimName": names.bucket_claim(),
            "bucketAccessClassName": access_class,
            "credentialsSecretName": names.bucket_credentials(),
            "protocol": "S3",
        }),
        CosiVersion::V1alpha2 => json!({
            "bucketClaims": [{
                "bucketClaimName": names.bucket_claim(),
                "accessMode": "ReadWrite",
                "accessSecretName": names.bucket_credentials(),
            }],
            "bucketAccessClassName": access_class,
            "protocol": "S3",
        }),
    };
    let owner = (valid.keep_store == StoreManagement::Managed).then_some(&valid.owner);
    vec![
        child(names, version.claims(), names.bucket_claim(), owner, &claim),
        child(names, version.accesses(), names.bucket_access(), Some(&valid.owner), &access),
    ]
}

/// By its name alone, to remove it.
#[must_use]
pub(crate) fn named_claim(names: &Names, version: CosiVersion) -> Child {
    child(names, version.claims(), names.bucket_claim(), None, &json!({}))
}

/// By its name alone, to remove it.
#[must_use]
pub(crate) fn named_access(names: &Names, version: CosiVersion) -> Child {
    child(names, version.accesses(), names.bucket_access(), None, &json!({}))
}

fn child(
    names: &Names,
    resource: ApiResource,
    name: String,
    owner: Option<&OwnerReference>,
    spec: &Value,
) -> Child {
    let mut object = DynamicObject::new(&name, &resource).data(json!({"spec": spec}));
    object.metadata = metadata(names, name, owner);
    Child::foreign(resource, object)
}
