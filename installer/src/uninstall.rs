//! Takes everything of ours out of certs.d for good. Must not run beside an installer, which would put it in again.

use std::io;
use std::path::PathBuf;

use larder_wire::settings::{Mistake, Parsed, Settings, Spoils};

use crate::{lock, memory, restore};

/// How an uninstall ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Uninstalled {
    /// Nothing of ours is left.
    Clean,
    /// What is left, and why.
    Left(Vec<(PathBuf, String)>),
    /// An installer runs; nothing was touched.
    Running,
}

/// Takes our blocks, files and directories out, whichever registries the settings name.
///
/// # Errors
/// When it cannot be told whether an installer runs.
pub fn uninstall(settings: &Settings) -> io::Result<Uninstalled> {
    let _lock = match lock::take(&settings.run_dir) {
        Ok(Some(lock)) => Some(lock),
        Ok(None) => return Ok(Uninstalled::Running),
        // Without a run_dir, no installer runs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let left = restore::withdraw_all(&settings.installer.certs_dir);
    if !left.is_empty() {
        return Ok(Uninstalled::Left(left));
    }
    // The agent reads what we told last. No run_dir, nobody to tell.
    let _ = memory::withdrawn(settings, "uninstalled").write(&settings.run_dir);
    Ok(Uninstalled::Clean)
}

/// Whether settings with mistakes can be relied on for where our entries lie: only then may something be taken out.
#[must_use]
pub fn names_certs_dir(parsed: &Parsed) -> bool {
    let spoilt = |mistake: &Mistake| {
        let about = |words: &str| mistake.what.starts_with(words);
        mistake.spoils == Spoils::File && (about("installer") || about("run_dir") || about("not TOML"))
    };
    !parsed.mistakes.iter().any(spoilt)
}

/// Takes out what an earlier run left, for a process that cannot start and so cannot take care of it. Leaves everything
/// to an installer that runs, and to an administrator who only wants to observe. What is left, and why.
///
/// # Errors
/// As [`uninstall`].
pub fn take_out_left_over(settings: &Settings) -> io::Result<Vec<(PathBuf, String)>> {
    if !memory::may_write(settings) {
        return Ok(Vec::new());
    }
    Ok(match uninstall(settings)? {
        Uninstalled::Left(left) => left,
        Uninstalled::Clean | Uninstalled::Running => Vec::new(),
    })
}

#[cfg(test)]
mod tests;
