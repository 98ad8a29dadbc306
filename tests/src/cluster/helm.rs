//! The chart as helm installs it. Must not build helm: `.ci/helm` does, and `make test` calls it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Cluster, NAMESPACE, Said, programs};
use crate::wait::within_time;

/// A helm that was built from its module believes that it talks to Kubernetes 1.20 when it talks to none.
pub(super) const KUBERNETES: &str = "v1.34.4";

const PATIENCE: Duration = Duration::from_secs(240);

/// helm for one cluster.
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Helm {
    /// Nothing, and one line that says so, where helm is missing.
    #[must_use]
    pub fn find(cluster: &Cluster) -> Option<Self> {
        let Some(program) = program() else {
            programs::tell("no helm: the chart was not installed (.ci/helm builds it)");
            return None;
        };
        Some(Self { program, kubeconfig: cluster.kubeconfig(), home: cluster.dir().to_owned() })
    }

    /// Runs it in the release's namespace, until it ends by itself.
    ///
    /// # Panics
    /// When it cannot be started, or does not end.
    pub async fn run(&self, args: &[&str]) -> Said {
        let mut command = Command::new(&self.program);
        command.args(args).args(["--namespace", NAMESPACE]).env("KUBECONFIG", &self.kubeconfig);
        command.env("HOME", &self.home).stdin(Stdio::null()).kill_on_drop(true);
        let output = within_time(format!("helm {args:?}"), PATIENCE, command.output()).await;
        Said::of(&output.expect("helm can be started"))
    }

    /// The chart's objects, as `helm template` writes them for a file of values.
    pub async fn template(&self, values: &Path) -> String {
        let (values, chart) = (values.display().to_string(), chart().display().to_string());
        let args = ["template", "larder", &chart, "--values", &values, "--kube-version", KUBERNETES];
        self.run(&args).await.well()
    }
}

/// Where the chart stands.
#[must_use]
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/larder")
}

/// Beside what is built.
pub(super) fn program() -> Option<PathBuf> {
    let test = env::current_exe().expect("a running test has a path");
    test.ancestors().map(|dir| dir.join("tools/helm/helm")).find(|path| path.exists())
}
