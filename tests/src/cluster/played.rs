//! What others in a cluster would do, where a test does it: the controller of Deployments and the kubelets below it. Must
//! not be used where kube-controller-manager runs.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::Space;

/// How pods fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pods {
    /// All are of the newest template and ready.
    Healthy,
    /// The first of the newest template does not start, and the old ones stay; the Deployment has given up.
    Stuck,
}

impl Space {
    /// Writes a Deployment's status as it would be, for its generation of now.
    ///
    /// # Panics
    /// When it is not there.
    pub async fn play(&self, deployment: &str, pods: Pods) {
        let live = self.get("Deployment", deployment).await.expect("the Deployment is there");
        let wanted = live["spec"]["replicas"].as_i64().expect("replicas are always written");
        let (updated, all) = match pods {
            Pods::Healthy => (wanted, wanted),
            Pods::Stuck => (1, wanted + 1),
        };
        let progressing = match pods {
            Pods::Healthy => condition("Progressing", "True", "NewReplicaSetAvailable"),
            Pods::Stuck => condition("Progressing", "False", "ProgressDeadlineExceeded"),
        };
        let status = json!({
            "observedGeneration": live["metadata"]["generation"],
            "replicas": all, "updatedReplicas": updated, "readyReplicas": wanted, "availableReplicas": wanted,
            "unavailableReplicas": all - wanted,
            "conditions": [condition("Available", "True", "MinimumReplicasAvailable"), progressing],
        });
        self.change_status("Deployment", deployment, status).await;
    }

    /// Waits until a Deployment has an image, then plays its pods.
    pub async fn play_image(&self, deployment: &str, image: &str, pods: Pods) {
        let of = |live: &Value| (image_of(live) == image).then_some(());
        self.until("Deployment", deployment, format!("it has {image}"), of).await;
        self.play(deployment, pods).await;
    }
}

/// The image of a Deployment's first container.
#[must_use]
pub fn image_of(deployment: &Value) -> &str {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    let now = Timestamp::now().to_string();
    json!({
        "type": type_, "status": status, "reason": reason, "message": "played",
        "lastUpdateTime": now, "lastTransitionTime": now,
    })
}
