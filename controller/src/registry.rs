//! THE STORY of a Registry: read what it refers to -> effective spec -> valid? -> store and certificate -> build ->
//! decide which revision runs -> roll it out -> tell. Each stage stands in a file of its own and knows none of the others.

mod build;
#[cfg(test)]
mod cases;
pub mod config_file;
mod dereference;
mod effective;
mod foreign;
mod http_secret;
mod material;
mod names;
mod roll_out;
mod status;
mod trouble;
mod upgrade;
mod validate;
pub mod version;
mod watch;

use std::sync::Arc;

use kube::runtime::controller::Action;

use crate::context::Context;
use crate::crd::{ManagementState, Registry};
use crate::error::Error;
use roll_out::Plan;
use status::{Outcome, Ran};
use trouble::Stop;

pub use watch::watch;

/// Makes the cluster be as the Registry says, one step further, and tells how far it is.
///
/// # Errors
/// What passes by itself: the API server is away, or refuses for now.
pub async fn reconcile(registry: Arc<Registry>, context: Arc<Context>) -> Result<Action, Error> {
    if registry.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it, and a store that it does not own stays.
        return Ok(Action::await_change());
    }
    let mut registry = Registry::clone(&registry);
    let (live, ended) = match dereference::live(&context, &registry).await {
        Ok(live) => {
            let ended = advance(&context, &mut registry, &live).await;
            (live, ended)
        }
        Err(stop) => (dereference::Live::default(), Err(stop)),
    };
    let outcome = match ended {
        Ok(outcome) => outcome,
        Err(Stop::Trouble(trouble)) => Outcome::Trouble(trouble),
        Err(Stop::Fault(error)) => return Err(error),
    };
    status::report(&context, &registry, &live, &outcome).await
}

async fn advance(
    context: &Context,
    registry: &mut Registry,
    live: &dereference::Live,
) -> Result<Outcome, Stop> {
    let template = dereference::template(context, registry).await?;
    let known = template.as_ref().ok().and_then(Option::as_ref);
    let effective = effective::merge(known, registry.written());
    roll_out::let_go(context, registry, &effective.spec).await?;
    match effective.spec.management_state.unwrap_or_default() {
        ManagementState::Managed => {}
        ManagementState::Unmanaged => return Ok(Outcome::Unmanaged),
        ManagementState::Removed => {
            roll_out::take_away(context, registry, &effective.spec).await?;
            return Ok(Outcome::Removed);
        }
    }
    template?;
    let mut found = dereference::find(context, registry, &effective.spec).await?;
    let valid = validate::validate(registry, effective, &found, &context.config)?;
    // The store and the certificate come first: without them there is nothing to configure.
    roll_out::apply_all(context, &build::foundation(&valid)).await?;
    let http_secret = http_secret::ensure(context, registry).await?;
    let materials = material::gather(&valid, &found, http_secret)?;
    let spec_hash = material::spec_hash(&valid, &materials);
    let built = build::build(&valid, materials, None);
    let kept = dereference::kept(context, registry, &built.revision, &mut found).await?;
    let (decision, entrances) = {
        let is = upgrade::situation(registry, &valid, live, &built.revision, &spec_hash, kept.is_some());
        let decision = upgrade::decide(&is);
        let entrances = upgrade::entrances(&is, &decision);
        (decision, entrances)
    };
    let plan = Plan {
        valid: &valid,
        built: &built,
        decision: &decision,
        entrances,
        kept: kept.as_ref(),
        spec_hash: &spec_hash,
    };
    let done = roll_out::carry_out(context, registry, &plan, live, &found).await?;
    Ok(Outcome::Ran(Box::new(Ran { valid, found, done, spec_hash, revision: built.revision })))
}
