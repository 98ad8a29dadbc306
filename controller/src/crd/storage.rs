//! Where a registry keeps its images. One object shows at most one backend; whether replicas can share it also depends
//! on the template, so that is checked on the effective spec. Must not create or delete a store.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cel;
use super::references::NameReference;

/// At most one backend; none is an emptyDir.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(has(self.emptyDir) ? 1 : 0) + (has(self.pvc) ? 1 : 0) + (has(self.s3) ? 1 : 0) + \
         ((has(self.bucketClassName) || has(self.bucketAccessClass)) ? 1 : 0) <= 1"
    ).message("storage takes one backend: keep one of emptyDir, pvc, s3, bucketClassName with bucketAccessClass, \
               and set the others to null"),
    validation = Rule::new("has(self.bucketClassName) == has(self.bucketAccessClass)")
        .message("storage.bucketClassName and storage.bucketAccessClass go together: set both or neither")
)]
pub struct RegistryStorage {
    /// Managed: a claim that the controller made goes when the Registry is deleted or Removed. Unmanaged, also where
    /// nothing is written: no store is ever deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_state: Option<StoreManagement>,
    /// Gone with the pod: for development.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc: Option<PersistentVolume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// The BucketClass from which a bucket is claimed; with `bucketAccessClass`.
    #[x_kube(
        validation = cel::object_name("storage.bucketClassName"),
        validation = cel::immutable("storage.bucketClassName", "set it to null first, then claim the new bucket")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_class_name: Option<String>,
    /// The BucketAccessClass by which the bucket is accessed.
    #[x_kube(
        validation = cel::object_name("storage.bucketAccessClass"),
        validation = cel::immutable("storage.bucketAccessClass", "set it to null first, then ask for the new access")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_access_class: Option<String>,
}

/// Who may delete the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StoreManagement {
    Managed,
    #[default]
    Unmanaged,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// Beyond it the kubelet evicts the pod: `10Gi`.
    #[x_kube(validation = cel::positive_quantity("storage.emptyDir.sizeLimit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<String>,
}

/// A PersistentVolumeClaim of yours by name, or one that is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.claim) != has(self.size)")
        .message("storage.pvc needs either claim, the name of a PersistentVolumeClaim of yours, or size, to make one"),
    validation = Rule::new("!has(self.claim) || (!has(self.storageClassName) && !has(self.accessModes))")
        .message("storage.pvc.storageClassName and accessModes are for a claim that is made: remove them beside claim"),
    validation = Rule::new(
        "!has(self.size) || !has(oldSelf.size) || \
         (has(self.storageClassName) ? self.storageClassName : '') == \
         (has(oldSelf.storageClassName) ? oldSelf.storageClassName : '')"
    ).message("storage.pvc.storageClassName cannot change once the claim is made: set pvc to null first"),
    validation = Rule::new(
        "!has(self.size) || !has(oldSelf.size) || !isQuantity(self.size) || !isQuantity(oldSelf.size) || \
         quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0"
    ).message("storage.pvc.size cannot shrink: write the size it had or a larger one")
)]
pub struct PersistentVolume {
    /// The name of a claim in the Registry's namespace.
    #[x_kube(validation = cel::object_name("storage.pvc.claim"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// `100Gi`; may grow where the StorageClass allows it.
    #[x_kube(validation = cel::positive_quantity("storage.pvc.size"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The cluster's default where nothing is written.
    #[x_kube(validation = cel::object_name("storage.pvc.storageClassName"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// `ReadWriteOnce` where nothing is written; several replicas need `ReadWriteMany`.
    #[x_kube(validation = cel::access_modes("storage.pvc.accessModes"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_modes: Option<Vec<String>>,
}

/// A bucket of an S3-compatible service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.trustedCA) || has(self.regionEndpoint)")
        .message("storage.s3.trustedCA is for an endpoint of your own: set storage.s3.regionEndpoint or remove it"),
    validation = Rule::new(
        "!has(self.trustedCA) || !has(self.regionEndpoint) || self.regionEndpoint.startsWith('https://')"
    ).message("storage.s3.trustedCA needs an endpoint that starts with https://")
)]
pub struct S3 {
    /// An existing bucket.
    #[x_kube(validation = cel::word("storage.s3.bucket"))]
    pub bucket: String,
    /// What the service calls its region.
    #[x_kube(validation = cel::word("storage.s3.region"))]
    pub region: String,
    /// `https://host[:port]`, without the bucket; Amazon's own where nothing is written.
    #[x_kube(validation = cel::endpoint_url("storage.s3.regionEndpoint"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_endpoint: Option<String>,
    /// A ConfigMap with the endpoint's CA, key `ca-bundle.crt`, in the controller's namespace or the Registry's.
    #[serde(rename = "trustedCA", skip_serializing_if = "Option::is_none")]
    pub trusted_ca: Option<NameReference>,
    /// `bucket.host` instead of `host/bucket` at an endpoint of your own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_hosted_style: Option<bool>,
    /// Encrypted by the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<bool>,
    /// The parts of an upload, in MiB; the service's limit is 10,000 of them.
    #[x_kube(validation = cel::between("storage.s3.chunkSizeMiB", 5, 1024))]
    #[serde(rename = "chunkSizeMiB", skip_serializing_if = "Option::is_none")]
    pub chunk_size_mib: Option<i32>,
    /// A Secret with REGISTRY_STORAGE_S3_ACCESSKEY and REGISTRY_STORAGE_S3_SECRETKEY in the Registry's namespace;
    /// `image-registry-private-configuration-user` where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameReference>,
}

/// The one backend that a [`RegistryStorage`] names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StorageBackend<'s> {
    EmptyDir(Option<&'s EmptyDir>),
    Pvc(&'s PersistentVolume),
    S3(&'s S3),
    Bucket { class: &'s str, access_class: &'s str },
}

impl RegistryStorage {
    /// The backend; what is written first in this list wins, should an old object name two: s3, pvc, bucket, emptyDir.
    #[must_use]
    pub fn backend(&self) -> StorageBackend<'_> {
        match (&self.s3, &self.pvc, &self.bucket_class_name, &self.bucket_access_class) {
            (Some(s3), ..) => StorageBackend::S3(s3),
            (None, Some(pvc), ..) => StorageBackend::Pvc(pvc),
            (None, None, Some(class), Some(access_class)) => StorageBackend::Bucket { class, access_class },
            _ => StorageBackend::EmptyDir(self.empty_dir.as_ref()),
        }
    }
}
