//! Who must go, and then its removal. The plan is a pure function of the time, the order of last use and the room; doing
//! it is a short loop: file first, then row. Must not touch what is being filled: that has no row yet.

mod pace;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Mutex, PoisonError};

use larder_wire::units::Size;

use crate::store::{Aged, Group, Space, Store};
pub(crate) use pace::Pace;

/// Why a blob went; the metric's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    Ttl,
    Size,
    Free,
    Corrupt,
}

/// The limits as settings have them, in bytes and milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Since last use; 0: never by age.
    pub ttl: u64,
    pub max_size: Size,
    pub min_free: Size,
    pub registries: HashMap<String, RegistryLimits>,
}

/// What one upstream says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RegistryLimits {
    pub ttl: Option<u64>,
    pub max_size: Option<Size>,
}

/// A group with its least recently used blobs; `more` when there are others behind them.
pub(crate) struct Queue {
    pub group: Group,
    pub oldest: Vec<Aged>,
    pub more: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Eviction {
    pub blob: Aged,
    pub reason: Reason,
}

/// So many rows of a group are looked at in one round.
const ROUND: usize = 256;

/// The rounds of one sweep: enough for 100,000 blobs, and an end for certain.
const ROUNDS: usize = 400;

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub evictions: Vec<Eviction>,
    /// Something is due by age but must wait for the pace.
    pub held_back: bool,
}

/// What must go now, of what the queues show. `age_budget`: bytes that may go by age at the most.
pub(crate) fn plan(now: u64, limits: &Limits, space: Space, queues: &[Queue], age_budget: u64) -> Plan {
    let mut taken: Vec<usize> = vec![0; queues.len()];
    let mut plan = Vec::new();
    let held_back = by_age(now, limits, queues, age_budget, &mut taken, &mut plan);
    for (name, registry) in &limits.registries {
        let Some(limit) = registry.max_size.map(|size| size.of(space.capacity)).filter(|&limit| limit > 0)
        else {
            continue;
        };
        let of = |queue: &Queue| queue.group.registries.contains(name);
        let need = surplus(remaining(queues, &taken, of), limit);
        oldest_first(queues, of, need, Reason::Size, &mut taken, &mut plan);
    }
    let limit = limits.max_size.of(space.capacity);
    if limit > 0 {
        let need = surplus(remaining(queues, &taken, |_| true), limit);
        oldest_first(queues, |_| true, need, Reason::Size, &mut taken, &mut plan);
    }
    let freed: u64 = plan.iter().map(|eviction| eviction.blob.size).sum();
    let need = limits.min_free.of(space.capacity).saturating_sub(space.free.saturating_add(freed));
    oldest_first(queues, |_| true, need, Reason::Free, &mut taken, &mut plan);
    Plan { evictions: plan, held_back }
}

/// Sweeps until nothing more is due. Called every so often and after each commit that may have filled the disk.
pub(crate) async fn sweep(store: &Store, pace: &Mutex<Pace>, now: u64) {
    // What was used a moment ago must not look old.
    store.flush_uses();
    let Some(groups) = store.usage().await else { return };
    let total = groups.iter().map(|group| group.bytes).sum();
    let mut budget = pace.lock().unwrap_or_else(PoisonError::into_inner).budget(total);
    let (before, mut freed, mut held_back) = (store.look_at_space(), 0_u64, false);
    'sweep: for _ in 0..ROUNDS {
        let Some(queues) = store.queues(ROUND).await else { return };
        // What was removed may not be seen as free yet: its readers still have it open.
        let space = store.look_at_space();
        let space = Space { free: space.free.max(before.free.saturating_add(freed)), ..space };
        let plan = plan(now, &store.limits(), space, &queues, budget);
        held_back = plan.held_back;
        if plan.evictions.is_empty() {
            break;
        }
        for eviction in plan.evictions {
            if eviction.reason == Reason::Ttl {
                budget = budget.saturating_sub(eviction.blob.size);
            }
            if !store.evict(&eviction.blob.key, eviction.reason).await {
                // The disk removes nothing now; the next sweep tries again.
                break 'sweep;
            }
            freed = freed.saturating_add(eviction.blob.size);
        }
    }
    pace.lock().unwrap_or_else(PoisonError::into_inner).settle(budget, held_back);
}

impl Limits {
    /// A blob of several registries lives by the longest ttl of them; 0 is longest of all.
    fn ttl_of(&self, group: &Group) -> u64 {
        let of =
            |name: &String| self.registries.get(name).and_then(|registry| registry.ttl).unwrap_or(self.ttl);
        let ttls: Vec<u64> = group.registries.iter().map(of).collect();
        match ttls.iter().max() {
            _ if ttls.contains(&0) => 0,
            Some(&longest) => longest,
            None => self.ttl,
        }
    }
}

/// Whether something due had to stay.
fn by_age(
    now: u64,
    limits: &Limits,
    queues: &[Queue],
    mut budget: u64,
    taken: &mut [usize],
    plan: &mut Vec<Eviction>,
) -> bool {
    for (queue, taken) in queues.iter().zip(taken) {
        let ttl = limits.ttl_of(&queue.group);
        let due = |blob: &&Aged| ttl > 0 && now.saturating_sub(blob.used) >= ttl;
        for blob in queue.oldest.iter().take_while(due) {
            if blob.size > budget {
                return true;
            }
            budget -= blob.size;
            *taken += 1;
            plan.push(Eviction { blob: blob.clone(), reason: Reason::Ttl });
        }
    }
    false
}

/// Takes the least recently used of all chosen queues until `need` bytes are freed. Ends early where a queue has more
/// rows than it shows: the next one could be older than what the others show.
fn oldest_first(
    queues: &[Queue],
    of: impl Fn(&Queue) -> bool,
    need: u64,
    reason: Reason,
    taken: &mut [usize],
    plan: &mut Vec<Eviction>,
) {
    let next =
        |at: usize, taken: &[usize]| queues[at].oldest.get(taken[at]).map(|blob| Reverse((blob.used, at)));
    let chosen: Vec<usize> = (0..queues.len()).filter(|&at| of(&queues[at])).collect();
    let mut order: BinaryHeap<_> = chosen.iter().filter_map(|&at| next(at, taken)).collect();
    let mut freed = 0_u64;
    while freed < need {
        if chosen.iter().any(|&at| queues[at].more && taken[at] >= queues[at].oldest.len()) {
            return;
        }
        let Some(Reverse((_, at))) = order.pop() else { return };
        let blob = queues[at].oldest[taken[at]].clone();
        taken[at] += 1;
        freed = freed.saturating_add(blob.size);
        plan.push(Eviction { blob, reason });
        order.extend(next(at, taken));
    }
}

fn remaining(queues: &[Queue], taken: &[usize], of: impl Fn(&Queue) -> bool) -> u64 {
    let rest = |(queue, &taken): (&Queue, &usize)| {
        let gone: u64 = queue.oldest[..taken].iter().map(|blob| blob.size).sum();
        queue.group.bytes.saturating_sub(gone)
    };
    queues.iter().zip(taken).filter(|(queue, _)| of(queue)).map(rest).sum()
}

/// What must go so that nine tenths of the limit are left, once the limit is passed.
fn surplus(bytes: u64, limit: u64) -> u64 {
    if bytes > limit { bytes - limit / 10 * 9 } else { 0 }
}

#[cfg(test)]
mod tests;
