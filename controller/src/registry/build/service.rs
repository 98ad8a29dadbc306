//! The Service that clients reach, and the metrics' port: on the same Service inside the cluster, on one of its own when
//! that Service leaves it, since that port also tells too much of the process. Pure.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{METRICS_PORT, selector_labels};
use super::{Wanted, metadata};
use crate::apply::Child;
use crate::crd::ServiceType;
use crate::registry::names::Names;
use crate::registry::validate::{Certificate, Valid};

const DEFAULT_PORT: i32 = 5000;

pub(super) fn build(valid: &Valid) -> Child {
    let names = &valid.names;
    let (type_, port) = exposed(valid);
    let scheme = if valid.certificate == Certificate::None { "http" } else { "https" };
    let mut ports = vec![ServicePort {
        name: Some("registry".to_owned()),
        port,
        target_port: Some(IntOrString::String("registry".to_owned())),
        app_protocol: Some(scheme.to_owned()),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }];
    if carries_metrics(valid) {
        ports.push(metrics_port());
    }
    let mut service =
        Service { metadata: metadata(names, names.workload(), Some(&valid.owner)), ..Service::default() };
    service.metadata.annotations =
        valid.spec.service.as_ref().and_then(|service| service.annotations.clone());
    service.spec = Some(ServiceSpec {
        type_: Some(word(type_).to_owned()),
        selector: Some(selector_labels(names)),
        ports: Some(ports),
        ..ServiceSpec::default()
    });
    Child::of(&service)
}

pub(super) fn metrics(valid: &Valid) -> Wanted {
    let names = &valid.names;
    if carries_metrics(valid) {
        return Wanted::no(metrics_named(names));
    }
    Wanted::yes(Child::of(&Service {
        metadata: metadata(names, names.metrics(), Some(&valid.owner)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector_labels(names)),
            ports: Some(vec![metrics_port()]),
            ..ServiceSpec::default()
        }),
        status: None,
    }))
}

pub(super) fn named(names: &Names) -> Child {
    Child::of(&Service { metadata: metadata(names, names.workload(), None), ..Service::default() })
}

pub(super) fn metrics_named(names: &Names) -> Child {
    Child::of(&Service { metadata: metadata(names, names.metrics(), None), ..Service::default() })
}

fn carries_metrics(valid: &Valid) -> bool {
    let (type_, port) = exposed(valid);
    type_ == ServiceType::ClusterIP && port != METRICS_PORT
}

fn exposed(valid: &Valid) -> (ServiceType, i32) {
    let service = valid.spec.service.as_ref();
    let port = service.and_then(|service| service.port).unwrap_or(DEFAULT_PORT);
    (service.and_then(|service| service.type_).unwrap_or_default(), port)
}

fn metrics_port() -> ServicePort {
    ServicePort {
        name: Some("metrics".to_owned()),
        port: METRICS_PORT,
        target_port: Some(IntOrString::String("metrics".to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

const fn word(type_: ServiceType) -> &'static str {
    match type_ {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    }
}
