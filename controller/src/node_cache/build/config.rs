//! What running agents read again when it changes: the settings with the authorities beside them, and the credentials.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use larder_wire::settings::render;

use super::SETTINGS_KEY;
use crate::node_cache::upstreams;
use crate::node_cache::validate::Effective;

pub(super) fn config_map(effective: &Effective) -> ConfigMap {
    let mut data = effective.authorities.clone();
    data.insert(SETTINGS_KEY.to_owned(), render(&effective.settings));
    ConfigMap {
        metadata: super::metadata(effective, effective.child_name()),
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// One for all upstreams, so that another Cache needs no other mount.
pub(super) fn credentials(effective: &Effective) -> Secret {
    let mut metadata = super::metadata(effective, effective.credentials_name());
    metadata.annotations = upstreams::mark(&effective.shared);
    Secret {
        metadata,
        data: Some(effective.credentials.clone()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
