//! Images that containerd can really unpack: gzipped tar layers, their config, a manifest and an index over it. The same
//! seed makes the same bytes. Must not talk to a registry.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use larder_wire::digest::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes and what names them.
#[derive(Clone)]
pub struct Piece {
    pub digest: String,
    pub bytes: Vec<u8>,
}

/// A whole image for this machine's platform.
#[derive(Clone)]
pub struct LayeredImage {
    pub layers: Vec<Piece>,
    pub config: Piece,
    pub manifest: Piece,
    pub index: Piece,
}

impl LayeredImage {
    /// One layer per size, each with one file of that many bytes that no compression makes smaller.
    ///
    /// # Errors
    /// A layer cannot be written.
    pub fn new(seed: u64, sizes: &[usize]) -> Result<Self> {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for (number, size) in (1_u64..).zip(sizes) {
            let tar = tar(number, &noise(seed.wrapping_mul(1000) + number, *size))?;
            diff_ids.push(digest_of(&tar));
            layers.push(Piece::new(gzip(&tar)?));
        }
        let config = Piece::new(json_bytes(&json!({
            "architecture": architecture(), "os": "linux", "config": {"Cmd": ["/layer-1"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })));
        let manifest = Piece::new(json_bytes(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(CONFIG),
            "layers": layers.iter().map(|layer| layer.descriptor(LAYER)).collect::<Vec<_>>(),
        })));
        let mut listed = manifest.descriptor(MANIFEST);
        listed["platform"] = json!({"architecture": architecture(), "os": "linux"});
        let index =
            Piece::new(json_bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]})));
        Ok(Self { layers, config, manifest, index })
    }

    /// The sum of all that one pull moves.
    #[must_use]
    pub fn size(&self) -> usize {
        self.pieces().map(|piece| piece.bytes.len()).sum()
    }

    /// Everything that a pull fetches by digest: index, manifest, config, layers.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        [&self.index, &self.manifest, &self.config].into_iter().chain(&self.layers)
    }
}

impl Piece {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest_of(&bytes), bytes }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn json_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Go's word for this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar(number: u64, content: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    let mut builder = tar::Builder::new(Vec::with_capacity(content.len() + 4096));
    builder.append_data(&mut header, format!("layer-{number}"), content).context("a tar entry")?;
    builder.into_inner().context("the end of a tar")
}

/// Stored, not compressed: noise does not get smaller.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() + 4096), Compression::none());
    encoder.write_all(bytes).context("gzip")?;
    encoder.finish().context("the end of gzip")
}

/// Bytes that look random and are the same for the same seed: SHA-256 in counter mode.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 32);
    for counter in 0_u64.. {
        if bytes.len() >= size {
            break;
        }
        bytes.extend_from_slice(
            &Sha256::new().chain_update(seed.to_be_bytes()).chain_update(counter.to_be_bytes()).finalize(),
        );
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_layer_unpacks_to_its_file_and_its_diff_id() {
        let image = LayeredImage::new(7, &[1000, 70_000]).unwrap();
        let config: Value = serde_json::from_slice(&image.config.bytes).unwrap();
        for (layer, diff_id) in image.layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(&layer.bytes[..]).read_to_end(&mut tar).unwrap();
            assert_eq!(diff_id, &digest_of(&tar));
        }
        assert_eq!(image.index.digest, LayeredImage::new(7, &[1000, 70_000]).unwrap().index.digest);
        assert_ne!(image.index.digest, LayeredImage::new(8, &[1000, 70_000]).unwrap().index.digest);
    }
}
