//! What is remembered beside the bytes: uses, tags, links. From memory where it is there, else from the index, which may
//! be too slow or too broken to say: then nothing is known. Must not touch blob files but for their access times.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use larder_wire::digest::Digest;
use larder_wire::name::{Registry, Repository, Tag};

use super::blobs::BlobKey;
use super::ledger::{TagRow, Use};
use super::{Store, guard, now_millis};

/// Uses that wait for the index, at the most.
const MOST_WAITING: usize = 65_536;

impl Store {
    pub(crate) fn note_use(&self, key: &BlobKey, registry: &Registry, size: u64) {
        let one = Use { key: key.clone(), registry: Some(registry.clone()), size, at: now_millis() };
        guard(&self.uses).insert(key.clone(), one);
    }

    /// Writes uses down: into the index, and as access times for a rebuild to order by.
    pub(crate) fn flush_uses(&self) {
        let uses: Vec<Use> = guard(&self.uses).drain().map(|(_, one)| one).collect();
        if uses.is_empty() {
            return;
        }
        for one in &uses {
            if let Err(error) =
                self.blobs.set_used(&one.key, SystemTime::UNIX_EPOCH + Duration::from_millis(one.at))
            {
                self.stats.failed(&error);
            }
        }
        let uses = Arc::new(uses);
        let told = Arc::clone(&uses);
        if !self.keeper.tell(move |ledger| ledger.used(&told)) {
            // The index is busy or failed: a later flush tells it.
            let mut waiting = guard(&self.uses);
            for one in uses.iter().take(MOST_WAITING.saturating_sub(waiting.len())) {
                waiting.entry(one.key.clone()).or_insert_with(|| one.clone());
            }
        }
    }

    pub(crate) async fn tag(
        &self,
        registry: &Registry,
        repository: &Repository,
        tag: &Tag,
    ) -> Option<TagRow> {
        let name = (registry.clone(), repository.clone(), tag.clone());
        if let Some(row) = self.memory.tag(&name) {
            return Some(row);
        }
        let asked = name.clone();
        let row = self.keeper.ask(move |ledger| ledger.tag(&asked.0, &asked.1, &asked.2)).await??;
        self.memory.keep_tag(name, Some(&row));
        Some(row)
    }

    /// `None` forgets the tag.
    pub(crate) fn set_tag(
        &self,
        registry: &Registry,
        repository: &Repository,
        tag: &Tag,
        row: Option<TagRow>,
    ) {
        let name = (registry.clone(), repository.clone(), tag.clone());
        self.memory.keep_tag(name.clone(), row.as_ref());
        self.keeper.tell(move |ledger| ledger.set_tag((&name.0, &name.1, &name.2), row.as_ref()));
    }

    pub(crate) async fn linked(&self, registry: &Registry, repository: &Repository, digest: Digest) -> bool {
        let (registry, repository) = (registry.clone(), repository.clone());
        self.keeper.ask(move |ledger| ledger.linked(&registry, &repository, &digest)).await.unwrap_or(false)
    }

    pub(crate) fn link(&self, registry: &Registry, repository: &Repository, digests: Vec<Digest>) {
        let (registry, repository) = (registry.clone(), repository.clone());
        self.keeper.tell(move |ledger| ledger.link(&registry, &repository, &digests));
    }

    /// Drops a repository's tags; the digests they stood for.
    pub(crate) async fn forget_tags(&self, registry: &Registry, repository: &Repository) -> Vec<Digest> {
        self.memory.forget_tags(registry, repository);
        let (registry, repository) = (registry.clone(), repository.clone());
        self.keeper.ask(move |ledger| ledger.forget_tags(&registry, &repository)).await.unwrap_or_default()
    }
}
