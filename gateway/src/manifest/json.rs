//! The JSON of manifests, read as strictly as it takes for the registry behind to read the same. Go's decoder
//! takes `Layers` for `layers` and the last of two equal names: both are refused here. Must not keep what
//! nobody asks for.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The parts of a manifest or an index that matter to limits.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) media_type: Option<String>,
    pub(super) config: Option<Raw>,
    pub(super) layers: Option<Vec<Raw>>,
    pub(super) manifests: Option<Vec<Raw>>,
}

/// A descriptor as it is written.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) media_type: Option<String>,
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) has_urls: bool,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a manifest")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut names = Names::new(&["mediaType", "config", "layers", "manifests"]);
                let mut document = Document::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match names.take(&key)? {
                        Some("mediaType") => document.media_type = map.next_value()?,
                        Some("config") => document.config = map.next_value()?,
                        Some("layers") => document.layers = map.next_value()?,
                        Some("manifests") => document.manifests = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(document)
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a descriptor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut names = Names::new(&["mediaType", "digest", "size", "urls"]);
                let (mut media_type, mut digest, mut size, mut urls) = (None, None, None, None);
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match names.take(&key)? {
                        Some("mediaType") => media_type = map.next_value()?,
                        Some("digest") => digest = Some(map.next_value()?),
                        Some("size") => size = Some(map.next_value()?),
                        Some("urls") => urls = map.next_value::<Option<Vec<String>>>()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Raw {
                    media_type,
                    digest: digest.ok_or_else(|| Error::missing_field("digest"))?,
                    size: size.ok_or_else(|| Error::missing_field("size"))?,
                    has_urls: urls.is_some_and(|urls| !urls.is_empty()),
                })
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The names that an object may use once, and only as they are spelled.
struct Names {
    known: &'static [&'static str],
    taken: Vec<&'static str>,
}

impl Names {
    fn new(known: &'static [&'static str]) -> Self {
        Self { known, taken: Vec::new() }
    }

    /// The known name that this key is, `None` for one that does not matter.
    fn take<E: Error>(&mut self, key: &str) -> Result<Option<&'static str>, E> {
        let Some(name) = self.known.iter().find(|name| same_folded(name, key)).copied() else {
            return Ok(None);
        };
        if name != key {
            return Err(E::custom(format_args!("{name} is spelled another way")));
        }
        if self.taken.contains(&name) {
            return Err(E::duplicate_field(name));
        }
        self.taken.push(name);
        Ok(Some(name))
    }
}

/// Equal in Go's folding of Unicode letters, to which the long s is an s and the Kelvin sign a k.
fn same_folded(name: &str, key: &str) -> bool {
    let fold = |text: &str| {
        text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect::<String>()
    };
    key.len() <= 4 * name.len() && fold(name) == fold(key)
}
