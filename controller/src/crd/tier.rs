//! The capacity guide as a table: replicas and resources for about 100, 1,000 and 5,000 pods that pull at once.
//! Requests are the guide's lower bounds, limits its upper ones. Must not decide whether replicas can share a store.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::words::CapacityTier;

type Amounts = BTreeMap<String, Quantity>;

/// What a tier gives where nothing is written.
#[derive(Clone, Debug, PartialEq)]
pub struct TierFigures {
    pub replicas: i32,
    pub resources: ResourceRequirements,
}

impl TierFigures {
    /// The tier's resources, and over them what is written, one by one: a memory limit leaves the tier's processors.
    #[must_use]
    pub fn resources_below(&self, written: Option<&ResourceRequirements>) -> ResourceRequirements {
        let join = |below: &Option<Amounts>, above: Option<&Amounts>| {
            let all = below.iter().chain(above).flatten();
            Some(all.map(|(name, amount)| (name.clone(), amount.clone())).collect())
        };
        ResourceRequirements {
            requests: join(&self.resources.requests, written.and_then(|it| it.requests.as_ref())),
            limits: join(&self.resources.limits, written.and_then(|it| it.limits.as_ref())),
            claims: written.and_then(|it| it.claims.clone()),
        }
    }
}

/// Of the registry container.
#[must_use]
pub fn registry(tier: CapacityTier) -> TierFigures {
    match tier {
        CapacityTier::Small => figures(1, ["500m", "512Mi"], ["1", "1Gi"]),
        CapacityTier::Medium => figures(2, ["1", "1Gi"], ["2", "2Gi"]),
        CapacityTier::Large => figures(3, ["2", "2Gi"], ["4", "4Gi"]),
    }
}

/// Of the gateway container.
#[must_use]
pub fn gateway(tier: CapacityTier) -> TierFigures {
    match tier {
        CapacityTier::Small => figures(1, ["200m", "256Mi"], ["500m", "1Gi"]),
        CapacityTier::Medium => figures(2, ["300m", "512Mi"], ["2", "2Gi"]),
        CapacityTier::Large => figures(3, ["500m", "1Gi"], ["4", "4Gi"]),
    }
}

/// Requests and limits as [cpu, memory].
fn figures(replicas: i32, requests: [&str; 2], limits: [&str; 2]) -> TierFigures {
    let quantities = |[cpu, memory]: [&str; 2]| {
        Some(BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ]))
    };
    let resources = ResourceRequirements {
        requests: quantities(requests),
        limits: quantities(limits),
        ..ResourceRequirements::default()
    };
    TierFigures { replicas, resources }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_tier_is_larger_in_everything() {
        for of in [registry, gateway] {
            let [small, medium, large] =
                [CapacityTier::Small, CapacityTier::Medium, CapacityTier::Large].map(of);
            assert_eq!([small.replicas, medium.replicas, large.replicas], [1, 2, 3]);
            for figures in [small, medium, large] {
                let requests = figures.resources.requests.unwrap();
                let limits = figures.resources.limits.unwrap();
                for (resource, request) in requests {
                    let parse =
                        |quantity: &Quantity| quantity.0.parse::<crate::quantity::Quantity>().unwrap();
                    assert!(parse(&request) < parse(&limits[&resource]), "{resource}");
                }
            }
        }
    }
}
