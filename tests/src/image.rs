//! Makes OCI and docker images from a seed: the same seed and sizes give the same bytes and digests on every machine.
//! Layers are plain tars, so that a real containerd can unpack them. Must not store or serve anything.

use bytes::Bytes;
use larder_wire::digest::hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Bytes with their sha256 digest and media type: what a descriptor points at.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Bytes,
    /// `sha256:HEX`
    pub digest: String,
    pub media_type: String,
}

/// An image for this machine's platform, with an index of one entry over its manifest.
#[derive(Clone, Debug)]
pub struct Image {
    pub index: Object,
    pub manifest: Object,
    pub config: Object,
    pub layers: Vec<Object>,
}

struct Types {
    index: &'static str,
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
}

impl Object {
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), bytes, media_type: media_type.to_owned() }
    }

    /// A blob of so many bytes of noise.
    #[must_use]
    pub fn noise(seed: u64, size: usize) -> Self {
        Self::new("application/octet-stream", noise(seed, size))
    }

    /// The sha256 hex alone, as it stands in the store.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.digest.rsplit(':').next().unwrap_or_default()
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The descriptor that names this object.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

impl Image {
    /// An OCI image whose layers have these sizes in bytes (at least [`SMALLEST_LAYER`]).
    #[must_use]
    pub fn oci(seed: u64, layer_sizes: &[usize]) -> Self {
        let types = Types { index: OCI_INDEX, manifest: OCI_MANIFEST, config: OCI_CONFIG, layer: OCI_LAYER };
        Self::of(&types, seed, layer_sizes)
    }

    /// The same as docker's schema 2.
    #[must_use]
    pub fn docker(seed: u64, layer_sizes: &[usize]) -> Self {
        let types = Types {
            index: DOCKER_LIST,
            manifest: DOCKER_MANIFEST,
            config: DOCKER_CONFIG,
            layer: DOCKER_LAYER,
        };
        Self::of(&types, seed, layer_sizes)
    }

    fn of(types: &Types, seed: u64, layer_sizes: &[usize]) -> Self {
        let layers: Vec<Object> = (0_u64..)
            .zip(layer_sizes)
            .map(|(n, &size)| Object::new(types.layer, layer(seed.wrapping_mul(1000).wrapping_add(n), size)))
            .collect();
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": {"larder.seed": seed.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Object::new(types.config, config.to_string());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": types.manifest, "config": config.descriptor(),
            "layers": layers.iter().map(Object::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Object::new(types.manifest, manifest.to_string());
        let mut entry = manifest.descriptor();
        entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
        let index = json!({"schemaVersion": 2, "mediaType": types.index, "manifests": [entry]});
        Self { index: Object::new(types.index, index.to_string()), manifest, config, layers }
    }

    /// Config and layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Object> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// The smallest tar with a file in it: its header and the two empty blocks at the end.
pub const SMALLEST_LAYER: usize = 1536;

/// `sha256:HEX` of the bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// `sha512:HEX` of the bytes.
#[must_use]
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

/// Bytes that do not compress and differ by seed.
#[must_use]
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A tar of exactly `size` bytes with one file of noise; what does not fill a block is padding after its end.
fn layer(seed: u64, size: usize) -> Vec<u8> {
    assert!(size >= SMALLEST_LAYER, "a layer of {size} bytes is no tar");
    let content = (size - SMALLEST_LAYER) / 512 * 512;
    let mut tar = vec![0; 512];
    let mut put = |at: usize, text: &[u8]| tar[at..at + text.len()].copy_from_slice(text);
    put(0, format!("noise-{seed}").as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{content:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = tar.iter().map(|&byte| u32::from(byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(noise(seed, content));
    tar.resize(size, 0);
    tar
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_image_and_another_seed_another() {
        let image = Image::oci(7, &[4096, 5000]);
        assert_eq!(image.index.digest, Image::oci(7, &[4096, 5000]).index.digest);
        assert_ne!(image.index.digest, Image::oci(8, &[4096, 5000]).index.digest);
        assert_eq!(image.layers.iter().map(Object::len).collect::<Vec<_>>(), [4096, 5000]);
    }

    #[test]
    fn a_layer_is_a_tar_with_a_right_checksum() {
        let tar = layer(1, 5000);
        let field = std::str::from_utf8(&tar[148..154]).unwrap();
        let mut header = tar[..512].to_vec();
        header[148..156].fill(b' ');
        assert_eq!(u32::from_str_radix(field, 8).unwrap(), header.iter().map(|&b| u32::from(b)).sum::<u32>());
    }
}
