//! The words that a field may hold, where it may hold only a few. Must not decide what follows from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the controller runs what an object describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManagementState {
    /// It is kept as described.
    #[default]
    Managed,
    /// It is left as it is.
    Unmanaged,
    /// Its workload is removed.
    Removed,
}

/// Whether the nodes of a NodeCache have a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeManagement {
    #[default]
    Managed,
    /// Every entry is taken out of certs.d; the agents stay to see to it.
    Removed,
}

/// How much is asked of a registry: about 100, 1,000 or 5,000 pods that pull at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CapacityTier {
    Small,
    Medium,
    Large,
}

/// Who may read what an upstream's cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Access {
    /// Only what anybody may read is kept.
    #[default]
    Public,
    /// Everything that the credential can read may be read by everyone on the node.
    Shared,
}

/// What containerd may ask the cache for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    Pull,
    Resolve,
}

/// What the installer does on a node; the words of the agent's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InstallerMode {
    Manage,
    Observe,
    Absent,
}

/// Where a node keeps containerd's files; the words of the agent's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    Kubeadm,
    Eks,
    K3s,
    Rke2,
    Microk8s,
    Custom,
}

/// Whether a NodeCacheReport is kept for each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PerNodeReports {
    None,
    /// Written when a node's state changes.
    #[default]
    OnTransition,
}

/// What the gateway does with a push beyond a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayAction {
    #[default]
    Enforce,
    /// Let it pass, and tell.
    Audit,
}

/// What an image's size is measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SizeScope {
    /// Each manifest by itself.
    #[default]
    PerManifest,
    /// An index counts as the sum of its manifests.
    IndexSum,
}

/// Where the gateway knows tags from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TagIndexMode {
    /// From an index of its own.
    #[default]
    Indexed,
    /// From the registry's list, asked at each push.
    Synchronous,
}

/// What happens to a push while its repository's tags are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnUnknown {
    #[default]
    Allow,
    Deny,
}
