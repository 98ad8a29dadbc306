//! What a manifest says of itself: its type and what it links to. Read, never re-serialised. Must not judge whether the
//! bytes are right.

use larder_wire::digest::Digest;
use serde::Deserialize;

use crate::error::UpstreamError;

/// What a manifest says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub media_type: String,
    /// Config, layers and children, those with a digest that can be verified.
    pub digests: Vec<Digest>,
}

#[derive(Deserialize)]
struct Parsed {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

impl Document {
    /// Reads the type (the header's, which a `mediaType` in the document must not contradict) and the links. A document
    /// that is no JSON of this shape is opaque: it is kept under its digest and links to nothing.
    pub(crate) fn read(bytes: &[u8], header: Option<String>) -> Result<Self, UpstreamError> {
        let document: Option<Parsed> = serde_json::from_slice(bytes).ok();
        let inner = document.as_ref().and_then(|document| document.media_type.clone());
        let plain = |media_type: &String| {
            matches!(media_type.as_str(), "" | "text/plain" | "application/octet-stream" | "application/json")
        };
        let media_type = match (header.filter(|header| !plain(header)), inner) {
            (Some(header), Some(inner)) if header != inner.to_ascii_lowercase() => {
                return Err(UpstreamError::Unusable("its Content-Type is not the manifest's mediaType"));
            }
            (Some(header), _) => header,
            (None, Some(inner)) => inner,
            (None, None) => {
                return Err(UpstreamError::Unusable("it does not say what kind of manifest it sent"));
            }
        };
        check_type(&media_type)?;
        let Some(document) = document else { return Ok(Self { media_type, digests: Vec::new() }) };
        if document.layers.is_some() && document.manifests.is_some() {
            return Err(UpstreamError::UnsupportedType(
                "of a document that is index and manifest at once".to_owned(),
            ));
        }
        let lists =
            [document.config.map(|config| vec![config]), document.layers, document.manifests, document.blobs];
        let descriptors = lists.into_iter().flatten().flatten();
        Ok(Self { media_type, digests: descriptors.filter_map(|one| one.digest.parse().ok()).collect() })
    }
}

/// Types that cannot be verified by hashing what was sent: a schema 1 digest leaves the signatures out.
pub(crate) fn check_type(media_type: &str) -> Result<(), UpstreamError> {
    let schema1 = media_type.starts_with("application/vnd.docker.distribution.manifest.v1");
    if schema1 { Err(UpstreamError::UnsupportedType(media_type.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

    fn read(text: &str, header: &str) -> Result<Document, UpstreamError> {
        Document::read(text.as_bytes(), (!header.is_empty()).then(|| header.to_owned()))
    }

    #[test]
    fn links_are_config_layers_and_children() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let text = format!(
            r#"{{"mediaType":"{OCI}","config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}},{{"digest":"md5:x"}}]}}"#,
            digest("a"),
            digest("b")
        );
        let document = read(&text, OCI).unwrap();
        assert_eq!(document.media_type, OCI);
        assert_eq!(
            document.digests.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [digest("a"), digest("b")]
        );
        let index = format!(r#"{{"manifests":[{{"digest":"{}"}}]}}"#, digest("c"));
        assert_eq!(read(&index, "a/b").unwrap().digests.len(), 1);
    }

    #[test]
    fn a_type_is_never_guessed() {
        assert_eq!(read(&format!(r#"{{"mediaType":"{OCI}"}}"#), "text/plain").unwrap().media_type, OCI);
        assert_eq!(read("no json", "x/opaque").unwrap().media_type, "x/opaque");
        assert!(matches!(
            read(&format!(r#"{{"mediaType":"{OCI}"}}"#), "a/b"),
            Err(UpstreamError::Unusable(_))
        ));
        assert!(matches!(read("{}", ""), Err(UpstreamError::Unusable(_))));
        let both = r#"{"layers":[],"manifests":[]}"#;
        assert!(matches!(read(both, OCI), Err(UpstreamError::UnsupportedType(_))));
        let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(read("{}", schema1), Err(UpstreamError::UnsupportedType(_))));
    }
}
