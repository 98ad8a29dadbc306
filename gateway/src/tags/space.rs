//! What one namespace holds and what is on its way into it: the ledger that says whether a push still has
//! room. Pure. Must not let two pushes have the last place, whatever happens in between.

mod room;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};
use serde::{Deserialize, Serialize};

use super::known::{Known, Reading};
use crate::limits::{Limits, Used};
use crate::peers::text;

/// A place is held this long. Longer than any manifest takes to be answered; afterwards only a reading can
/// tell.
pub(super) const HOLD: Duration = Duration::from_secs(60);

/// Repositories of one first path segment, and the places held in them.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) names: Known<Repository>,
    repositories: HashMap<Repository, Shelf>,
    held: HashMap<Ticket, Held>,
}

/// One repository.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) tags: Known<Tag>,
    pub(super) images: Known<Digest>,
    /// The pattern of tags that are left out of `tags`.
    excluded: Arc<str>,
    used: Instant,
    /// Whether anything happened here since the last resync.
    active: bool,
}

/// What has to be asked for to know a repository's images.
#[derive(Debug)]
pub(super) struct ImagesToRead {
    pub(super) reading: Reading,
    pub(super) tags: Vec<Tag>,
    /// Those known before, which may have no tag.
    pub(super) pushed: Vec<Digest>,
}

/// Names a held place. Numbers are not used twice.
pub(super) type Ticket = u64;

/// What a push brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    #[serde(with = "text")]
    pub repository: Repository,
    /// Those that count.
    #[serde(with = "text::list")]
    pub tags: Vec<Tag>,
    #[serde(with = "text")]
    pub digest: Digest,
}

#[derive(Debug)]
struct Held {
    push: Push,
    until: Instant,
    /// Nobody will tell how it ended: the doubt to be settled.
    doubt: Option<u64>,
}

/// Why no place was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    Full(Used),
    /// There is no room for another tag, but these are not all the tags there are: it may exist.
    FullUnlessThere(Used),
    /// The repository's tags have to be read first.
    TagsUnknown,
    /// So have its images.
    ImagesUnknown,
    /// So has the whole namespace.
    NamespaceUnknown,
}

impl Space {
    /// Holds places for a push under a ticket that was never used. What does not grow is never refused.
    ///
    /// # Errors
    /// [`Denial`]; nothing is held then.
    pub(super) fn reserve(
        &mut self,
        now: Instant,
        ticket: Ticket,
        push: &Push,
        limits: &Limits,
    ) -> Result<Vec<Used>, Denial> {
        self.expire(now);
        self.shelf(now, &push.repository, limits);
        let mut used = Vec::new();
        for (counted, bound) in limits.quota.bounds() {
            if let Some(amount) = self.room(counted, bound, push)? {
                used.push(Used { counted, used: amount, bound: bound.clone() });
            }
        }
        self.held.insert(ticket, Held { push: push.clone(), until: now + HOLD, doubt: None });
        Ok(used)
    }

    /// The push is in the registry. Without a ticket: somebody saw it there.
    pub(super) fn commit(&mut self, ticket: Option<Ticket>, push: &Push) {
        if let Some(ticket) = ticket {
            self.held.remove(&ticket);
        }
        self.names.insert(push.repository.clone());
        if let Some(shelf) = self.repositories.get_mut(&push.repository) {
            shelf.active = true;
            shelf.images.insert(push.digest);
            push.tags.iter().for_each(|tag| shelf.tags.insert(tag.clone()));
        }
    }

    /// The push is not in the registry and will not be.
    pub(super) fn release(&mut self, ticket: Ticket) {
        self.held.remove(&ticket);
    }

    /// Nobody knows how the push ended. Its places are held until a reading that begins after this.
    pub(super) fn doubt(&mut self, ticket: Ticket) {
        if let Some(held) = self.held.get_mut(&ticket).filter(|held| held.doubt.is_none())
            && let Some(shelf) = self.repositories.get_mut(&held.push.repository)
        {
            shelf.images.doubt();
            held.doubt = Some(shelf.tags.doubt());
        }
    }

    pub(super) fn tag_deleted(&mut self, repository: &Repository, tag: &Tag) {
        if let Some(shelf) = self.repositories.get_mut(repository) {
            shelf.active = true;
            shelf.tags.remove(tag.clone());
        }
    }

    /// Somebody saw a tag in the registry that is not known here.
    pub(super) fn tag_seen(&mut self, repository: &Repository, tag: Tag) {
        if let Some(shelf) = self.repositories.get_mut(repository) {
            shelf.active = true;
            shelf.tags.insert(tag);
        }
    }

    /// All the tags that point at it are gone, whichever those are.
    pub(super) fn image_deleted(&mut self, repository: &Repository, digest: &Digest) {
        if let Some(shelf) = self.repositories.get_mut(repository) {
            shelf.active = true;
            shelf.images.remove(*digest);
            shelf.tags.doubt();
        }
    }

    /// The shelf of a repository, made where there is none; its tags forgotten if others count now.
    pub(super) fn shelf(&mut self, now: Instant, repository: &Repository, limits: &Limits) -> &mut Shelf {
        let shelf = self.repositories.entry(repository.clone()).or_insert_with(|| Shelf {
            tags: Known::default(),
            images: Known::default(),
            excluded: limits.excluded.pattern().into(),
            used: now,
            active: true,
        });
        if &*shelf.excluded != limits.excluded.pattern() {
            shelf.excluded = limits.excluded.pattern().into();
            shelf.tags.forget();
        }
        shelf.used = now;
        shelf
    }

    pub(super) fn existing(&mut self, repository: &Repository) -> Option<&mut Shelf> {
        self.repositories.get_mut(repository)
    }

    /// Takes over a repository's tags as they were read, and with them how doubtful pushes ended. Returns the
    /// drift.
    pub(super) fn tags_read(
        &mut self,
        repository: &Repository,
        reading: Reading,
        found: HashSet<Tag>,
        more: bool,
    ) -> u64 {
        let Some(shelf) = self.repositories.get_mut(repository) else { return 0 };
        let drift = shelf.tags.finish(reading, found, more);
        let (tags, images) = (&shelf.tags, &mut shelf.images);
        let mut settled = 0;
        self.held.retain(|_, held| {
            let over =
                held.push.repository == *repository && held.doubt.is_some_and(|doubt| reading.settles(doubt));
            if over && held.push.tags.iter().any(|tag| tags.contains(tag)) {
                settled += held.push.tags.len() as u64;
                images.insert(held.push.digest);
            }
            !over
        });
        drift.saturating_sub(settled)
    }

    /// A reading of a repository's tags that came to nothing. What was never known is no reason to keep the
    /// shelf.
    pub(super) fn abandon_tags(&mut self, repository: &Repository, reading: Reading) {
        let Some(shelf) = self.repositories.get_mut(repository) else { return };
        shelf.tags.abandon(reading);
        let useless =
            shelf.tags.items().is_none() && !shelf.tags.is_being_read() && !shelf.images.is_being_read();
        if useless && self.held_in(repository).next().is_none() {
            self.repositories.remove(repository);
        }
    }

    /// Begins to read a repository's images; `None` where its tags are not known.
    pub(super) fn begin_images(&mut self, repository: &Repository) -> Option<ImagesToRead> {
        let shelf = self.repositories.get_mut(repository)?;
        let tags = shelf.tags.items()?.iter().cloned().collect();
        let pushed = shelf.images.items().map(|images| images.iter().copied().collect()).unwrap_or_default();
        Some(ImagesToRead { reading: shelf.images.begin(), tags, pushed })
    }

    pub(super) fn images_read(&mut self, repository: &Repository, reading: Reading, found: HashSet<Digest>) {
        if let Some(shelf) = self.repositories.get_mut(repository) {
            shelf.images.finish(reading, found, false);
        }
    }

    pub(super) fn abandon_images(&mut self, repository: &Repository, reading: Reading) {
        if let Some(shelf) = self.repositories.get_mut(repository) {
            shelf.images.abandon(reading);
        }
    }

    /// Repositories something happened to since the last call.
    pub(super) fn take_active(&mut self) -> Vec<Repository> {
        let shelves = self.repositories.iter_mut();
        shelves.filter_map(|(name, shelf)| std::mem::take(&mut shelf.active).then(|| name.clone())).collect()
    }

    /// Repositories that only another reading can tell about.
    pub(super) fn doubtful(&mut self, now: Instant) -> Vec<Repository> {
        self.expire(now);
        let shelves = self.repositories.iter();
        shelves.filter(|(_, shelf)| shelf.tags.is_doubtful()).map(|(name, _)| name.clone()).collect()
    }

    /// Forgets repositories that nobody has used since `before` and nothing is happening to.
    pub(super) fn forget_idle(&mut self, before: Instant) {
        let busy: HashSet<&Repository> = self.held.values().map(|held| &held.push.repository).collect();
        self.repositories.retain(|name, shelf| {
            shelf.used >= before
                || busy.contains(name)
                || shelf.tags.is_being_read()
                || shelf.images.is_being_read()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.repositories.is_empty() && self.held.is_empty() && self.names.items().is_none()
    }

    /// Repositories and tags that memory is held for.
    pub(super) fn size(&self) -> (usize, usize) {
        let known = self.repositories.values().filter_map(|shelf| shelf.tags.items());
        (self.repositories.len(), known.map(HashSet::len).sum())
    }

    fn expire(&mut self, now: Instant) {
        let late = self.held.iter().filter(|(_, held)| held.doubt.is_none() && held.until <= now);
        let late: Vec<Ticket> = late.map(|(ticket, _)| *ticket).collect();
        late.into_iter().for_each(|ticket| self.doubt(ticket));
    }
}

#[cfg(test)]
mod tests;
