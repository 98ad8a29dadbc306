//! Small files that others may have put there: bounded, and nothing is waited for. Must not know what they say.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Key and address are far shorter.
pub(crate) const TINY: u64 = 4096;
/// Settings, states and hosts.toml files are.
pub(crate) const SETTINGS: u64 = 1024 * 1024;

/// A regular file of a directory that others may write to. No link is followed.
pub(crate) fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    bounded(open(path, OFlag::O_NOFOLLOW)?, longest)
}

/// A regular file, links followed.
pub(crate) fn linked(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    bounded(open(path, OFlag::empty())?, longest)
}

/// Reads a settings file. It is the administrator's: a link, as a mounted ConfigMap has it, is followed.
///
/// # Errors
/// `FileTooLarge` when it is longer than any settings file, `InvalidData` when it is no text, and whatever the file
/// system says.
pub fn read_settings(path: &Path) -> io::Result<String> {
    let bytes = bounded(File::open(path)?, SETTINGS)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no UTF-8 text"))
}

fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    Ok(file)
}

fn bounded(file: File, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_pipes_and_long_files_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("real"), "1234").unwrap();
        symlink("real", at("link")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&at("real"), 4).unwrap(), b"1234");
        assert_eq!(read(&at("real"), 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read(&at("link"), 4).is_err());
        assert_eq!(linked(&at("link"), 4).unwrap(), b"1234");
        assert!(read(&at("pipe"), 4).is_err() && linked(&at("pipe"), 4).is_err());
        assert!(read(dir.path(), 4).is_err());
    }

    #[test]
    fn settings_are_short_text() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("larder.toml");
        fs::write(&file, b"\xff").unwrap();
        assert_eq!(read_settings(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let zero = Path::new("/dev/zero");
        assert_eq!(read_settings(zero).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&file, "generation = 1").unwrap();
        assert_eq!(read_settings(&file).unwrap(), "generation = 1");
    }
}
