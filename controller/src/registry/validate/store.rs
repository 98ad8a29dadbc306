//! Whether the store can be had, and what of it can no longer change. Pure; never decides to delete one.

use std::fmt;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use crate::apply::is_ours;
use crate::crd::{PersistentVolume, RegistrySpec, S3, StorageBackend, StorageStatus};
use crate::quantity::Quantity;
use crate::registry::dereference::{Found, FoundBucket};
use crate::registry::foreign::{CosiVersion, text_at};
use crate::registry::names::Names;
use crate::registry::trouble::{Part, Trouble};

const SHARED: &str = "ReadWriteMany";
const EMPTY_DIR: &str = "emptyDir";

/// The one backend in use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Store {
    EmptyDir { limit: Option<String> },
    Claim { name: String, make: Option<NewClaim>, is_shared: bool },
    S3(S3),
    Bucket { class: String, access_class: String, version: CosiVersion },
}

/// A PersistentVolumeClaim that the controller makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewClaim {
    pub size: String,
    pub class: Option<String>,
    pub access_modes: Vec<String>,
}

impl Store {
    /// Whether several pods can have it at once.
    #[must_use]
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::EmptyDir { .. } => false,
            Self::Claim { is_shared, .. } => *is_shared,
            Self::S3(_) | Self::Bucket { .. } => true,
        }
    }

    /// Whether the old pod must be gone before the new one can have it.
    #[must_use]
    pub(crate) fn must_be_handed_over(&self) -> bool {
        matches!(self, Self::Claim { is_shared: false, .. })
    }

    /// As the status tells it.
    #[must_use]
    pub(crate) fn backend(&self) -> &'static str {
        match self {
            Self::EmptyDir { .. } => EMPTY_DIR,
            Self::Claim { .. } => "pvc",
            Self::S3(_) => "s3",
            Self::Bucket { .. } => "bucket",
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyDir { .. } => f.write_str("an emptyDir"),
            Self::Claim { name, .. } => write!(f, "PersistentVolumeClaim {name}, which is not {SHARED}"),
            Self::S3(s3) => write!(f, "bucket {}", s3.bucket),
            Self::Bucket { class, .. } => write!(f, "a bucket of class {class}"),
        }
    }
}

/// `before` is the store that the status tells of.
pub(super) fn validate(
    names: &Names,
    spec: &RegistrySpec,
    found: &Found,
    before: Option<&StorageStatus>,
) -> Result<Store, Trouble> {
    let storage = spec.storage.clone().unwrap_or_default();
    match storage.backend() {
        StorageBackend::EmptyDir(None) if before.is_some_and(|before| before.backend != EMPTY_DIR) => {
            let words = "no store is written any more, and the images are in one: name it again, or write \
                         storage.emptyDir to begin without them";
            Err(Trouble::invalid(Part::Storage, "StoreNotNamed", words))
        }
        StorageBackend::EmptyDir(dir) => {
            Ok(Store::EmptyDir { limit: dir.and_then(|dir| dir.size_limit.clone()) })
        }
        StorageBackend::S3(s3) => Ok(Store::S3(s3.clone())),
        StorageBackend::Pvc(PersistentVolume { claim: Some(name), .. }) => named(name, found.claim.as_ref()),
        StorageBackend::Pvc(volume) => made(names, volume, found.claim.as_ref()),
        StorageBackend::Bucket { class, access_class } => bucket(class, access_class, &found.bucket),
    }
}

fn named(name: &str, live: Option<&PersistentVolumeClaim>) -> Result<Store, Trouble> {
    let Some(live) = live else {
        let words = format!(
            "PersistentVolumeClaim {name} is not there: create it, or write storage.pvc.size to have one made"
        );
        return Err(Trouble::invalid(Part::Storage, "ClaimNotFound", words));
    };
    Ok(Store::Claim {
        name: name.to_owned(),
        make: None,
        is_shared: modes(live).iter().any(|mode| mode == SHARED),
    })
}

fn made(
    names: &Names,
    volume: &PersistentVolume,
    live: Option<&PersistentVolumeClaim>,
) -> Result<Store, Trouble> {
    let name = names.workload();
    let wanted = NewClaim {
        size: volume.size.clone().unwrap_or_default(),
        class: volume.storage_class_name.clone(),
        access_modes: volume.access_modes.clone().unwrap_or_else(|| vec!["ReadWriteOnce".to_owned()]),
    };
    if let Some(live) = live {
        can_become(&name, live, &wanted)?;
    }
    let is_shared = wanted.access_modes.iter().any(|mode| mode == SHARED);
    Ok(Store::Claim { name, make: Some(wanted), is_shared })
}

/// A template can change what the object's own rules keep from changing.
fn can_become(name: &str, live: &PersistentVolumeClaim, wanted: &NewClaim) -> Result<(), Trouble> {
    let refuse = |reason, words: String| Err(Trouble::invalid(Part::Storage, reason, words));
    if !is_ours(live) {
        let words = format!(
            "PersistentVolumeClaim {name} is there and was not made for this Registry: name it in storage.pvc.claim"
        );
        return refuse("ClaimNotOurs", words);
    }
    let spec = live.spec.as_ref();
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref());
    if wanted.class.is_some() && wanted.class.as_deref() != class {
        let words = format!(
            "PersistentVolumeClaim {name} has class {} and cannot get {}: its images would have to be moved",
            class.unwrap_or("none"),
            wanted.class.as_deref().unwrap_or_default()
        );
        return refuse("ClaimImmutable", words);
    }
    if modes(live) != wanted.access_modes {
        let words = format!(
            "PersistentVolumeClaim {name} has access modes {}, which cannot become {}",
            modes(live).join(", "),
            wanted.access_modes.join(", ")
        );
        return refuse("ClaimImmutable", words);
    }
    let has = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let sizes =
        (has.and_then(|has| Quantity::try_from(has).ok()), Quantity::try_from(&Written(wanted.size.clone())));
    match sizes {
        (_, Err(error)) => refuse("BadSize", format!("storage.pvc.size {:?}: {error}", wanted.size)),
        (Some(has), Ok(size)) if size < has => {
            refuse("ClaimImmutable", format!("PersistentVolumeClaim {name} cannot shrink to {}", wanted.size))
        }
        _ => Ok(()),
    }
}

fn modes(claim: &PersistentVolumeClaim) -> Vec<String> {
    claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default()
}

fn bucket(class: &str, access_class: &str, found: &FoundBucket) -> Result<Store, Trouble> {
    let Some(version) = found.version else {
        let words = "bucketClassName needs objectstorage.k8s.io, which this cluster does not serve";
        return Err(Trouble::waiting(Part::Storage, "CosiNotInstalled", words));
    };
    for (object, path, wanted) in [
        (&found.claim, "/spec/bucketClassName", class),
        (&found.access, "/spec/bucketAccessClassName", access_class),
    ] {
        let has = object.as_ref().and_then(|object| text_at(object, path));
        if let Some(has) = has.filter(|has| *has != wanted) {
            let words = format!(
                "a bucket of class {has} cannot become one of {wanted}: its images would have to be moved"
            );
            return Err(Trouble::invalid(Part::Storage, "BucketImmutable", words));
        }
    }
    Ok(Store::Bucket { class: class.to_owned(), access_class: access_class.to_owned(), version })
}
