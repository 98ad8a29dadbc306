//! What the installer tells about each registry, and `run_dir/installer.json`, where the agent reads it for its report,
//! its metric and `/stats`. Must not decide anything: the words come from [`crate::plan`].

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::entry::random_name;
use crate::small_file::{self, SETTINGS};

/// The file in `run_dir`.
pub(crate) const STATE_FILE: &str = "installer.json";

/// What stands in certs.d for a registry, as far as Larder is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Our entry is there.
    Installed,
    /// Nothing is there yet; it comes when the agent has proven itself.
    Waiting,
    /// Our entry was taken out, or is kept out.
    Withdrawn,
    /// Somebody else's entry sends containerd to our address.
    External,
    /// Nothing is written, for a reason that a person has to change.
    Refused,
}

/// Why nothing of ours is there. The names are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    ConfigPathUnset,
    TwoRoots,
    OtherUpstream,
    DefaultShadowed,
    SecondRootShadowed,
    Unparsable,
    InlineHosts,
    Generated,
    Symlink,
    ForeignOwner,
    AlreadyListed,
    FightingWriter,
    ProbeFailed,
    NotOurAgent,
    PortInUse,
    Bypass,
}

/// A reason with words for a person: what, where, the consequence, the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) reason: Reason,
    pub(crate) words: String,
}

/// The whole of `installer.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub registries: Vec<RegistryState>,
}

/// One registry's line. Plain text, so that an agent reads the file of an older or newer installer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryState {
    pub registry: String,
    /// `installed`, `waiting`, `withdrawn`, `external` or `refused`
    pub state: String,
    /// One of the reasons, or empty
    pub reason: String,
    /// Words for a person, or empty
    pub message: String,
    /// Since when `state` and `reason` are so: RFC 3339, UTC
    pub since: String,
}

/// Reads what the installer last told; `None` when it told nothing readable yet.
#[must_use]
pub fn read(run_dir: &Path) -> Option<State> {
    serde_json::from_slice(&small_file::read(&run_dir.join(STATE_FILE), SETTINGS).ok()?).ok()
}

impl State {
    /// Replaces `installer.json` in one step. No fsync: it is true only until the node restarts.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn write(&self, run_dir: &Path) -> io::Result<()> {
        let temp = run_dir.join(format!(".{STATE_FILE}.{}", random_name()));
        let written = create_new(&temp).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(self)?)?;
            fs::rename(&temp, run_dir.join(STATE_FILE))
        });
        if written.is_err() {
            // Best effort: the name is ours alone, and the write's own error is the one to tell.
            let _ = fs::remove_file(&temp);
        }
        written
    }

    /// Keeps `since` of what did not change.
    pub(crate) fn since_then(&mut self, before: &Self) {
        for registry in &mut self.registries {
            let same = before.registries.iter().find(|old| {
                (&old.registry, &old.state, &old.reason)
                    == (&registry.registry, &registry.state, &registry.reason)
            });
            if let Some(old) = same {
                registry.since.clone_from(&old.since);
            }
        }
    }
}

impl RegistryState {
    /// Whether our entry is there.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.state == Standing::Installed.as_str()
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

impl Standing {
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Waiting => "waiting",
            Self::Withdrawn => "withdrawn",
            Self::External => "external",
            Self::Refused => "refused",
        }
    }
}

impl Reason {
    /// With the words that tell it.
    pub(crate) fn because(self, words: impl Into<String>) -> Told {
        Told { reason: self, words: words.into() }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants' own names are the contract's.
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(state: Standing, reason: &str, since: &str) -> RegistryState {
        RegistryState {
            registry: "docker.io".into(),
            state: state.to_string(),
            reason: reason.into(),
            message: String::new(),
            since: since.into(),
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_no_temp_is_left() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let state = State { registries: vec![line(Standing::Refused, "TwoRoots", "2026-11-20T09:00:00Z")] };
        state.write(dir.path()).unwrap();
        assert_eq!(read(dir.path()), Some(state));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let text = fs::read_to_string(dir.path().join(STATE_FILE)).unwrap();
        assert_eq!(
            text,
            r#"{"registries":[{"registry":"docker.io","state":"refused","reason":"TwoRoots","message":"","since":"2026-11-20T09:00:00Z"}]}"#
        );
    }

    #[test]
    fn a_pipe_and_a_link_are_no_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STATE_FILE);
        State::default().write(dir.path()).unwrap();
        fs::rename(&path, dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", &path).unwrap();
        assert_eq!(read(dir.path()), None);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(dir.path()), None);
    }

    #[test]
    fn noise_is_no_state() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(STATE_FILE), "{\"registries\":[").unwrap();
        assert_eq!(read(dir.path()), None);
    }

    #[test]
    fn since_is_kept_while_state_and_reason_are_the_same() {
        let before = State { registries: vec![line(Standing::Waiting, "ProbeFailed", "then")] };
        let mut same = State { registries: vec![line(Standing::Waiting, "ProbeFailed", "now")] };
        same.since_then(&before);
        assert_eq!(same.registries[0].since, "then");
        let mut other = State { registries: vec![line(Standing::Waiting, "", "now")] };
        other.since_then(&before);
        assert_eq!(other.registries[0].since, "now");
    }
}
