//! References to other objects by name. Must not say which namespace: each field that uses one does.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::cel;

/// An object by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct NameReference {
    /// The object's name.
    #[x_kube(validation = cel::object_name("name"))]
    pub name: String,
}

/// One key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SecretKeyReference {
    /// The Secret's name, in the same namespace.
    #[x_kube(validation = cel::object_name("name"))]
    pub name: String,
    /// The key in its data.
    #[x_kube(validation = cel::data_key("key"))]
    pub key: String,
}

impl NameReference {
    /// Refers to an object.
    #[must_use]
    pub fn to(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}
