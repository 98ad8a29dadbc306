//! The APIs of others that a Registry may use, COSI's and cert-manager's: which are there, and what their objects are
//! called. Their types are not ours; objects are read by path.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::Client;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

const COSI: &str = "objectstorage.k8s.io";
const CERT_MANAGER: &str = "cert-manager.io";

/// The two shapes of COSI that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CosiVersion {
    V1alpha1,
    V1alpha2,
}

impl CosiVersion {
    const fn as_str(self) -> &'static str {
        match self {
            Self::V1alpha1 => "v1alpha1",
            Self::V1alpha2 => "v1alpha2",
        }
    }

    fn resource(self, kind: &str, plural: &str) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(COSI, self.as_str(), kind), plural)
    }

    #[must_use]
    pub(crate) fn claims(self) -> ApiResource {
        self.resource("BucketClaim", "bucketclaims")
    }

    #[must_use]
    pub(crate) fn accesses(self) -> ApiResource {
        self.resource("BucketAccess", "bucketaccesses")
    }

    #[must_use]
    pub(crate) fn buckets(self) -> ApiResource {
        self.resource("Bucket", "buckets")
    }
}

#[must_use]
pub(crate) fn certificates() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(CERT_MANAGER, "v1", "Certificate"),
        "certificates",
    )
}

/// The newest shape of COSI that the cluster serves.
pub(super) async fn cosi(client: &Client) -> Result<Option<CosiVersion>, Error> {
    let served = versions(client, COSI).await?;
    let newest_first = [CosiVersion::V1alpha2, CosiVersion::V1alpha1];
    Ok(newest_first.into_iter().find(|version| served.iter().any(|served| served == version.as_str())))
}

pub(super) async fn has_cert_manager(client: &Client) -> Result<bool, Error> {
    Ok(versions(client, CERT_MANAGER).await?.iter().any(|version| version == "v1"))
}

/// None when nobody serves the group.
async fn versions(client: &Client, group: &str) -> Result<Vec<String>, Error> {
    let what = || format!("discover {group}");
    let request = http::Request::get(format!("/apis/{group}"))
        .body(Vec::new())
        .map_err(|error| Error::api(what())(kube::Error::HttpError(error)))?;
    match client.request::<APIGroup>(request).await {
        Ok(group) => Ok(group.versions.into_iter().map(|version| version.version).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(Error::api(what())(error)),
    }
}

/// What v1alpha1 writes into its Secret, under the key `BucketInfo`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BucketInfo {
    /// The Bucket object; its status has the bucket's real name.
    pub bucket_name: String,
    #[serde(rename = "secretS3")]
    pub s3: Option<BucketKeys>,
}

#[derive(Deserialize)]
pub(crate) struct BucketKeys {
    #[serde(default)]
    pub endpoint: String,
    #[serde(default)]
    pub region: String,
    #[serde(rename = "accessKeyID")]
    pub access_key: String,
    #[serde(rename = "accessSecretKey")]
    pub secret_key: String,
}

/// None when the Secret does not hold it.
#[must_use]
pub(crate) fn bucket_info(secret: &Secret) -> Option<BucketInfo> {
    #[derive(Deserialize)]
    struct Whole {
        spec: BucketInfo,
    }
    let bytes = &secret.data.as_ref()?.get("BucketInfo")?.0;
    serde_json::from_slice::<Whole>(bytes).ok().map(|whole| whole.spec)
}

/// What stands at a path in an object of theirs: `/status/readyToUse`.
#[must_use]
pub(crate) fn at<'o>(object: &'o DynamicObject, path: &str) -> Option<&'o Value> {
    object.data.pointer(path)
}

#[must_use]
pub(crate) fn text_at<'o>(object: &'o DynamicObject, path: &str) -> Option<&'o str> {
    at(object, path).and_then(Value::as_str)
}

#[must_use]
pub(crate) fn is_true_at(object: &DynamicObject, path: &str) -> bool {
    at(object, path).and_then(Value::as_bool) == Some(true)
}
