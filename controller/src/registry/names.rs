//! What the children of a Registry are called. Pure; every name is made of the Registry's.

use kube::ResourceExt;

use crate::crd::Registry;

/// The names of one Registry's children, in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub registry: String,
    pub namespace: String,
}

impl Names {
    #[must_use]
    pub(crate) fn of(registry: &Registry) -> Self {
        Self { registry: registry.name_any(), namespace: registry.namespace().unwrap_or_default() }
    }

    /// Deployment, Service, Ingress, PodDisruptionBudget, and a PersistentVolumeClaim that is made.
    #[must_use]
    pub(crate) fn workload(&self) -> String {
        format!("{}-registry", self.registry)
    }

    /// The Service of the metrics, where the other one leaves the cluster.
    #[must_use]
    pub(crate) fn metrics(&self) -> String {
        format!("{}-registry-metrics", self.registry)
    }

    /// The Secret of one configuration.
    #[must_use]
    pub(crate) fn config(&self, hash: &str) -> String {
        format!("{}-registry-config-{hash}", self.registry)
    }

    /// The Secret of what all replicas sign uploads with.
    #[must_use]
    pub(crate) fn http_secret(&self) -> String {
        format!("{}-registry-http", self.registry)
    }

    /// The Certificate and its Secret.
    #[must_use]
    pub(crate) fn certificate(&self) -> String {
        format!("{}-registry-tls", self.registry)
    }

    #[must_use]
    pub(crate) fn bucket_claim(&self) -> String {
        format!("{}-bucket", self.registry)
    }

    #[must_use]
    pub(crate) fn bucket_access(&self) -> String {
        format!("{}-bucket-access", self.registry)
    }

    #[must_use]
    pub(crate) fn bucket_credentials(&self) -> String {
        format!("{}-bucket-credentials", self.registry)
    }

    /// The host under which pods of the cluster reach it.
    #[must_use]
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc", self.workload(), self.namespace)
    }
}
