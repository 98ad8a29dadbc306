//! A push of a manifest as it came, its path and names already checked. Must not interpret the body.

use bytes::Bytes;
use http::HeaderMap;
use http::uri::PathAndQuery;
use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};
use larder_wire::route::Reference;
use sha2::{Digest as _, Sha256, Sha512};

use crate::caller::Caller;
use crate::limits::Limits;
use crate::tags::Push;

/// `PUT /v2/NAME/manifests/REFERENCE[?tag=…]` with its whole body.
#[derive(Clone, Debug)]
pub struct ManifestPut {
    pub name: Repository,
    pub reference: Reference,
    /// Those of the query, which make tags as well where the registry knows them.
    pub tags: Vec<Tag>,
    /// As the client wrote it.
    pub target: PathAndQuery,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub caller: Caller,
}

impl ManifestPut {
    /// Every tag that this push makes or moves.
    pub fn all_tags(&self) -> impl Iterator<Item = &Tag> {
        let first = match &self.reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        first.into_iter().chain(&self.tags)
    }

    /// What the manifest is called by, in the algorithm of the reference where that is a digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self.reference {
            Reference::Digest(Digest::Sha512(_)) => Digest::Sha512(Sha512::digest(&self.body).into()),
            Reference::Digest(Digest::Sha256(_)) | Reference::Tag(_) => {
                Digest::Sha256(Sha256::digest(&self.body).into())
            }
        }
    }

    /// What is counted of it.
    #[must_use]
    pub(super) fn push(&self, limits: &Limits) -> Push {
        let tags = self.all_tags().filter(|tag| limits.excluded.counts(tag)).cloned().collect();
        Push { repository: self.name.clone(), tags, digest: self.digest() }
    }
}
