//! The certs.d directories that this run has written to: the one that the settings name, and those before, until
//! nothing of ours is left in them. Must not write anything but removals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use larder_wire::settings::Settings;

use crate::{memory, restore};

/// What is left, and why.
type Left = Vec<(PathBuf, String)>;

/// Where something of ours may lie.
#[derive(Debug, Default)]
pub(crate) struct Places {
    current: Option<PathBuf>,
    /// Not to be written to any more, with what was left there at the last try.
    before: BTreeMap<PathBuf, Left>,
}

impl Places {
    /// Follows the settings: clears up a certs.d that is new to us, and takes our entries out of one that is not to be
    /// written to any more, again until it succeeds. Whether it is a new one.
    pub(crate) fn follow(&mut self, settings: &Settings) -> bool {
        let now = memory::may_write(settings).then(|| settings.installer.certs_dir.clone());
        let changed = self.current != now;
        if changed {
            if let Some(before) = std::mem::replace(&mut self.current, now) {
                self.before.insert(before, Left::new());
            }
            if let Some(current) = &self.current {
                self.before.remove(current);
                clear_up(current);
            }
        }
        self.before.retain(|certs_dir, left| !withdraw(certs_dir, left));
        changed
    }

    /// Takes everything out, but from the current one only when the settings do not keep it. What is left there, or
    /// `None` when it was to be kept.
    pub(crate) fn leave(mut self, settings: &Settings) -> Option<Left> {
        self.before.retain(|certs_dir, left| !withdraw(certs_dir, left));
        let mut left = Left::new();
        memory::leaves_nothing(settings).then(|| {
            withdraw(&settings.installer.certs_dir, &mut left);
            left
        })
    }
}

fn clear_up(certs_dir: &Path) {
    match restore::tidy(certs_dir) {
        Ok(left) => tell(&left),
        Err(error) => {
            tracing::error!(certs_dir = %certs_dir.display(), %error, "cannot clear up after an earlier run");
        }
    }
}

/// Whether everything went. What is left is told when it is not what was left before.
fn withdraw(certs_dir: &Path, before: &mut Left) -> bool {
    let left = restore::withdraw_all(certs_dir);
    if left != *before {
        tell(&left);
    }
    *before = left;
    before.is_empty()
}

fn tell(left: &Left) {
    for (path, why) in left {
        tracing::error!(path = %path.display(), "cannot take our entry out: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Certificates, Entry, Made};
    use larder_wire::settings::{Capability, InstallerMode};
    use std::fs;
    use std::os::unix::fs::symlink;

    fn settings(certs_dir: &Path) -> Settings {
        let mut settings = Settings::default();
        settings.installer.certs_dir = certs_dir.to_owned();
        settings
    }

    fn owned() -> Vec<u8> {
        let (mirror, capabilities) = (([127, 0, 0, 1], 1).into(), [Capability::Pull].as_slice());
        let certificates = Certificates::default();
        Entry { mirror, capabilities, certificates }.file(Made::default())
    }

    #[test]
    fn observing_takes_out_what_managing_put_in() {
        let certs = tempfile::tempdir().unwrap();
        let hosts = certs.path().join("docker.io/hosts.toml");
        fs::create_dir(certs.path().join("docker.io")).unwrap();
        let (mut places, mut settings) = (Places::default(), settings(certs.path()));
        settings.installer.mode = InstallerMode::Observe;
        fs::write(&hosts, owned()).unwrap();
        assert!(!places.follow(&settings), "who has only observed leaves what is there");
        assert!(hosts.exists());
        settings.installer.mode = InstallerMode::Manage;
        assert!(places.follow(&settings));
        assert!(!places.follow(&settings));
        assert!(hosts.exists());
        settings.installer.mode = InstallerMode::Observe;
        assert!(places.follow(&settings));
        assert!(!hosts.exists());
    }

    #[test]
    fn what_could_not_be_taken_out_is_tried_again() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, real) = (old.path().join("docker.io"), new.path().join("real"));
        fs::create_dir(&dir).unwrap();
        fs::write(&real, owned()).unwrap();
        symlink(&real, dir.join("hosts.toml")).unwrap();
        let mut places = Places::default();
        places.follow(&settings(old.path()));
        places.follow(&settings(&new.path().join("certs.d")));
        assert_eq!(places.before.keys().collect::<Vec<_>>(), [old.path()]);
        fs::remove_file(dir.join("hosts.toml")).unwrap();
        fs::rename(&real, dir.join("hosts.toml")).unwrap();
        assert!(!places.follow(&settings(&new.path().join("certs.d"))));
        assert!(places.before.is_empty() && !dir.join("hosts.toml").exists());
    }
}
