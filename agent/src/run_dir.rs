//! What a running agent leaves in run_dir for the installer: the key it proves itself with, and where it listens.
//! Must not show the key to anybody but the caller and the file.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use larder_wire::digest::hex;
use larder_wire::proof::{ADDRESS_FILE, KEY_FILE};

use crate::replace;

/// Random bytes as lower-case hex.
///
/// # Errors
/// When the system has no randomness to give.
pub(crate) fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex(&bytes))
}

/// Makes run_dir when it is missing, and writes the key (64 hex digits; these bytes are the key) and the address.
///
/// # Errors
/// When run_dir cannot be made or written.
pub(crate) fn prepare(run_dir: &Path, key: &str, mirror: SocketAddr) -> io::Result<()> {
    if !run_dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o775).create(run_dir)?;
        // The umask took the group's right to write: the installer is in our group.
        fs::set_permissions(run_dir, Permissions::from_mode(0o775))?;
    }
    replace::file(&run_dir.join(ADDRESS_FILE), mirror.to_string().as_bytes(), 0o644)?;
    replace::file(&run_dir.join(KEY_FILE), key.as_bytes(), 0o640)
}

/// Takes the address back: nobody listens there any more.
pub(crate) fn leave(run_dir: &Path) {
    // Whoever finds it all the same is refused at the proof.
    let _ = fs::remove_file(run_dir.join(ADDRESS_FILE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_for_the_group_and_the_address_for_everyone() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("a/run");
        let key = random_hex::<32>().unwrap();
        prepare(&run_dir, &key, "127.0.0.1:19500".parse().unwrap()).unwrap();
        let mode = |name: &str| fs::metadata(run_dir.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(""), mode("instance"), mode("address")), (0o775, 0o640, 0o644));
        assert_eq!(fs::read_to_string(run_dir.join("instance")).unwrap(), key);
        assert_eq!(fs::read_to_string(run_dir.join("address")).unwrap(), "127.0.0.1:19500");
        assert_eq!(key.len(), 64);
        leave(&run_dir);
        assert!(!run_dir.join("address").exists());
    }

    #[test]
    fn no_two_keys_are_alike() {
        assert_ne!(random_hex::<32>().unwrap(), random_hex::<32>().unwrap());
    }
}
