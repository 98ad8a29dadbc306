//! Whether a push still has room: what is there, what is on its way, and what the push would add. Must not change the
//! ledger.

use std::collections::HashSet;

use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};

use super::{Denial, Push, Shelf, Space};
use crate::limits::{Bound, Counted, Used};
use crate::tags::known::Known;

impl Space {
    /// How much of a whole namespace is used; `None` while it is not known.
    pub(in crate::tags) fn total(&self, counted: Counted) -> Option<u64> {
        match counted {
            Counted::NamespaceRepositories => self.names.len(),
            Counted::NamespaceTags => self.sum(|shelf| shelf.tags.len()),
            Counted::NamespaceImages => self.sum(|shelf| shelf.images.len()),
            Counted::Tags | Counted::Images => None,
        }
    }

    /// What would be used with the push, `None` where it brings nothing that is not there or on its way.
    pub(super) fn room(&self, counted: Counted, bound: &Bound, push: &Push) -> Result<Option<u64>, Denial> {
        match counted {
            Counted::Tags => self.room_for_tags(bound, push),
            Counted::Images => self.room_for_image(bound, push),
            Counted::NamespaceRepositories => {
                let name = &push.repository;
                let coming: HashSet<&Repository> =
                    self.held.values().map(|held| &held.push.repository).collect();
                if self.names.contains(name) || coming.contains(name) {
                    return Ok(None);
                }
                let there = self.names.len().ok_or(Denial::NamespaceUnknown)?;
                let coming = coming.into_iter().filter(|name| !self.names.contains(name)).count() as u64;
                within(counted, bound, there + coming + 1, true, Denial::NamespaceUnknown)
            }
            Counted::NamespaceTags => {
                let new = self.new_tags(push)?;
                if new == 0 {
                    return Ok(None);
                }
                let there = self.total(counted).ok_or(Denial::NamespaceUnknown)? + self.coming_tags();
                within(counted, bound, there + new, true, Denial::NamespaceUnknown)
            }
            Counted::NamespaceImages => {
                if !self.is_new_image(push)? {
                    return Ok(None);
                }
                let there = self.total(counted).ok_or(Denial::NamespaceUnknown)? + self.coming_images(None);
                within(counted, bound, there + 1, true, Denial::NamespaceUnknown)
            }
        }
    }

    fn room_for_tags(&self, bound: &Bound, push: &Push) -> Result<Option<u64>, Denial> {
        let new = self.new_tags(push)?;
        if push.tags.is_empty() {
            return Ok(None);
        }
        let Some(shelf) = self.repositories.get(&push.repository) else { return Err(Denial::TagsUnknown) };
        let there = shelf.tags.len().ok_or(Denial::TagsUnknown)?;
        let after = there + self.coming(&push.repository, &shelf.tags) + new;
        if new == 0 {
            return Ok(Some(after));
        }
        match within(Counted::Tags, bound, after, shelf.tags.is_sure(), Denial::TagsUnknown) {
            Err(Denial::Full(used)) if shelf.tags.has_more() => Err(Denial::FullUnlessThere(used)),
            // There may be more of them than the limit was when they were read.
            Ok(_) if shelf.tags.has_more() => Err(Denial::TagsUnknown),
            room => room,
        }
    }

    fn room_for_image(&self, bound: &Bound, push: &Push) -> Result<Option<u64>, Denial> {
        if !self.is_new_image(push)? {
            return Ok(None);
        }
        let shelf = self.repositories.get(&push.repository).ok_or(Denial::ImagesUnknown)?;
        let there = shelf.images.len().ok_or(Denial::ImagesUnknown)?;
        let after = there + self.coming_images(Some(&push.repository)) + 1;
        within(Counted::Images, bound, after, shelf.images.is_sure(), Denial::ImagesUnknown)
    }

    /// How many of the push's tags are neither there nor on their way.
    fn new_tags(&self, push: &Push) -> Result<u64, Denial> {
        if push.tags.is_empty() {
            return Ok(0);
        }
        let shelf = self.repositories.get(&push.repository).filter(|shelf| shelf.tags.items().is_some());
        let shelf = shelf.ok_or(Denial::TagsUnknown)?;
        let coming: HashSet<&Tag> = self.held_in(&push.repository).flat_map(|push| &push.tags).collect();
        let wanted: HashSet<&Tag> = push.tags.iter().collect();
        Ok(wanted.into_iter().filter(|tag| !shelf.tags.contains(tag) && !coming.contains(tag)).count() as u64)
    }

    fn is_new_image(&self, push: &Push) -> Result<bool, Denial> {
        let shelf = self.repositories.get(&push.repository).filter(|shelf| shelf.images.items().is_some());
        let shelf = shelf.ok_or(Denial::ImagesUnknown)?;
        let coming = self.held_in(&push.repository).any(|held| held.digest == push.digest);
        Ok(!coming && !shelf.images.contains(&push.digest))
    }

    /// Tags on their way into a repository that are not there.
    fn coming(&self, repository: &Repository, there: &Known<Tag>) -> u64 {
        let coming: HashSet<&Tag> = self.held_in(repository).flat_map(|push| &push.tags).collect();
        coming.into_iter().filter(|tag| !there.contains(tag)).count() as u64
    }

    fn coming_tags(&self) -> u64 {
        self.repositories.iter().map(|(name, shelf)| self.coming(name, &shelf.tags)).sum()
    }

    /// Images on their way into one repository, or into all, that are not there.
    fn coming_images(&self, only: Option<&Repository>) -> u64 {
        let held = self.held.values().map(|held| &held.push);
        let held = held.filter(|push| only.is_none_or(|name| *name == push.repository));
        let coming: HashSet<(&Repository, &Digest)> =
            held.map(|push| (&push.repository, &push.digest)).collect();
        let there = |name: &Repository, digest: &Digest| {
            self.repositories.get(name).is_some_and(|shelf| shelf.images.contains(digest))
        };
        coming.into_iter().filter(|(name, digest)| !there(name, digest)).count() as u64
    }

    pub(super) fn held_in(&self, repository: &Repository) -> impl Iterator<Item = &Push> {
        self.held.values().map(|held| &held.push).filter(move |push| push.repository == *repository)
    }

    /// Over all repositories of the namespace; `None` if one of those that there are is not known. One that
    /// only somebody wants to push to has nothing yet.
    fn sum(&self, of: impl Fn(&Shelf) -> Option<u64>) -> Option<u64> {
        let names = self.names.items()?;
        let unseen = names.iter().any(|name| !self.repositories.contains_key(name));
        let amount = |(name, shelf)| of(shelf).or_else(|| (!names.contains(name)).then_some(0));
        if unseen { None } else { self.repositories.iter().map(amount).sum() }
    }
}

fn within(
    counted: Counted,
    bound: &Bound,
    after: u64,
    sure: bool,
    unsure: Denial,
) -> Result<Option<u64>, Denial> {
    if after <= bound.max {
        Ok(Some(after))
    } else if sure {
        Err(Denial::Full(Used { counted, used: after, bound: bound.clone() }))
    } else {
        Err(unsure)
    }
}
