//! What must hold after every test that moves bytes, whatever the test was about: I2 (a stored file hashes to its name),
//! I3 (no temporary file is left), I6 (no file is kept open), I7 (no secret is in any output). I1 stands in the client.
//! Must not know what a test did.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use larder_wire::digest::{Algorithm, Digest};

use crate::image::{sha256, sha512};
use crate::upstream::CANARY;
use crate::wait::until;

/// I2, once: every file under a final name hashes to that name. Returns the digests found, sorted.
#[must_use]
pub fn stored_files_match(data_dir: &Path) -> Vec<String> {
    let mut digests = Vec::new();
    for file in files(&data_dir.join("blobs")) {
        if file.extension().is_some_and(|extension| extension == "meta") {
            let blob = file.with_extension("");
            assert!(blob.exists() || !file.exists(), "{} is beside no manifest", file.display());
            continue;
        }
        // An eviction may take a file between the walk and this look.
        let Ok(bytes) = fs::read(&file) else { continue };
        let digest = named(&file);
        let got = match digest.algorithm() {
            Algorithm::Sha256 => sha256(&bytes),
            Algorithm::Sha512 => sha512(&bytes),
        };
        assert_eq!(got, digest.to_string(), "{} does not hash to its name", file.display());
        digests.push(got);
    }
    digests.sort();
    digests
}

/// I3: nothing is left in `tmp` once fills are over.
pub async fn tmp_gets_empty(data_dir: &Path) {
    let tmp = data_dir.join("tmp");
    until(format!("{} gets empty", tmp.display()), async || files(&tmp).is_empty().then_some(())).await;
}

/// I6: once nothing is read or written, a process holds no temporary file and no file that is gone from the disk; stored
/// files it may keep open, since they are read often.
pub async fn files_get_closed(process: Option<u32>, data_dir: &Path) {
    let tmp = data_dir.join("tmp");
    let held = |path: &PathBuf| {
        // Directories are kept open on purpose: paths are resolved from them.
        path.starts_with(&tmp) && !path.is_dir()
            || path.starts_with(data_dir) && path.to_string_lossy().ends_with(" (deleted)")
    };
    until(format!("temporary and deleted files below {} get closed", data_dir.display()), async || {
        (!open_files(process).iter().any(held)).then_some(())
    })
    .await;
}

/// I6 at the end: this process has nothing open below a directory any more, the lock included.
pub async fn everything_gets_closed(data_dir: &Path) {
    until(format!("everything below {} gets closed", data_dir.display()), async || {
        (!open_files(None).iter().any(|path| path.starts_with(data_dir))).then_some(())
    })
    .await;
}

/// I7: nothing that the harness handed out as a secret stands in an output.
pub fn tells_no_secret(what: &str, output: &str) {
    let leak = output.lines().find(|line| line.contains(CANARY));
    assert_eq!(leak, None, "a secret in {what}");
}

/// What the descriptors of a process (this one, if none) point at.
#[must_use]
pub fn open_files(process: Option<u32>) -> Vec<PathBuf> {
    let process = process.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else { return Vec::new() };
    entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
}

/// Every file below a directory; none when there is no such directory.
#[must_use]
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{}", dir.display());
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The digest that a stored file's path says: `…/<algorithm>/<2 hex>/<hex>`.
fn named(file: &Path) -> Digest {
    let part = |path: Option<&Path>| {
        path.and_then(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let (hex, shard) = (part(Some(file)), part(file.parent()));
    let algorithm = part(file.parent().and_then(Path::parent));
    let digest = algorithm.parse().and_then(|algorithm| Digest::from_parts(algorithm, &hex));
    assert!(digest.is_ok() && hex.starts_with(&shard), "{} is no name for a blob", file.display());
    digest.expect("asserted above")
}
