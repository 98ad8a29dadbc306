//! The apply step of a NodeCache: what was decided is put in place. A refusal of the API server is an outcome to be
//! told; the kill switch goes through whatever else is refused. Must not decide anything.

use crate::apply::{Child, apply, apply_all};
use crate::context::Context;
use crate::crd::{NodeCache, NodeManagement};
use crate::error::{Error, chain};

use super::build;
use super::dereference::{self, Dereferenced};
use super::validate::{Effective, Refusal};
use super::withdraw::{self, Told};

/// Says what is in place, or why it is not.
pub(super) async fn carry_out(
    node_cache: &NodeCache,
    context: &Context,
    known: &Dereferenced,
    decided: Result<Effective, Refusal>,
) -> Result<Result<Effective, Refusal>, Error> {
    let is_off = node_cache.spec.management_state == Some(NodeManagement::Removed);
    match &decided {
        Ok(effective) => match apply_all(context, &build::build(effective)).await {
            Ok(_) => {}
            Err(error) if error.is_refusal() => {
                if is_off {
                    apply(context, &build::settings(effective)).await?;
                }
                return Ok(Err(Refusal::Api(chain(&error))));
            }
            Err(error) => return Err(error),
        },
        // Refused, agents go on with what they have; but what was asked for in an emergency holds.
        Err(_) if is_off && known.live.daemon_set.is_some() => {
            let controller = dereference::controller(context).await?;
            if let Some(Told { config_map, .. }) =
                withdraw::absent(node_cache, &known.live, controller, &context.config.agent_namespace)
            {
                apply(context, &Child::of(&config_map)).await?;
            }
        }
        Err(_) => {}
    }
    Ok(decided)
}
