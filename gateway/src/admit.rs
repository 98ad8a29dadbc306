//! THE STORY of a push's last request, the one that makes an image: policy, manifest, sizes, places, the
//! registry, and what became of it. Must not hold detail: each stage stands in a file of its own.

mod ask;
mod put;

use http::Response;

use crate::audit::Record;
use crate::body::Body;
use crate::limits::{self, Limits};
use crate::manifest::Manifest;
use crate::policy::Action;
use crate::refuse::Refusal;
use crate::serve::Gateway;
use crate::sizes::{self, Unmeasured};
use crate::tags::Reservation;
pub use put::ManifestPut;

/// Answers `PUT /v2/NAME/manifests/REFERENCE`: the registry's own answer where the push is within its limits.
pub async fn put_manifest(gateway: &Gateway, put: ManifestPut) -> Response<Body> {
    let policy = gateway.policy.current();
    let limits = policy.limits(&put.name);
    let mut record = Record::begin(&put, &policy);
    let checked = check(gateway, &put, &limits, &mut record).await;
    record.checked(&gateway.metrics);
    let reservation = match checked {
        Ok(reservation) => reservation,
        Err(stopped) if policy.action == Action::Audit => {
            record.let_through(&stopped);
            gateway.tags.uncounted(put.push(&limits), &put.caller)
        }
        Err(Unmeasured::Refused(refusal)) => return record.refused(gateway, refusal),
        Err(Unmeasured::Unauthorized) => {
            let answer = ask::the_registry_itself(gateway, &put).await;
            return record.unauthorized(gateway, answer);
        }
    };
    record.warn_of(reservation.used(), &put.name);
    let answer = ask::forward(gateway, &put, reservation).await;
    record.answered(gateway, answer)
}

/// Everything that is known before the registry is asked to take it.
async fn check(
    gateway: &Gateway,
    put: &ManifestPut,
    limits: &Limits,
    record: &mut Record,
) -> Result<Reservation, Unmeasured> {
    let manifest = Manifest::pushed(&put.headers, &put.body).map_err(Refusal::from)?;
    let (from, of) = ((&*gateway.upstream, &*gateway.sizes), (&put.name, &put.caller));
    record.size = sizes::measure(from, of, limits, (&put.digest(), &manifest)).await?;
    let size = record.size.unwrap_or(0);
    limits::image(&put.name, limits.image_bytes.as_ref(), size)?;
    record.warnings.extend(limits::image_warning(&put.name, limits.image_bytes.as_ref(), size));
    ask::for_a_place(gateway, put, limits, record).await
}

#[cfg(test)]
mod tests;
