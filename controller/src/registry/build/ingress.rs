//! The Ingress. Its annotations let layers of any size through nginx, which otherwise ends pushes at 1 MiB; other ingress
//! controllers do not read them, and what the author writes wins. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::{Wanted, metadata};
use crate::apply::Child;
use crate::registry::names::Names;
use crate::registry::validate::{Certificate, Valid};

pub(super) fn build(valid: &Valid) -> Wanted {
    let names = &valid.names;
    let Some(wanted) = &valid.spec.ingress else { return Wanted::no(named(names)) };
    let secret = match &valid.certificate {
        Certificate::None => None,
        Certificate::Given(secret) => Some(secret.clone()),
        Certificate::Issued { .. } => Some(names.certificate()),
    };
    let mut annotations = defaults(secret.is_some());
    annotations.extend(wanted.annotations.clone().unwrap_or_default());
    let path = HTTPIngressPath {
        path: Some("/".to_owned()),
        path_type: "Prefix".to_owned(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend {
                name: names.workload(),
                port: Some(ServiceBackendPort { name: Some("registry".to_owned()), number: None }),
            }),
            resource: None,
        },
    };
    let mut ingress =
        Ingress { metadata: metadata(names, names.workload(), Some(&valid.owner)), ..Ingress::default() };
    ingress.metadata.annotations = Some(annotations);
    ingress.spec = Some(IngressSpec {
        ingress_class_name: wanted.class_name.clone(),
        rules: Some(vec![IngressRule {
            host: Some(wanted.host.clone()),
            http: Some(HTTPIngressRuleValue { paths: vec![path] }),
        }]),
        tls: secret.map(|secret| {
            vec![IngressTLS { hosts: Some(vec![wanted.host.clone()]), secret_name: Some(secret) }]
        }),
        default_backend: None,
    });
    Wanted::yes(Child::of(&ingress))
}

pub(super) fn named(names: &Names) -> Child {
    Child::of(&Ingress { metadata: metadata(names, names.workload(), None), ..Ingress::default() })
}

fn defaults(has_tls: bool) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        ("nginx.ingress.kubernetes.io/proxy-body-size".to_owned(), "0".to_owned()),
        ("nginx.ingress.kubernetes.io/proxy-request-buffering".to_owned(), "off".to_owned()),
    ]);
    if has_tls {
        annotations.insert("nginx.ingress.kubernetes.io/backend-protocol".to_owned(), "HTTPS".to_owned());
    }
    annotations
}
