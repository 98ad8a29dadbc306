//! The Service that clients push to. Pure.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, pod};
use crate::apply::Child;
use crate::crd::ServiceType;
use crate::registry_gateway::validate::Valid;

pub(super) fn build(valid: &Valid) -> Child {
    let written = valid.spec.service.clone().unwrap_or_default();
    let (scheme, default_port) = if valid.tls.is_some() { ("https", 443) } else { ("http", 5000) };
    let mut metadata = metadata(valid, valid.workload());
    metadata.annotations = written.annotations;
    Child::of(&Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(word(written.type_.unwrap_or_default()).to_owned()),
            selector: Some(pod::selector_labels(&valid.gateway)),
            ports: Some(vec![ServicePort {
                name: Some("gateway".to_owned()),
                port: written.port.unwrap_or(default_port),
                target_port: Some(IntOrString::String("gateway".to_owned())),
                app_protocol: Some(scheme.to_owned()),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    })
}

const fn word(type_: ServiceType) -> &'static str {
    match type_ {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    }
}
