//! The PodDisruptionBudget: a drained node never takes the last pod. Pure.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::selector;
use super::{Wanted, metadata};
use crate::apply::Child;
use crate::registry::names::Names;
use crate::registry::validate::Valid;

/// A single pod has none: it would keep its node from ever being drained.
pub(super) fn build(valid: &Valid) -> Wanted {
    if valid.replicas < 2 {
        return Wanted::no(named(&valid.names));
    }
    Wanted::yes(Child::of(&PodDisruptionBudget {
        metadata: metadata(&valid.names, valid.names.workload(), Some(&valid.owner)),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(1)),
            selector: Some(selector(&valid.names)),
            // A pod that never became ready is in nobody's way.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }))
}

pub(super) fn named(names: &Names) -> Child {
    let metadata = metadata(names, names.workload(), None);
    Child::of(&PodDisruptionBudget { metadata, ..PodDisruptionBudget::default() })
}
