//! What the chart puts around the controller's pods: namespaces, accounts, rights, the Service that agents report to.
//! Must not grant anything that the chart does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Cluster, Said, helm, programs, wait_for};
use crate::wait::DEADLINE;

/// Where the chart is installed.
pub const NAMESPACE: &str = "larder-system";
/// Where the agents run.
pub const AGENTS: &str = "larder-agents";

const ACCOUNT: &str = "larder-controller";
/// One that golden files can know.
const SERVICE_ADDRESS: &str = "10.96.0.7";
const WANTED: [&str; 7] =
    ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service"];

impl Cluster {
    /// Puts everything around the controller's pods there, and gives the kubeconfig of its own account. Where helm is
    /// missing that is the administrator's, and one line says so.
    ///
    /// # Panics
    /// When the chart cannot be rendered, or the API server refuses it.
    pub async fn install_rights(&self) -> PathBuf {
        self.namespace_called(NAMESPACE).await;
        if let Some(helm) = helm::program() {
            self.apply_all(objects(&helm)).await;
        } else {
            programs::tell("no helm: the controller runs as administrator (.ci/helm builds it)");
            self.namespace_called(AGENTS).await;
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE},
                "spec": {"ports": [{"port": 8080}]},
            });
            self.apply_all(vec![service]).await;
        }
        self.account_of_chart(ACCOUNT, &["list", "nodes"]).await
    }

    /// The kubeconfig of an account that the chart makes, once it may do what is named; the administrator's where helm
    /// is missing.
    pub async fn account_of_chart(&self, account: &str, may: &[&str]) -> PathBuf {
        if helm::program().is_none() {
            return self.kubeconfig();
        }
        let whom = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        // What RBAC goes by is a watch behind.
        wait_for(format!("{account} may {may:?}"), DEADLINE, async || {
            let said = self.kubectl(&[&["auth", "can-i"], may, &[&whom]].concat(), "").await;
            (said.code == Some(0)).then_some(())
        })
        .await;
        self.kubeconfig_of(NAMESPACE, account).await
    }

    async fn apply_all(&self, mut objects: Vec<Value>) {
        for service in objects.iter_mut().filter(|object| object["kind"] == "Service") {
            service["spec"]["clusterIP"] = SERVICE_ADDRESS.into();
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let _ = self.kubectl(&["apply", "--filename", "-"], &list.to_string()).await.well();
    }
}

/// The chart's objects of the wanted kinds.
fn objects(helm: &Path) -> Vec<Value> {
    let mut command = Command::new(helm);
    command.args(["template", "larder"]).arg(helm::chart()).args(["--namespace", NAMESPACE]);
    command.args(["--kube-version", helm::KUBERNETES]);
    let rendered = Said::of(&command.output().expect("helm can be started")).well();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered).expect("helm writes YAML");
    let wanted = |object: &Value| object["kind"].as_str().is_some_and(|kind| WANTED.contains(&kind));
    objects.into_iter().filter(wanted).collect()
}
