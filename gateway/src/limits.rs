//! What holds for one repository, and the pure comparison of amounts with it: the refusals that a limit leads
//! to and the warnings that come before it. Must not know where limits or amounts come from.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use larder_wire::name::{Repository, Tag};
use larder_wire::oci::Code;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::refuse::{Reason, Refusal};

/// From this share of a limit on, an admitted push carries a warning.
const WARN_PERCENT: u64 = 80;

/// A limit and who set it, in the words of a refusal: `the limits of namespace team-a`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// This much is allowed, more is not.
    pub max: u64,
    pub whose: Arc<str>,
}

/// How an index is held against the image limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Its children were each checked when they were pushed.
    #[default]
    Manifest,
    /// The sum of its children.
    Index,
}

/// Everything that a push to one repository is held against.
#[derive(Clone, Debug)]
pub struct Limits {
    pub image_bytes: Option<Bound>,
    pub scope: Scope,
    pub manifest_bytes: u64,
    pub excluded: Excluded,
    pub quota: Quota,
}

/// The limits that need to know what else is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub tags: Option<Bound>,
    pub images: Option<Bound>,
    pub namespace_repositories: Option<Bound>,
    pub namespace_images: Option<Bound>,
    pub namespace_tags: Option<Bound>,
}

/// What a [`Quota`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    Tags,
    Images,
    NamespaceRepositories,
    NamespaceImages,
    NamespaceTags,
}

/// How much of a limit is used, what is being pushed included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub counted: Counted,
    pub used: u64,
    pub bound: Bound,
}

/// Tags that do not count: signatures and other referrers, by a pattern.
#[derive(Clone, Debug)]
pub struct Excluded(Arc<Regex>);

impl Excluded {
    #[must_use]
    pub(crate) fn new(pattern: Regex) -> Self {
        Self(Arc::new(pattern))
    }

    #[must_use]
    pub fn counts(&self, tag: &Tag) -> bool {
        !self.0.is_match(tag.as_str())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn pattern(&self) -> &str {
        self.0.as_str()
    }
}

impl Quota {
    /// The limits that are set.
    pub fn bounds(&self) -> impl Iterator<Item = (Counted, &Bound)> {
        let all = [
            (Counted::Tags, &self.tags),
            (Counted::Images, &self.images),
            (Counted::NamespaceRepositories, &self.namespace_repositories),
            (Counted::NamespaceImages, &self.namespace_images),
            (Counted::NamespaceTags, &self.namespace_tags),
        ];
        all.into_iter().filter_map(|(counted, bound)| Some((counted, bound.as_ref()?)))
    }

    #[must_use]
    pub fn counts_tags(&self) -> bool {
        self.tags.is_some() || self.namespace_tags.is_some()
    }

    #[must_use]
    pub fn counts_images(&self) -> bool {
        self.images.is_some() || self.namespace_images.is_some()
    }
}

impl Used {
    /// The warning of an admitted push that comes close to this limit.
    #[must_use]
    pub fn warning(&self, repository: &Repository) -> Option<String> {
        let Self { counted, used, bound } = self;
        near(*used, bound.max).then(|| {
            format!("{} of {} allowed ({})", counted.amount(repository, *used), bound.max, bound.whose)
        })
    }

    /// The refusal of a push that would come to `used`.
    #[must_use]
    pub fn refusal(&self, repository: &Repository) -> Refusal {
        let Self { counted, used, bound } = self;
        let message = format!(
            "with this push {}; the limit is {} ({}). {}",
            counted.amount(repository, *used),
            bound.max,
            bound.whose,
            counted.advice()
        );
        Refusal::denied(counted.reason(), message)
            .detail(json!({"limit": bound.max, "actual": used, "counted": counted, "policy": bound.whose}))
    }
}

impl Counted {
    fn reason(self) -> Reason {
        match self {
            Self::Tags => Reason::Tags,
            Self::Images => Reason::Images,
            Self::NamespaceRepositories => Reason::NamespaceRepositories,
            Self::NamespaceImages => Reason::NamespaceImages,
            Self::NamespaceTags => Reason::NamespaceTags,
        }
    }

    fn amount(self, repository: &Repository, used: u64) -> String {
        let namespace = namespace(repository);
        match self {
            Self::Tags => format!("{repository} has {used} tags"),
            Self::Images => format!("{repository} has {used} images"),
            Self::NamespaceRepositories => format!("namespace {namespace} has {used} repositories"),
            Self::NamespaceImages => format!("namespace {namespace} has {used} images"),
            Self::NamespaceTags => format!("namespace {namespace} has {used} tags"),
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Tags | Self::NamespaceTags => {
                "Delete tags that are no longer needed, push to a tag that exists, or ask for a higher limit."
            }
            Self::Images | Self::NamespaceImages => {
                "Delete images that are no longer needed, or ask for a higher limit."
            }
            Self::NamespaceRepositories => "Push to a repository that exists, or ask for a higher limit.",
        }
    }
}

/// The namespace whose limits hold for a repository: the first segment of its name.
#[must_use]
pub fn namespace(repository: &Repository) -> &str {
    let name = repository.as_str();
    name.split_once('/').map_or(name, |(first, _)| first)
}

/// Holds an image's real size against the limit.
///
/// # Errors
/// A refusal when it is larger.
pub fn image(repository: &Repository, limit: Option<&Bound>, size: u64) -> Result<(), Refusal> {
    match limit {
        Some(bound) if size > bound.max => {
            Err(too_large("image size", Reason::ImageSize, repository, bound, size))
        }
        _ => Ok(()),
    }
}

/// The warning of an admitted image that comes close to its limit.
#[must_use]
pub fn image_warning(repository: &Repository, limit: Option<&Bound>, size: u64) -> Option<String> {
    let bound = limit.filter(|bound| near(size, bound.max))?;
    let (size, max) = in_words(size, bound.max);
    Some(format!("image size {size} of {max} allowed for {repository} ({})", bound.whose))
}

/// The refusal of an upload that can be part of no image that the limit allows. `seen` are the bytes so far,
/// or announced.
#[must_use]
pub fn upload_too_large(repository: &Repository, bound: &Bound, seen: u64) -> Refusal {
    too_large("one layer's size", Reason::UploadSize, repository, bound, seen)
}

/// The refusal of a manifest that is longer than what is read of one.
#[must_use]
pub fn manifest_too_large(repository: &Repository, max: u64) -> Refusal {
    let message = format!(
        "the manifest is longer than {max} bytes, the most that is taken for {repository}; \
         name fewer layers or annotations."
    );
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ManifestInvalid, Reason::ManifestSize, message)
        .detail(json!({"limit": max}))
}

fn too_large(what: &str, reason: Reason, repository: &Repository, bound: &Bound, size: u64) -> Refusal {
    let (actual, max) = in_words(size, bound.max);
    let message = format!(
        "{what} {actual} exceeds the limit of {max} for {repository} ({}). \
         Make the image smaller, or ask for a higher limit.",
        bound.whose
    );
    Refusal::denied(reason, message)
        .detail(json!({"limit": bound.max, "actual": size, "policy": bound.whose}))
}

fn near(used: u64, max: u64) -> bool {
    max > 0 && u128::from(used) * 100 >= u128::from(max) * u128::from(WARN_PERCENT)
}

/// Two sizes for people: rounded, unless that would make them look the same.
fn in_words(size: u64, max: u64) -> (String, String) {
    let rounded = (Bytes(size).to_string(), Bytes(max).to_string());
    if rounded.0 == rounded.1 && size != max {
        return (format!("{size} bytes"), format!("{max} bytes"));
    }
    rounded
}

/// `1.4 GiB`, `1 GiB`, `17 bytes`
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = units.into_iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} bytes", self.0);
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {unit}", tenths / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Repository {
        "team-a/app".parse().unwrap()
    }

    fn bound(max: u64) -> Bound {
        Bound { max, whose: "the default limits".into() }
    }

    #[test]
    fn an_image_may_be_as_large_as_the_limit_and_no_byte_larger() {
        let limit = bound(1 << 30);
        assert!(image(&app(), Some(&limit), 1 << 30).is_ok());
        assert!(image(&app(), None, u64::MAX).is_ok());
        let refusal = image(&app(), Some(&limit), (1 << 30) + 1).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.code), (403, Code::Denied));
        assert!(refusal.message.starts_with(
            "image size 1073741825 bytes exceeds the limit of 1073741824 bytes for team-a/app (the default limits)"
        ), "{}", refusal.message);
        let refusal = image(&app(), Some(&limit), 1_503_238_554).unwrap_err();
        assert!(refusal.message.contains("1.4 GiB exceeds the limit of 1 GiB"), "{}", refusal.message);
        assert_eq!(refusal.detail["actual"], 1_503_238_554);
    }

    #[test]
    fn warnings_begin_at_four_fifths() {
        let used = |used| Used { counted: Counted::Tags, used, bound: bound(10) }.warning(&app());
        assert_eq!(used(7), None);
        assert_eq!(used(8).as_deref(), Some("team-a/app has 8 tags of 10 allowed (the default limits)"));
        assert_eq!(image_warning(&app(), Some(&bound(1000)), 799), None);
        assert!(image_warning(&app(), Some(&bound(1000)), 800).is_some());
    }

    #[test]
    fn the_namespace_is_the_first_segment() {
        assert_eq!(namespace(&app()), "team-a");
        assert_eq!(namespace(&"alpine".parse().unwrap()), "alpine");
    }
}
