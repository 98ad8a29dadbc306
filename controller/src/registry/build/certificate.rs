//! cert-manager's Certificate for the registry: its Ingress and its Service by every name they have. Pure.

use kube::api::DynamicObject;
use larder_wire::units::format_duration;
use serde_json::json;

use super::{Wanted, metadata};
use crate::apply::Child;
use crate::registry::foreign::certificates;
use crate::registry::names::Names;
use crate::registry::validate::{Certificate, Valid};

pub(super) fn build(valid: &Valid) -> Option<Child> {
    let Certificate::Issued { issuer, renew_before } = &valid.certificate else { return None };
    let names = &valid.names;
    let service = [names.host(), format!("{}.cluster.local", names.host()), names.workload()];
    let hosts: Vec<String> = valid.spec.ingress.iter().map(|it| it.host.clone()).chain(service).collect();
    let mut spec = json!({
        "secretName": names.certificate(),
        "dnsNames": hosts,
        "duration": "2160h",
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "usages": ["digital signature", "server auth"],
        "issuerRef": {
            "name": issuer.name,
            "kind": issuer.kind.as_deref().unwrap_or("Issuer"),
            "group": issuer.group.as_deref().unwrap_or("cert-manager.io"),
        },
    });
    if let Some(before) = renew_before {
        spec["renewBefore"] = json!(format_duration(*before));
    }
    let mut child = named(names);
    child.object.metadata = metadata(names, names.certificate(), Some(&valid.owner));
    child.object.data = json!({"spec": spec});
    Some(child)
}

/// Made with the foundation; here only whether one may be left over.
pub(super) fn wanted(valid: &Valid) -> Wanted {
    match valid.certificate {
        Certificate::Issued { .. } => Wanted::yes(named(&valid.names)),
        Certificate::None | Certificate::Given(_) => Wanted::no(named(&valid.names)),
    }
}

/// By its name alone, to remove it.
#[must_use]
pub(crate) fn named(names: &Names) -> Child {
    let resource = certificates();
    let mut object = DynamicObject::new(&names.certificate(), &resource);
    object.metadata = metadata(names, names.certificate(), None);
    Child::foreign(resource, object)
}
