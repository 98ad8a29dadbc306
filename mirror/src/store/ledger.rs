//! What the index knows: sizes, last uses, groups, tags and links, as rows under 256 bytes. Blobs stand in an order of
//! last use within their group (the registries that use them), so that a sweep touches only what is due. Must not touch
//! blob files: a row may be wrong in either direction, and every reader bears it.

mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_wire::digest::Digest;
use larder_wire::name::{Registry, Repository, Tag};

use super::blobs::{BlobKey, Class};
use super::index::{Change, IndexError, Row, Rows};
use rows::{BlobRow, GroupRow, Keys};

/// The version of the rows' meaning: another number on disk makes a new index.
pub(crate) const SCHEMA: u32 = 1;

/// What is known of a tag. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagRow {
    pub digest: Digest,
    /// When upstream last said so.
    pub checked: u64,
    pub size: u64,
    pub media_type: String,
}

/// The blobs that the same registries use, and what they take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub id: u32,
    /// Sorted; empty for blobs that a rebuild found and nobody has asked for since.
    pub registries: Vec<String>,
    pub bytes: u64,
    pub blobs: u64,
}

/// A blob in the order of last use. `used` is milliseconds since 1970, as in [`Use`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aged {
    pub key: BlobKey,
    pub size: u64,
    pub used: u64,
}

/// A use that somebody made of a blob.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub key: BlobKey,
    /// `None` where a rebuild cannot know.
    pub registry: Option<Registry>,
    pub size: u64,
    pub at: u64,
}

pub(crate) struct Ledger {
    rows: Box<dyn Rows>,
    keys: Keys,
    totals: Arc<Totals>,
}

/// What all rows add up to, for whoever may not wait for the ledger.
#[derive(Default)]
pub(crate) struct Totals {
    bytes: AtomicU64,
    blobs: AtomicU64,
}

impl Totals {
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.blobs.load(Ordering::Relaxed))
    }
}

impl Ledger {
    /// Takes rows over. Also tells whether they were closed in good order; if not, the caller compares with the files.
    pub(crate) fn open(mut rows: Box<dyn Rows>, totals: Arc<Totals>) -> Result<(Self, bool), IndexError> {
        let clean = rows.read(rows::CLEAN)?.is_some_and(|value| value == [1]);
        rows.write(vec![(rows::CLEAN.to_vec(), Some(vec![0]))])?;
        rows.flush()?;
        let keys = Keys::load(rows.as_ref())?;
        let ledger = Self { rows, keys, totals };
        ledger.add_up()?;
        Ok((ledger, clean))
    }

    pub(crate) fn flush(&mut self) -> Result<(), IndexError> {
        self.rows.flush()
    }

    /// Leaves word that the rows are whole.
    pub(crate) fn close(&mut self) -> Result<(), IndexError> {
        self.rows.flush()?;
        self.rows.write(vec![(rows::CLEAN.to_vec(), Some(vec![1]))])?;
        self.rows.flush()
    }

    /// Writes, flushes and reads a row: finds a database that only pretends to work.
    pub(crate) fn probe(&mut self, now: u64) -> Result<(), IndexError> {
        let value = now.to_be_bytes().to_vec();
        self.rows.write(vec![(rows::PROBE.to_vec(), Some(value.clone()))])?;
        self.rows.flush()?;
        let read = self.rows.read(rows::PROBE)?;
        if read == Some(value) {
            Ok(())
        } else {
            Err(IndexError("a row just written is not there".to_owned()))
        }
    }

    /// Notes uses: new blobs get their row, known ones move to the end of the order and into the group that their
    /// registries make.
    pub(crate) fn used(&mut self, uses: &[Use]) -> Result<(), IndexError> {
        uses.iter().try_for_each(|one| self.note(one))
    }

    /// Adds what a walk over the files found. A row that exists knows better.
    pub(crate) fn adopt(&mut self, found: &[Use]) -> Result<(), IndexError> {
        for one in found {
            let known = self.blob(&one.key)?.is_some_and(|row| row.size == one.size);
            if !known {
                self.note(one)?;
            }
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: &BlobKey) -> Result<(), IndexError> {
        let id = self.keys.blob(key);
        let mut batch = Vec::new();
        if let Some(row) = self.blob(key)? {
            batch.extend([(rows::blob(&id), None), (rows::order(row.group, row.used, &id), None)]);
            self.weigh(&mut batch, row.group, &[], -1, row.size)?;
        }
        for (reverse, _) in self.rows.scan(&rows::links_of(&id), usize::MAX)? {
            let repository = &reverse[reverse.len() - 16..];
            batch.push((rows::link(repository, &id), None));
            batch.push((reverse, None));
        }
        self.rows.write(batch)?;
        self.add_up()
    }

    pub(crate) fn groups(&self) -> Result<Vec<Group>, IndexError> {
        let rows = self.rows.scan(&[rows::GROUP], usize::MAX)?;
        Ok(rows
            .iter()
            .filter_map(|(key, value)| GroupRow::read(key, value))
            .map(|(id, row)| row.group(id))
            .collect())
    }

    /// The group's least recently used blobs, oldest first.
    pub(crate) fn oldest(&self, group: u32, limit: usize) -> Result<Vec<Aged>, IndexError> {
        let mut aged = Vec::new();
        for (order, _) in self.rows.scan(&rows::orders_of(group), limit)? {
            let Some((used, id)) = rows::read_order(&order) else { continue };
            let Some(row) = self.rows.read(&rows::blob(id))?.and_then(|value| BlobRow::read(&value)) else {
                continue;
            };
            if let Some(key) = self.keys.read_blob(id) {
                aged.push(Aged { key, size: row.size, used });
            }
        }
        Ok(aged)
    }

    pub(crate) fn tag(
        &self,
        registry: &Registry,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<TagRow>, IndexError> {
        Ok(self.rows.read(&rows::tag(registry, repository, tag))?.and_then(|value| rows::read_tag(&value)))
    }

    /// `None` forgets the tag.
    pub(crate) fn set_tag(
        &mut self,
        (registry, repository, tag): (&Registry, &Repository, &Tag),
        row: Option<&TagRow>,
    ) -> Result<(), IndexError> {
        self.rows.write(vec![(rows::tag(registry, repository, tag), row.map(rows::write_tag))])
    }

    /// Forgets every tag of a repository; the digests they stood for.
    pub(crate) fn forget_tags(
        &mut self,
        registry: &Registry,
        repository: &Repository,
    ) -> Result<Vec<Digest>, IndexError> {
        let found = self.rows.scan(&rows::tags_of(registry, repository), usize::MAX)?;
        let digests =
            found.iter().filter_map(|(_, value)| rows::read_tag(value)).map(|row| row.digest).collect();
        self.rows.write(found.into_iter().map(|(key, _)| (key, None)).collect())?;
        Ok(digests)
    }

    /// Whether a manifest of this repository, fetched with its registry's credential, has named the blob.
    pub(crate) fn linked(
        &self,
        registry: &Registry,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, IndexError> {
        let id = rows::shared_id(registry, digest);
        Ok(self.rows.read(&rows::link(&rows::repository(registry, repository), &id))?.is_some())
    }

    pub(crate) fn link(
        &mut self,
        registry: &Registry,
        repository: &Repository,
        digests: &[Digest],
    ) -> Result<(), IndexError> {
        let repository = rows::repository(registry, repository);
        let mut batch = Vec::with_capacity(digests.len() * 2);
        for digest in digests {
            let id = rows::shared_id(registry, digest);
            batch.push((rows::link(&repository, &id), Some(Vec::new())));
            batch.push((rows::link_back(&id, &repository), Some(Vec::new())));
        }
        self.rows.write(batch)
    }

    /// Forgets tags that nobody confirmed since `before` (seconds), and links to shared blobs that are not there: one that
    /// is asked for again is asked of its registry.
    pub(crate) fn prune(&mut self, before: u64) -> Result<(), IndexError> {
        let old = |(_, value): &Row| rows::read_tag(value).is_none_or(|row| row.checked < before);
        let tags =
            self.rows.scan(&[rows::TAG], usize::MAX)?.into_iter().filter(old).map(|(key, _)| (key, None));
        let mut batch: Vec<Change> = tags.collect();
        for (back, _) in self.rows.scan(&[rows::LINK_BACK], usize::MAX)? {
            let (id, repository) = back[1..].split_at(back.len() - 17);
            if self.rows.read(&rows::blob(id))?.is_none() {
                batch.extend([(rows::link(repository, id), None), (back.clone(), None)]);
            }
        }
        self.rows.write(batch)
    }

    /// Forgets who may read a registry's shared blobs: it is shared no longer.
    pub(crate) fn unlink(&mut self, registry: &Registry) -> Result<(), IndexError> {
        let mut batch = Vec::new();
        for (back, _) in self.rows.scan(&rows::links_within(registry), usize::MAX)? {
            let (id, repository) = back[1..].split_at(back.len() - 17);
            batch.extend([(rows::link(repository, id), None), (back.clone(), None)]);
        }
        self.rows.write(batch)
    }

    fn add_up(&self) -> Result<(), IndexError> {
        let groups = self.groups()?;
        self.totals.bytes.store(groups.iter().map(|group| group.bytes).sum(), Ordering::Relaxed);
        self.totals.blobs.store(groups.iter().map(|group| group.blobs).sum(), Ordering::Relaxed);
        Ok(())
    }

    fn blob(&self, key: &BlobKey) -> Result<Option<BlobRow>, IndexError> {
        Ok(self.rows.read(&rows::blob(&self.keys.blob(key)))?.and_then(|value| BlobRow::read(&value)))
    }

    fn note(&mut self, one: &Use) -> Result<(), IndexError> {
        let mut batch = Vec::new();
        if let Class::Shared(registry) = &one.key.class {
            self.keys.learn(registry, &mut batch);
        }
        let id = self.keys.blob(&one.key);
        let before = self.blob(&one.key)?;
        let mut names = before.as_ref().map_or_else(|| Ok(Vec::new()), |row| self.names(row.group))?;
        let joined = one.registry.as_ref().is_some_and(|registry| rows::join(&mut names, registry.as_str()));
        let used = before.as_ref().map_or(one.at, |row| row.used.max(one.at));
        if let Some(row) = &before {
            if !joined && row.size == one.size && used == row.used {
                return Ok(());
            }
            batch.push((rows::order(row.group, row.used, &id), None));
            self.weigh(&mut batch, row.group, &[], -1, row.size)?;
        }
        let row = BlobRow { size: one.size, used, group: rows::group_id(&names) };
        self.weigh(&mut batch, row.group, &names, 1, row.size)?;
        batch.push((rows::order(row.group, row.used, &id), Some(Vec::new())));
        batch.push((rows::blob(&id), Some(row.write())));
        self.rows.write(batch)?;
        self.add_up()
    }

    fn names(&self, group: u32) -> Result<Vec<String>, IndexError> {
        let row = self.rows.read(&rows::group(group))?.and_then(|value| GroupRow::parse(&value));
        Ok(row.map(|row| row.registries).unwrap_or_default())
    }

    /// Adds a blob to its group's totals or takes it out; a later change in the same batch sees the earlier one.
    fn weigh(
        &self,
        batch: &mut Vec<Change>,
        group: u32,
        names: &[String],
        sign: i64,
        size: u64,
    ) -> Result<(), IndexError> {
        let key = rows::group(group);
        let pending = batch.iter().rposition(|(k, _)| *k == key).map(|at| batch.remove(at).1);
        let stored = match pending {
            Some(value) => value,
            None => self.rows.read(&key)?,
        };
        let mut row = stored.and_then(|value| GroupRow::parse(&value)).unwrap_or_else(|| GroupRow {
            registries: names.to_vec(),
            bytes: 0,
            blobs: 0,
        });
        if sign > 0 {
            row.bytes = row.bytes.saturating_add(size);
            row.blobs += 1;
        } else {
            row.bytes = row.bytes.saturating_sub(size);
            row.blobs = row.blobs.saturating_sub(1);
        }
        batch.push((key, (row.blobs > 0).then(|| row.write())));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
