//! The validate step of a Cache: whether nodes are given it, by whom, and if not, why not. Pure; follows the same rule
//! as the NodeCaches that select it.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::age::selects;
use super::dereference::Dereferenced;
use super::resolve::{self, LeftOut, Resolved};
use crate::crd::{Cache, NodeCache};

/// What becomes of a Cache.
pub(super) enum Standing {
    /// Nodes are given it by these NodeCaches.
    Served {
        resolved: Box<Resolved>,
        by: Vec<String>,
    },
    /// No NodeCache selects it; all is well with it otherwise.
    NotSelected {
        resolved: Box<Resolved>,
    },
    /// An elder Cache for the same registry is given to the same nodes.
    Duplicate {
        elder: String,
    },
    LeftOut(LeftOut),
}

pub(super) fn validate(cache: &Cache, known: &Dereferenced) -> Standing {
    let resolved = resolve::resolve(cache, known.secret.as_ref(), known.authorities.as_ref());
    if let Err(left_out @ LeftOut::Spec(_)) = resolved {
        return Standing::LeftOut(left_out);
    }
    let rivals = known.caches.iter().filter(|other| !are_apart(cache, other, &known.node_caches));
    if let Some(elder) = resolve::elder(cache, rivals) {
        return Standing::Duplicate { elder: elder.name_any() };
    }
    let by: Vec<String> = selecting(cache, &known.node_caches).into_iter().collect();
    match resolved {
        Err(left_out) => Standing::LeftOut(left_out),
        Ok(resolved) if by.is_empty() => Standing::NotSelected { resolved: Box::new(resolved) },
        Ok(resolved) => Standing::Served { resolved: Box::new(resolved), by },
    }
}

/// Two Caches for one registry that no node is given together: pools of nodes may differ.
fn are_apart(one: &Cache, other: &Cache, node_caches: &[NodeCache]) -> bool {
    let (one, other) = (selecting(one, node_caches), selecting(other, node_caches));
    !one.is_empty() && !other.is_empty() && one.is_disjoint(&other)
}

fn selecting(cache: &Cache, node_caches: &[NodeCache]) -> BTreeSet<String> {
    node_caches.iter().filter(|node_cache| selects(node_cache, cache)).map(ResourceExt::name_any).collect()
}

#[cfg(test)]
pub(in crate::cache) mod tests;
