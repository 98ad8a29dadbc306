//! cert-manager's Certificate for the gateway's Service. Pure. The gateway reads a renewed one without a restart.

use kube::api::DynamicObject;
use serde_json::json;

use super::metadata;
use crate::apply::Child;
use crate::registry_gateway::dereference::certificates;
use crate::registry_gateway::validate::Valid;

pub(super) fn build(valid: &Valid) -> Option<Child> {
    let issuer = valid.issuer.as_ref()?;
    let name = valid.workload();
    let host = format!("{name}.{}.svc", valid.namespace);
    let mut spec = json!({
        "secretName": valid.tls,
        "dnsNames": [host, format!("{host}.cluster.local"), name],
        "duration": "2160h",
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "usages": ["digital signature", "server auth"],
        "issuerRef": {
            "name": issuer.name,
            "kind": issuer.kind.as_deref().unwrap_or("Issuer"),
            "group": issuer.group.as_deref().unwrap_or("cert-manager.io"),
        },
    });
    if let Some(before) = valid.spec.tls.as_ref().and_then(|tls| tls.renew_before.as_ref()) {
        spec["renewBefore"] = json!(before);
    }
    let mut child = named(valid);
    child.object.data = json!({"spec": spec});
    Some(child)
}

/// Without what it asks for: enough to remove it.
pub(super) fn named(valid: &Valid) -> Child {
    let (resource, name) = (certificates(), format!("{}-tls", valid.workload()));
    let mut object = DynamicObject::new(&name, &resource);
    object.metadata = metadata(valid, name);
    Child::foreign(resource, object)
}
