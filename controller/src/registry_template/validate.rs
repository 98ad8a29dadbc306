//! The validate step of a RegistryTemplate: what no Registry could use, whatever it writes itself. Pure.

use crate::crd::{RegistrySpec, request_above_limit, tier};
use crate::registry::version;

/// What is wrong with a template, in words that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsound(pub(super) String);

/// # Errors
/// Everything that is wrong, joined.
pub(super) fn validate(settings: &RegistrySpec) -> Result<(), Unsound> {
    let wrong: Vec<String> = [image(settings), resources(settings)].into_iter().flatten().collect();
    if wrong.is_empty() { Ok(()) } else { Err(Unsound(wrong.join("; "))) }
}

/// A Registry may write its own version beside this image, but then the template says nothing of it.
fn image(settings: &RegistrySpec) -> Option<String> {
    let image = settings.image.as_deref()?;
    version::of_image(image, settings.version.as_deref()).err().map(|unsupported| unsupported.to_string())
}

fn resources(settings: &RegistrySpec) -> Option<String> {
    let effective = match settings.capacity_tier {
        Some(tier) => tier::registry(tier).resources_below(settings.resources.as_ref()),
        None => settings.resources.clone()?,
    };
    request_above_limit(&effective)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(settings: &str) -> Result<(), Unsound> {
        validate(&serde_saphyr::from_str(settings).unwrap())
    }

    #[test]
    fn what_every_registry_can_use_is_sound() {
        for settings in [
            "{}",
            "image: registry:2",
            "{image: 'registry@sha256:00', version: 3.1.1}",
            "{capacityTier: Small, resources: {limits: {memory: 2Gi}}}",
            "resources: {requests: {cpu: 1000m}, limits: {cpu: 1}}",
        ] {
            assert_eq!(verdict(settings), Ok(()), "{settings}");
        }
    }

    #[test]
    fn what_no_registry_could_use_is_told() {
        for (settings, part) in [
            ("image: registry:latest", "registry:latest names no version"),
            ("image: registry:2.7.1", "Distribution 2.7.1 is not supported"),
            (
                "{capacityTier: Large, resources: {limits: {memory: 1Gi}}}",
                "requests.memory 2Gi is above its limit 1Gi",
            ),
            (
                "resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}",
                "requests.cpu 2 is above its limit 1500m",
            ),
        ] {
            let told = verdict(settings).unwrap_err().0;
            assert!(told.contains(part), "{settings}: {told}");
        }
    }
}
