//! A set that is read elsewhere, slowly, while it changes: tags of a repository, images of one, repositories
//! of a namespace. Pure. Must not hold less than is there once it is known: what it is asked for is whether
//! there is room.

use std::collections::HashSet;
use std::hash::Hash;

/// What is known, and what has changed while it is being read again.
#[derive(Debug)]
pub(super) struct Known<T> {
    items: Option<HashSet<T>>,
    /// The reading was broken off: there are more than these.
    more: bool,
    /// How often something happened whose outcome only another reading can tell ...
    doubts: u64,
    /// ... and how many of those the last reading has cleared up.
    settled: u64,
    /// What changed since the oldest reading under way began: present or gone.
    changes: Vec<(T, bool)>,
    readings: usize,
}

/// A reading under way. It ends in [`Known::finish`] or [`Known::abandon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    changes: usize,
    doubts: u64,
}

impl Reading {
    /// Whether it tells how this doubt ended.
    pub(super) fn settles(self, doubt: u64) -> bool {
        self.doubts >= doubt
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { items: None, more: false, doubts: 0, settled: 0, changes: Vec::new(), readings: 0 }
    }
}

impl<T: Clone + Eq + Hash> Known<T> {
    pub(super) fn items(&self) -> Option<&HashSet<T>> {
        self.items.as_ref()
    }

    pub(super) fn len(&self) -> Option<u64> {
        self.items.as_ref().map(|items| items.len() as u64)
    }

    pub(super) fn contains(&self, item: &T) -> bool {
        self.items.as_ref().is_some_and(|items| items.contains(item))
    }

    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// Known, and nothing has happened since that another reading would have to clear up.
    pub(super) fn is_sure(&self) -> bool {
        self.items.is_some() && self.settled == self.doubts
    }

    /// Known, but something has happened since.
    pub(super) fn is_doubtful(&self) -> bool {
        self.items.is_some() && self.settled != self.doubts
    }

    pub(super) fn is_being_read(&self) -> bool {
        self.readings > 0
    }

    pub(super) fn insert(&mut self, item: T) {
        self.change(item, true);
    }

    pub(super) fn remove(&mut self, item: T) {
        self.change(item, false);
    }

    /// Something may have changed; the set stays as it is until a later reading. The number is this doubt's.
    pub(super) fn doubt(&mut self) -> u64 {
        self.doubts += 1;
        self.doubts
    }

    /// The set is of no use any more, nor is what is being read now.
    pub(super) fn forget(&mut self) {
        self.items = None;
        self.doubt();
    }

    pub(super) fn begin(&mut self) -> Reading {
        self.readings += 1;
        Reading { changes: self.changes.len(), doubts: self.doubts }
    }

    pub(super) fn abandon(&mut self, _: Reading) {
        self.readings = self.readings.saturating_sub(1);
        if self.readings == 0 {
            self.changes = Vec::new();
        }
    }

    /// Takes over what was read. Returns by how many items it differs from what was known before.
    pub(super) fn finish(&mut self, reading: Reading, mut found: HashSet<T>, more: bool) -> u64 {
        for (item, present) in self.changes.iter().skip(reading.changes) {
            if *present {
                found.insert(item.clone());
            } else {
                found.remove(item);
            }
        }
        // A set that was broken off differs by what it never held.
        let drift = match &self.items {
            Some(items) if !more && !self.more => items.symmetric_difference(&found).count() as u64,
            _ => 0,
        };
        self.items = Some(found);
        self.more = more;
        self.settled = self.settled.max(reading.doubts);
        self.abandon(reading);
        drift
    }

    fn change(&mut self, item: T, present: bool) {
        if self.readings > 0 {
            self.changes.push((item.clone(), present));
        }
        if let Some(items) = &mut self.items {
            if present {
                items.insert(item);
            } else {
                items.remove(&item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(items: &[u8]) -> Known<u8> {
        let mut known = Known::default();
        let reading = known.begin();
        known.finish(reading, items.iter().copied().collect(), false);
        known
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_lost() {
        let mut known = known(&[1, 2]);
        known.insert(3);
        let reading = known.begin();
        known.insert(4);
        known.remove(1);
        // Read before 4 came and 1 went, after 3 came and somebody else brought 5.
        assert_eq!(known.finish(reading, HashSet::from([1, 2, 3, 5]), false), 1);
        let mut items: Vec<u8> = known.items().unwrap().iter().copied().collect();
        items.sort_unstable();
        assert_eq!(items, [2, 3, 4, 5]);
        assert!(known.changes.is_empty());
    }

    #[test]
    fn only_a_reading_that_began_after_a_doubt_settles_it() {
        let mut known = known(&[1]);
        let before = known.begin();
        let doubt = known.doubt();
        known.finish(before, HashSet::from([1]), false);
        assert!(!before.settles(doubt) && !known.is_sure());
        let after = known.begin();
        known.finish(after, HashSet::new(), false);
        assert!(after.settles(doubt) && known.is_sure());
    }

    #[test]
    fn what_is_forgotten_is_not_brought_back_by_a_reading_under_way() {
        let mut known = known(&[1]);
        let reading = known.begin();
        known.forget();
        known.finish(reading, HashSet::from([1]), false);
        assert!(!known.is_sure());
    }
}
