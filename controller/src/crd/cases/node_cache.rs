//! NodeCaches and NodeCacheReports, accepted and refused.

use super::{Case, Update, changes, object, table};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = table("NodeCache", NODES, |fields| object("NodeCache", "default", fields));
    let named = |name: String, refused| Case {
        name: format!("NodeCache with a name of {} characters", name.len()),
        object: object("NodeCache", &name, ""),
        refused,
    };
    cases.push(named("n".repeat(40), None));
    cases.push(named("n".repeat(41), Some("metadata.name of a NodeCache takes at most 40 characters")));
    cases.push(Case {
        name: "NodeCache with too many pull secrets".to_owned(),
        object: object(
            "NodeCache",
            "default",
            &format!("imagePullSecrets: [{}]", vec!["{name: pull}"; 1000].join(", ")),
        ),
        refused: Some("Too many"),
    });
    cases.extend(table("NodeCacheReport", REPORTS, |fields| object("NodeCacheReport", "default.n1", fields)));
    cases
}

pub(super) fn updates() -> Vec<Update> {
    let report =
        |fields: &str| object("NodeCacheReport", "default.n1", &format!("nodeCache: default, {fields}"));
    let other = Some("spec.node and spec.nodeCache cannot change");
    changes(
        "NodeCacheReport",
        &[
            ("node: n1, state: Ready", "node: n1, state: Silent", None),
            ("node: n1, state: Ready", "node: n2, state: Ready", other),
        ],
        report,
    )
}

const PORTS: Option<&str> = Some("spec.listen needs three different ports");
const HOST_PATH: Option<&str> =
    Some("spec.storage.hostPath must be an absolute path to a directory of its own");

const NODES: super::Table<'_> = &[
    ("", None),
    ("managementState: Managed", None),
    ("managementState: Removed", None),
    ("managementState: Unmanaged", Some("Unsupported value")),
    ("cacheSelector: {matchLabels: {pool: default}}", None),
    ("cacheSelector: {}, nodeSelector: {kubernetes.io/os: linux}, tolerations: [{operator: Exists}]", None),
    ("image: \"registry.example/larder:1.2.3\", imagePullSecrets: [{name: pull}]", None),
    ("image: \"\"", Some("spec.image must be an image")),
    ("image: \"larder 1.2.3\"", Some("spec.image must be an image")),
    ("imagePullSecrets: [{name: A_B}]", Some("name must be the name of an object")),
    ("storage: {hostPath: /var/lib/larder, maxSize: 100Gi, minFree: 25%}", None),
    ("storage: {hostPath: /larder, maxSize: \"0\"}", None),
    ("storage: {hostPath: larder}", HOST_PATH),
    ("storage: {hostPath: /}", HOST_PATH),
    ("storage: {hostPath: /var/lib}", HOST_PATH),
    ("storage: {hostPath: /var/lib/larder/../kubelet}", HOST_PATH),
    ("storage: {hostPath: /proc/1}", HOST_PATH),
    ("storage: {maxSize: 100G}", Some("spec.storage.maxSize must be a size")),
    ("storage: {minFree: all}", Some("spec.storage.minFree must be a size")),
    ("cacheTTL: 0s, tagTTL: 60s, maxStale: 24h", None),
    ("cacheTTL: week", Some("spec.cacheTTL must be a duration")),
    ("tagTTL: \"60\"", Some("spec.tagTTL must be a duration")),
    ("maxStale: \"1d\"", Some("spec.maxStale must be a duration")),
    ("listen: {port: 19500, adminPort: 19501, metricsPort: 19502}", None),
    ("listen: {port: 5001}", None),
    ("listen: {port: 0}", Some("spec.listen.port must be a number from 1 to 65535")),
    ("listen: {adminPort: 70000}", Some("spec.listen.adminPort must be a number from 1 to 65535")),
    ("listen: {metricsPort: 70000}", Some("spec.listen.metricsPort must be a number from 1 to 65535")),
    ("listen: {port: 19501}", PORTS),
    ("listen: {metricsPort: 19500}", PORTS),
    ("listen: {adminPort: 7000, metricsPort: 7000}", PORTS),
    ("installer: {mode: observe, distribution: k3s, keepOnShutdown: true}", None),
    ("installer: {certsDir: /etc/containerd/certs.d, containerdConfig: /etc/containerd/config.toml}", None),
    ("installer: {mode: Manage}", Some("Unsupported value")),
    ("installer: {distribution: talos}", Some("Unsupported value")),
    ("installer: {certsDir: etc/certs.d}", Some("spec.installer.certsDir must be an absolute path")),
    (
        "installer: {containerdConfig: \"/etc/../config.toml\"}",
        Some("spec.installer.containerdConfig must be an"),
    ),
    ("reportInterval: 30s", None),
    ("reportInterval: 1s", Some("spec.reportInterval must be a duration from 5s to 1h")),
    ("reportInterval: 2h", Some("spec.reportInterval must be a duration from 5s to 1h")),
    ("perNodeReports: None", None),
    ("perNodeReports: Always", Some("Unsupported value")),
    ("rollout: {maxUnavailable: 5%}", None),
    ("rollout: {maxUnavailable: 3}", None),
    ("rollout: {maxUnavailable: 0}", Some("spec.rollout.maxUnavailable must be a number of at least 1")),
    ("rollout: {maxUnavailable: 0%}", Some("spec.rollout.maxUnavailable must be a number of at least 1")),
    ("rollout: {maxUnavailable: many}", Some("spec.rollout.maxUnavailable must be a number of at least 1")),
    ("withdrawTimeout: 5m", None),
    ("withdrawTimeout: 0s", Some("spec.withdrawTimeout must be a duration above zero")),
    ("seLinuxOptions: {type: spc_t}, priorityClassName: system-node-critical", None),
    ("priorityClassName: Very High", Some("spec.priorityClassName must be the name of an object")),
    ("resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 512Mi}}", None),
];

const REPORTS: super::Table<'_> = &[
    ("node: n1, nodeCache: default, state: Ready", None),
    ("node: n1, nodeCache: default", Some("Required value")),
];
