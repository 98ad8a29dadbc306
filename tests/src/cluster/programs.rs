//! Where the control plane's programs are. Must not build them: `.ci/kubernetes` does, and `make test` calls it.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

const NEEDED: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// A directory with an API server, etcd and kubectl in it.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// In `KUBEBUILDER_ASSETS`, or where its makers put them. When something is missing, says once in one line what was
    /// therefore left out and how to have it.
    #[must_use]
    pub fn find() -> Option<Self> {
        let place = env::var_os("KUBEBUILDER_ASSETS").unwrap_or_else(|| "/usr/local/kubebuilder/bin".into());
        let place = PathBuf::from(place);
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !place.join(name).exists()).collect();
        if missing.is_empty() {
            return Some(Self(place));
        }
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            let (missing, place) = (missing.join(", "), place.display());
            tell(&format!(
                "no {missing} in {place}: the API server suites were not run \
                 (.ci/kubernetes builds them, or set KUBEBUILDER_ASSETS)"
            ));
        });
        None
    }

    /// One of those that are always there.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// One that may not be there. When it is not, says in one line what is therefore left out.
    #[must_use]
    pub fn optional(&self, name: &str, what: &str) -> Option<PathBuf> {
        let path = self.path(name);
        if path.exists() {
            return Some(path);
        }
        tell(&format!("no {}: {what} was not run (.ci/kubernetes builds it)", path.display()));
        None
    }

    /// A command that ends when the thread that starts it does, however that comes.
    pub(super) fn bound(program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }
}

/// Not by eprintln, which the test runner keeps for itself.
pub(super) fn tell(line: &str) {
    // Nothing can be done about a standard error that is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}
