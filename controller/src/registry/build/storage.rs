//! The PersistentVolumeClaim that is made when a size is written. Owned by the Registry only where its author said that
//! the store goes with it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::metadata;
use crate::apply::Child;
use crate::crd::StoreManagement;
use crate::registry::names::Names;
use crate::registry::validate::{Store, Valid};

pub(super) fn build(valid: &Valid) -> Option<Child> {
    let Store::Claim { name, make: Some(wanted), .. } = &valid.store else { return None };
    let owner = (valid.keep_store == StoreManagement::Managed).then_some(&valid.owner);
    Some(Child::of(&PersistentVolumeClaim {
        metadata: metadata(&valid.names, name.clone(), owner),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(wanted.access_modes.clone()),
            storage_class_name: wanted.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(wanted.size.clone()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }))
}

/// By its name alone, to remove it.
#[must_use]
pub(crate) fn named(names: &Names) -> Child {
    let metadata = metadata(names, names.workload(), None);
    Child::of(&PersistentVolumeClaim { metadata, ..PersistentVolumeClaim::default() })
}
