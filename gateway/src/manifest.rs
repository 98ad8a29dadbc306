//! A manifest as it is pushed: what it is and which blobs or manifests it names. Pure. Must not be kinder
//! than the registry behind: what the two could read differently is refused, or a limit could be walked
//! around by it.

mod json;

use std::collections::HashMap;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use larder_wire::digest::{Digest, DigestError};
use larder_wire::oci::Code;

use crate::refuse::{Reason, Refusal};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// No image names more blobs, and no index more children: each may cost a request.
const MOST_NAMED: usize = 4096;

/// A manifest that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// Config and distinct layers; artifacts are images too.
    Image(Vec<Descriptor>),
    /// Distinct children.
    Index(Vec<Descriptor>),
}

/// One thing that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub digest: Digest,
    /// What the manifest says; it may be wrong.
    pub size: u64,
    pub kind: Kind,
}

/// Where the thing lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Blob,
    /// It has `urls` and a type that need not be in the registry.
    Foreign,
    Manifest(Type),
}

/// The media types of manifests that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Image,
    Index,
}

/// Why a body is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the Content-Type must be that of an OCI or docker manifest or index, not {0:?}")]
    Type(String),
    #[error("the Content-Type is {0} and the body calls itself {1:?}")]
    TwoTypes(&'static str, String),
    #[error("the body is no manifest")]
    Json(#[source] serde_json::Error),
    #[error("an image manifest has config and layers, an index has manifests, and none has both")]
    Shape,
    #[error("it names {0:?}")]
    Digest(String, #[source] DigestError),
    #[error("{0} is named with two sizes")]
    TwoSizes(Digest),
    #[error("it names more than {MOST_NAMED} things")]
    TooMany,
}

impl Manifest {
    /// Reads the body of a push by the headers that came with it.
    ///
    /// # Errors
    /// [`ManifestError`]: what is wrong with it.
    pub fn pushed(headers: &HeaderMap, body: &[u8]) -> Result<Self, ManifestError> {
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let (Some(value), None) = (types.next(), types.next()) else {
            return Err(ManifestError::Type(String::new()));
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        let bare = text.split(';').next().unwrap_or_default().trim();
        let (name, kind) = known(bare).ok_or_else(|| ManifestError::Type(shortened(bare)))?;
        Self::read(name, kind, body)
    }

    /// Reads a child of an index, whose type the index says.
    ///
    /// # Errors
    /// [`ManifestError`]: what is wrong with it.
    pub fn child(kind: Type, body: &[u8]) -> Result<Self, ManifestError> {
        let document = serde_json::from_slice(body).map_err(ManifestError::Json)?;
        Self::of(document, kind)
    }

    fn read(name: &'static str, kind: Type, body: &[u8]) -> Result<Self, ManifestError> {
        let document: json::Document = serde_json::from_slice(body).map_err(ManifestError::Json)?;
        match document.media_type.as_deref() {
            Some(other) if other != name => Err(ManifestError::TwoTypes(name, shortened(other))),
            Some(_) | None => Self::of(document, kind),
        }
    }

    fn of(document: json::Document, kind: Type) -> Result<Self, ManifestError> {
        match (kind, document.config, document.layers, document.manifests) {
            (Type::Image, Some(config), layers, None) => {
                let named = std::iter::once(config).chain(layers.unwrap_or_default());
                let blobs = distinct(named.map(|raw| raw.blob()))?;
                Ok(Self::Image(blobs))
            }
            (Type::Index, None, None, manifests) => {
                let named = manifests.unwrap_or_default().into_iter();
                Ok(Self::Index(distinct(named.map(|raw| raw.child()))?))
            }
            _ => Err(ManifestError::Shape),
        }
    }
}

impl json::Raw {
    fn blob(self) -> Result<Descriptor, ManifestError> {
        let media_type = self.media_type.as_deref().unwrap_or_default();
        let need_not_be_here = media_type.contains(".foreign.") || media_type.contains(".nondistributable.");
        let kind = if self.has_urls && need_not_be_here { Kind::Foreign } else { Kind::Blob };
        self.descriptor(kind)
    }

    fn child(self) -> Result<Descriptor, ManifestError> {
        let media_type = self.media_type.as_deref().unwrap_or_default();
        let kind = known(media_type).map_or(Kind::Blob, |(_, kind)| Kind::Manifest(kind));
        self.descriptor(kind)
    }

    fn descriptor(self, kind: Kind) -> Result<Descriptor, ManifestError> {
        match self.digest.parse() {
            Ok(digest) => Ok(Descriptor { digest, size: self.size, kind }),
            Err(error) => Err(ManifestError::Digest(shortened(&self.digest), error)),
        }
    }
}

impl From<ManifestError> for Refusal {
    fn from(error: ManifestError) -> Self {
        let source =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        let (code, reason) = match &error {
            ManifestError::TwoSizes(_) => (Code::SizeInvalid, Reason::SizeMismatch),
            ManifestError::Type(_)
            | ManifestError::TwoTypes(..)
            | ManifestError::Json(_)
            | ManifestError::Shape
            | ManifestError::Digest(..)
            | ManifestError::TooMany => (Code::ManifestInvalid, Reason::ManifestInvalid),
        };
        Self::new(
            StatusCode::BAD_REQUEST,
            code,
            reason,
            format!("this manifest is not taken: {error}{source}"),
        )
    }
}

fn known(media_type: &str) -> Option<(&'static str, Type)> {
    let types = [
        (OCI_MANIFEST, Type::Image),
        (DOCKER_MANIFEST, Type::Image),
        (OCI_INDEX, Type::Index),
        (DOCKER_LIST, Type::Index),
    ];
    types.into_iter().find(|(name, _)| *name == media_type)
}

/// Each digest once, in the order of the manifest.
fn distinct(
    named: impl Iterator<Item = Result<Descriptor, ManifestError>>,
) -> Result<Vec<Descriptor>, ManifestError> {
    let mut sizes = HashMap::new();
    let mut kept = Vec::new();
    for descriptor in named {
        let descriptor = descriptor?;
        match sizes.insert(descriptor.digest, descriptor.size) {
            Some(size) if size != descriptor.size => return Err(ManifestError::TwoSizes(descriptor.digest)),
            Some(_) => {}
            None if kept.len() == MOST_NAMED => return Err(ManifestError::TooMany),
            None => kept.push(descriptor),
        }
    }
    Ok(kept)
}

/// A client's text in an error: enough to find it again.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests;
