//! The bytes of the ledger's rows: keys start with one letter that says what they are, numbers are big-endian, names
//! are hashed so that every key is short. Must not read or write the rows it lays out, but for the names it must know.

use std::collections::HashMap;

use larder_wire::digest::{Algorithm, Digest};
use larder_wire::name::{Registry, Repository, Tag};
use sha2::{Digest as _, Sha256};

use super::super::blobs::{BlobKey, Class};
use super::super::index::{Change, IndexError, Rows};
use super::{Group, TagRow};

pub(super) const CLEAN: &[u8] = b"s/clean";
pub(super) const PROBE: &[u8] = b"s/probe";
pub(super) const GROUP: u8 = b'g';
pub(super) const TAG: u8 = b't';
pub(super) const LINK_BACK: u8 = b'm';

/// A class's 8 bytes (zero: public), the algorithm's letter, the hash.
pub(super) type BlobId = Vec<u8>;

/// The names that stand behind the classes' hashes.
pub(super) struct Keys(HashMap<[u8; 8], Registry>);

pub(super) struct BlobRow {
    pub size: u64,
    pub used: u64,
    pub group: u32,
}

pub(super) struct GroupRow {
    pub registries: Vec<String>,
    pub bytes: u64,
    pub blobs: u64,
}

impl Keys {
    pub(super) fn load(rows: &dyn Rows) -> Result<Self, IndexError> {
        let named = rows.scan(b"r", usize::MAX)?;
        let name = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let registry = std::str::from_utf8(value).ok()?.parse().ok()?;
            Some((key.get(1..)?.try_into().ok()?, registry))
        };
        Ok(Self(named.iter().filter_map(name).collect()))
    }

    /// Makes sure that a class's hash can be read back.
    pub(super) fn learn(&mut self, registry: &Registry, batch: &mut Vec<Change>) {
        let hash = class_hash(registry);
        if self.0.insert(hash, registry.clone()).is_none() {
            batch.push((join_bytes(b'r', &[&hash]), Some(registry.as_str().as_bytes().to_vec())));
        }
    }

    pub(super) fn blob(&self, key: &BlobKey) -> BlobId {
        match &key.class {
            Class::Public => id(&[0; 8], &key.digest),
            Class::Shared(registry) => shared_id(registry, &key.digest),
        }
    }

    pub(super) fn read_blob(&self, id: &[u8]) -> Option<BlobKey> {
        let class: [u8; 8] = id.get(..8)?.try_into().ok()?;
        let class = if class == [0; 8] { Class::Public } else { Class::Shared(self.0.get(&class)?.clone()) };
        Some(BlobKey { class, digest: read_digest(id.get(8..)?)? })
    }
}

impl BlobRow {
    pub(super) fn write(&self) -> Vec<u8> {
        [&self.size.to_be_bytes()[..], &self.used.to_be_bytes(), &self.group.to_be_bytes()].concat()
    }

    pub(super) fn read(value: &[u8]) -> Option<Self> {
        Some(Self { size: number(value, 0)?, used: number(value, 8)?, group: group_number(value, 16)? })
    }
}

impl GroupRow {
    pub(super) fn write(&self) -> Vec<u8> {
        [&self.bytes.to_be_bytes()[..], &self.blobs.to_be_bytes(), self.registries.join("\n").as_bytes()]
            .concat()
    }

    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let names = std::str::from_utf8(value.get(16..)?).ok()?;
        let registries = names.split('\n').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(Self { registries, bytes: number(value, 0)?, blobs: number(value, 8)? })
    }

    pub(super) fn read(key: &[u8], value: &[u8]) -> Option<(u32, Self)> {
        Some((group_number(key, 1)?, Self::parse(value)?))
    }

    pub(super) fn group(self, id: u32) -> Group {
        Group { id, registries: self.registries, bytes: self.bytes, blobs: self.blobs }
    }
}

pub(super) fn blob(id: &[u8]) -> Vec<u8> {
    join_bytes(b'b', &[id])
}

pub(super) fn order(group: u32, used: u64, id: &[u8]) -> Vec<u8> {
    join_bytes(b'o', &[&group.to_be_bytes(), &used.to_be_bytes(), id])
}

pub(super) fn orders_of(group: u32) -> Vec<u8> {
    join_bytes(b'o', &[&group.to_be_bytes()])
}

/// When it was used, and which blob.
pub(super) fn read_order(key: &[u8]) -> Option<(u64, &[u8])> {
    Some((number(key, 5)?, key.get(13..)?))
}

pub(super) fn group(id: u32) -> Vec<u8> {
    join_bytes(GROUP, &[&id.to_be_bytes()])
}

/// Adds a name to a sorted list; whether it was new.
pub(super) fn join(names: &mut Vec<String>, name: &str) -> bool {
    match names.binary_search_by(|one| one.as_str().cmp(name)) {
        Ok(_) => false,
        Err(at) => {
            names.insert(at, name.to_owned());
            true
        }
    }
}

pub(super) fn group_id(names: &[String]) -> u32 {
    let hash = Sha256::digest(names.join("\n").as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

pub(super) fn tag(registry: &Registry, repository: &Repository, tag: &Tag) -> Vec<u8> {
    [tags_of(registry, repository), Sha256::digest(tag.as_str().as_bytes())[..16].to_vec()].concat()
}

pub(super) fn tags_of(registry: &Registry, name: &Repository) -> Vec<u8> {
    join_bytes(TAG, &[&repository(registry, name)])
}

pub(super) fn write_tag(row: &TagRow) -> Vec<u8> {
    let (checked, size) = (row.checked.to_be_bytes(), row.size.to_be_bytes());
    [&checked[..], &size, &digest_bytes(&row.digest), row.media_type.as_bytes()].concat()
}

pub(super) fn read_tag(value: &[u8]) -> Option<TagRow> {
    let digest_end = 16 + 1 + if value.get(16) == Some(&b'5') { 64 } else { 32 };
    Some(TagRow {
        checked: number(value, 0)?,
        size: number(value, 8)?,
        digest: read_digest(value.get(16..digest_end)?)?,
        media_type: String::from_utf8(value.get(digest_end..)?.to_vec()).ok()?,
    })
}

/// 16 bytes that stand for a repository of a registry.
pub(super) fn repository(registry: &Registry, repository: &Repository) -> Vec<u8> {
    Sha256::digest(format!("{registry}\0{repository}").as_bytes())[..16].to_vec()
}

pub(super) fn link(repository: &[u8], id: &[u8]) -> Vec<u8> {
    join_bytes(b'l', &[repository, id])
}

pub(super) fn link_back(id: &[u8], repository: &[u8]) -> Vec<u8> {
    join_bytes(LINK_BACK, &[id, repository])
}

pub(super) fn links_of(id: &[u8]) -> Vec<u8> {
    join_bytes(LINK_BACK, &[id])
}

/// The links to all shared blobs of a registry.
pub(super) fn links_within(registry: &Registry) -> Vec<u8> {
    join_bytes(LINK_BACK, &[&class_hash(registry)])
}

pub(super) fn shared_id(registry: &Registry, digest: &Digest) -> BlobId {
    id(&class_hash(registry), digest)
}

fn id(class: &[u8; 8], digest: &Digest) -> BlobId {
    [&class[..], &digest_bytes(digest)].concat()
}

/// Never zero, which stands for public.
fn class_hash(registry: &Registry) -> [u8; 8] {
    let hash = Sha256::digest(registry.as_str().as_bytes());
    [hash[0] | 1, hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]
}

fn digest_bytes(digest: &Digest) -> Vec<u8> {
    let letter = match digest.algorithm() {
        Algorithm::Sha256 => b'2',
        Algorithm::Sha512 => b'5',
    };
    [&[letter], digest.bytes()].concat()
}

fn read_digest(bytes: &[u8]) -> Option<Digest> {
    match bytes.split_first()? {
        (b'2', hash) => Some(Digest::Sha256(hash.try_into().ok()?)),
        (b'5', hash) => Some(Digest::Sha512(hash.try_into().ok()?)),
        _ => None,
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn group_number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn join_bytes(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![kind];
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}
