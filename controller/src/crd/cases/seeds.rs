//! Objects as the first documents of the project wrote them: they apply as they stand.

use super::{Case, Update};

pub(super) fn cases() -> Vec<Case> {
    [
        ("Registry", REGISTRY),
        ("RegistryTemplate", TEMPLATE),
        ("Registry with a template", TEMPLATED),
        ("Cache", CACHE),
    ]
    .into_iter()
    .map(|(name, object)| Case {
        name: format!("the first documents' {name}"),
        object: object.to_owned(),
        refused: None,
    })
    .collect()
}

/// The storage patches, merged one after the other.
pub(super) fn updates() -> Vec<Update> {
    [
        ("development storage", DEVELOPMENT),
        ("a claim", CLAIM),
        ("S3", S3),
        ("development storage again", DEVELOPMENT),
    ]
    .windows(2)
    .map(|pair| Update {
        name: format!("from {} to {}", pair[0].0, pair[1].0),
        before: pair[0].1.to_owned(),
        after: pair[1].1.to_owned(),
        refused: None,
    })
    .collect()
}

const REGISTRY: &str = r#"
apiVersion: registry-operator.dev/v1alpha1
kind: Registry
metadata:
  name: my-registry
spec:
  replicas: 3          # Number of registry instances
  image: registry:2    # The container image for the registry

  storage:
    bucketClassName: my-s3-class              # Name of the BucketClass for which the BucketClaim and Bucket are provisioned
    bucketAccessClass: my-s3-access-class     # Name of the BucketAccessClass for which the BucketAccess and Secret are provisioned

  resources:
    requests:
      cpu: "500m"      # CPU resource requests
      memory: "1Gi"    # Memory resource requests
    limits:
      cpu: "1"         # CPU resource limits
      memory: "2Gi"    # Memory resource limits

  service:
    type: ClusterIP    # Kubernetes service type (can be ClusterIP, NodePort, or LoadBalancer)
    port: 5000         # Port for the registry service
"#;

const TEMPLATE: &str = r#"
apiVersion: registry-operator.dev/v1alpha1
kind: RegistryTemplate
metadata:
  name: my-registry-template  # Global template name, not namespaced
spec:
  replicas: 3                 # Default number of registry instances
  image: registry:2           # Default container image for the registry

  storage:
    bucketClassName: my-s3-class              # Name of the BucketClass for which the BucketClaim and Bucket are provisioned
    bucketAccessClass: my-s3-access-class     # Name of the BucketAccessClass for which the BucketAccess and Secret are provisioned

  resources:
    requests:
      cpu: "500m"      # Default CPU resource requests
      memory: "1Gi"    # Default memory resource requests
    limits:
      cpu: "1"         # Default CPU resource limits
      memory: "2Gi"    # Default memory resource limits

  service:
    type: ClusterIP    # Default service type
    port: 5000         # Default port for the service
"#;

const TEMPLATED: &str = r"
apiVersion: registry-operator.dev/v1alpha1
kind: Registry
metadata:
  name: my-registry
template: my-registry-template # Reference to the global template
spec:
  replicas: 5          # Override default replicas
";

const CACHE: &str = r#"
apiVersion: registry-operator.dev/v1alpha1
kind: Cache
metadata:
  name: my-cache
spec:
  # URL of the upstream registry to cache images from
  upstreamRegistryURL: "https://my-upstream-registry.com"

  # Configuration for the cache volume
  volume:
    type: emptyDir       # Type of volume used for caching (supports ONLY emptyDir)
    size: 50Gi           # Size of the volume (optional, for reference)
    accessMode: ReadWriteOnce # Access mode for the volume (optional, for reference)

  # Optional configurations for cache behavior
  cacheTTL: "24h"       # Time-to-live for cached images
  maxCacheSize: "100Gi" # Maximum cache size
"#;

const DEVELOPMENT: &str = r#"
apiVersion: registry-operator.dev/v1alpha1
kind: Registry
metadata:
  name: cluster
spec:
  managementState: Managed
  replicas: 1
  storage:
    emptyDir: {}
  resources:
    requests: {cpu: "500m", memory: "500Mi"}
    limits: {cpu: "500m", memory: "500Mi"}
"#;

const CLAIM: &str = r#"
apiVersion: registry-operator.dev/v1alpha1
kind: Registry
metadata:
  name: cluster
spec:
  managementState: Managed
  replicas: 1
  storage:
    managementState: Unmanaged
    pvc:
      claim: image-registry
  resources:
    requests: {cpu: "500m", memory: "500Mi"}
    limits: {cpu: "500m", memory: "500Mi"}
"#;

const S3: &str = r#"
apiVersion: registry-operator.dev/v1alpha1
kind: Registry
metadata:
  name: cluster
spec:
  managementState: Managed
  replicas: 2
  storage:
    managementState: Unmanaged
    s3:
      bucket: images
      region: us-east-1
      regionEndpoint: https://s3.example.com
      trustedCA:
        name: s3-ca
  disableRedirect: true
  resources:
    requests: {cpu: "500m", memory: "500Mi"}
    limits: {cpu: "500m", memory: "500Mi"}
"#;
