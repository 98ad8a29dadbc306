//! Registries and RegistryTemplates, accepted and refused.

use super::{Case, Update, changes, object, table};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["Registry", "RegistryTemplate"] {
        for rows in [WORKLOAD, STORAGE, ACCESS] {
            cases.extend(table(kind, rows, |fields| object(kind, "main", fields)));
        }
    }
    cases.extend(ROOTS.iter().map(|(root, refused)| Case {
        name: format!("Registry with {root}"),
        object: format!(
            "apiVersion: registry-operator.dev/v1alpha1\nkind: Registry\nmetadata: {{name: main}}\n{root}\n"
        ),
        refused: *refused,
    }));
    cases.extend(NAMES.iter().map(|(name, refused)| Case {
        name: format!("Registry named {name}"),
        object: object("Registry", name, ""),
        refused: *refused,
    }));
    cases
}

pub(super) fn updates() -> Vec<Update> {
    changes("Registry", CHANGES, |fields| object("Registry", "main", fields))
}

const NAMES: super::Table<'_> = &[
    ("a123456789-123456789-123456789-123456789", None),
    (
        "a123456789-123456789-123456789-123456789-",
        Some("metadata.name of a Registry takes at most 40 characters"),
    ),
    ("my.registry", Some("metadata.name of a Registry starts with a letter")),
    ("1st", Some("metadata.name of a Registry starts with a letter")),
];

const ROOTS: super::Table<'_> = &[
    ("template: my-registry-template", None),
    ("template: my-template\nspec: {replicas: 5}", None),
    ("template: my-template\nspec: {templateRef: {name: my-template}}", None),
    ("spec: {templateRef: {name: my-template}}", None),
    (
        "template: my-template\nspec: {templateRef: {name: other}}",
        Some("template and spec.templateRef.name name different templates"),
    ),
    ("template: My Template", Some("template must be the name of an object")),
];

const WORKLOAD: super::Table<'_> = &[
    ("", None),
    ("managementState: Unmanaged, capacityTier: Large", None),
    ("managementState: Gone", Some("Unsupported value")),
    ("capacityTier: large", Some("Unsupported value")),
    ("replicas: 0", None),
    ("replicas: -1", Some("spec.replicas must be a number from 0 to 100")),
    ("replicas: 101", Some("spec.replicas must be a number from 0 to 100")),
    ("image: \"registry:2\"", None),
    ("image: \"localhost:5000/registry:3.1.1\"", None),
    (
        "image: \"registry@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\", version: 3.1.1",
        None,
    ),
    ("image: \"registry@sha256:0123\"", Some("spec.image must be an image")),
    ("image: \" registry\"", Some("spec.image must be an image")),
    ("version: v3.0.0-rc.1", None),
    ("version: latest", Some("spec.version must be a version of Distribution")),
    ("resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: \"1\", memory: 2Gi}}", None),
    ("resources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 1.5Gi}}", None),
    ("resources: {requests: {cpu: some}}", Some("should match")),
    ("service: {type: NodePort, port: 5000, annotations: {a: b}}", None),
    ("service: {port: 65536}", Some("service.port must be a number from 1 to 65535")),
    ("ingress: {className: nginx, host: registry.example.com}", None),
    ("ingress: {host: \"https://registry.example.com\"}", Some("ingress.host must be a host name")),
    ("ingress: {className: nginx}", Some("Required value")),
    ("ingress: {className: Nginx, host: a.example}", Some("ingress.className must be the name of an object")),
    (
        "proxy: {http: \"http://proxy.example:3128\", https: \"http://proxy.example\", noProxy: \".svc,10.0.0.0/8\"}",
        None,
    ),
    ("proxy: {http: proxy.example}", Some("proxy.http must be http://")),
    ("proxy: {https: \"ftp://proxy.example\"}", Some("proxy.https must be http://")),
    ("proxy: {noProxy: \"\"}", Some("proxy.noProxy must be one line of text")),
    ("nodeSelector: {disk: ssd}, tolerations: [{key: infra, operator: Exists}]", None),
    (
        "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: \
         [{topologyKey: kubernetes.io/hostname}]}}",
        None,
    ),
    (
        "topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, \
         whenUnsatisfiable: DoNotSchedule}]",
        None,
    ),
    ("upgrade: {strategy: RollingUpdate, healthTimeout: 300s, autoRollback: true}", None),
    ("upgrade: {healthTimeout: 0s}", Some("upgrade.healthTimeout must be a duration above zero")),
    ("upgrade: {strategy: BlueGreen}", Some("Unsupported value")),
];

const ONE: Option<&str> = Some("storage takes one backend");
const BUCKET: Option<&str> = Some("storage.bucketClassName and storage.bucketAccessClass go together");
const CLAIM: Option<&str> = Some("storage.pvc needs either claim");
const MADE: Option<&str> = Some("storage.pvc.storageClassName and accessModes are for a claim that is made");

const STORAGE: super::Table<'_> = &[
    ("storage: {}", None),
    ("storage: {emptyDir: {}}", None),
    ("storage: {emptyDir: {}, pvc: null, s3: null}", None),
    ("replicas: 1, storage: {emptyDir: {sizeLimit: 10Gi}}", None),
    (
        "storage: {emptyDir: {sizeLimit: 0Gi}}",
        Some("storage.emptyDir.sizeLimit must be a quantity above zero"),
    ),
    ("replicas: 2, storage: {emptyDir: {}}", Some("spec.replicas must be 1 or 0 on emptyDir")),
    ("storage: {managementState: Unmanaged, pvc: {claim: image-registry}}", None),
    ("storage: {managementState: Maybe}", Some("Unsupported value")),
    ("replicas: 3, storage: {pvc: {size: 100Gi, storageClassName: nfs, accessModes: [ReadWriteMany]}}", None),
    ("storage: {pvc: {}}", CLAIM),
    ("storage: {pvc: {claim: a, size: 1Gi}}", CLAIM),
    ("storage: {pvc: {claim: a, storageClassName: nfs}}", MADE),
    ("storage: {pvc: {claim: a, accessModes: [ReadWriteMany]}}", MADE),
    ("storage: {pvc: {claim: A}}", Some("storage.pvc.claim must be the name of an object")),
    ("storage: {pvc: {size: -1Gi}}", Some("storage.pvc.size must be a quantity above zero")),
    (
        "storage: {pvc: {size: 1Gi, storageClassName: A}}",
        Some("storage.pvc.storageClassName must be the name"),
    ),
    ("storage: {pvc: {size: 1Gi, accessModes: [ReadOnlyMany]}}", Some("storage.pvc.accessModes takes")),
    ("storage: {pvc: {size: 1Gi, accessModes: []}}", Some("storage.pvc.accessModes takes")),
    ("storage: {bucketClassName: my-s3-class, bucketAccessClass: my-s3-access-class}", None),
    ("storage: {bucketClassName: my-s3-class}", BUCKET),
    ("storage: {bucketAccessClass: my-s3-access-class}", BUCKET),
    ("storage: {bucketClassName: A, bucketAccessClass: b}", Some("storage.bucketClassName must be the name")),
    (
        "storage: {bucketClassName: a, bucketAccessClass: B}",
        Some("storage.bucketAccessClass must be the name"),
    ),
    ("storage: {emptyDir: {}, pvc: {claim: a}}", ONE),
    ("storage: {pvc: {claim: a}, s3: {bucket: b, region: r}}", ONE),
    ("storage: {s3: {bucket: b, region: r}, bucketClassName: a, bucketAccessClass: b}", ONE),
    ("storage: {emptyDir: {}, bucketClassName: a, bucketAccessClass: b}", ONE),
    ("storage: {s3: {bucket: b, region: eu-west-1}}", None),
    (
        "storage: {s3: {bucket: b, region: r, regionEndpoint: \"https://s3:9000\", trustedCA: {name: s3-ca}, \
         virtualHostedStyle: false, encrypt: false, chunkSizeMiB: 10, credentialsSecretRef: {name: mine}}}",
        None,
    ),
    ("storage: {s3: {bucket: b}}", Some("Required value")),
    ("storage: {s3: {bucket: \"\", region: r}}", Some("storage.s3.bucket must be one word")),
    ("storage: {s3: {bucket: b/c, region: r}}", Some("storage.s3.bucket must be one word")),
    ("storage: {s3: {bucket: b, region: \"a b\"}}", Some("storage.s3.region must be one word")),
    (
        "storage: {s3: {bucket: b, region: r, regionEndpoint: s3}}",
        Some("storage.s3.regionEndpoint must be https://"),
    ),
    (
        "storage: {s3: {bucket: b, region: r, regionEndpoint: \"https://s3/b\"}}",
        Some("storage.s3.regionEndpoint must be https://"),
    ),
    (
        "storage: {s3: {bucket: b, region: r, trustedCA: {name: a}}}",
        Some("storage.s3.trustedCA is for an endpoint of your own"),
    ),
    (
        "storage: {s3: {bucket: b, region: r, regionEndpoint: \"http://s3\", trustedCA: {name: a}}}",
        Some("storage.s3.trustedCA needs an endpoint that starts with https://"),
    ),
    (
        "storage: {s3: {bucket: b, region: r, chunkSizeMiB: 4}}",
        Some("storage.s3.chunkSizeMiB must be a number from 5"),
    ),
];

const ACCESS: super::Table<'_> = &[
    ("disableRedirect: true, readOnly: true", None),
    ("disableRedirect: \"yes\"", Some("Invalid value")),
    ("tls: {mode: None}", None),
    ("tls: {}", Some("Required value")),
    ("tls: {mode: CertManager, issuerRef: {kind: ClusterIssuer, name: ca}, renewBefore: 720h}", None),
    ("tls: {mode: CertManager}", Some("tls.mode CertManager needs tls.issuerRef")),
    ("tls: {mode: Secret, secretRef: {name: my-tls}}", None),
    ("tls: {mode: Secret}", Some("tls.mode Secret needs tls.secretRef")),
    (
        "tls: {mode: None, issuerRef: {name: ca}}",
        Some("tls.issuerRef and tls.renewBefore belong to mode CertManager"),
    ),
    ("tls: {mode: None, secretRef: {name: a}}", Some("tls.secretRef belongs to mode Secret")),
    (
        "tls: {mode: CertManager, issuerRef: {name: CA}}",
        Some("tls.issuerRef.name must be the name of an object"),
    ),
    (
        "tls: {mode: CertManager, issuerRef: {name: ca, kind: issuer}}",
        Some("tls.issuerRef.kind must be a kind"),
    ),
    (
        "tls: {mode: CertManager, issuerRef: {name: ca, group: A}}",
        Some("tls.issuerRef.group must be a host name"),
    ),
    (
        "tls: {mode: CertManager, issuerRef: {name: ca}, renewBefore: 0s}",
        Some("tls.renewBefore must be a duration above zero"),
    ),
    ("auth: {type: None}", None),
    ("auth: {type: Htpasswd, secretRef: {name: htpasswd}}", None),
    ("auth: {type: Htpasswd}", Some("auth.type Htpasswd needs auth.secretRef")),
    ("auth: {type: None, secretRef: {name: a}}", Some("auth.secretRef belongs to type Htpasswd")),
    (
        "auth: {type: Token, token: {realm: \"https://auth.example/token\", service: r, issuer: i, \
         rootCertSecretRef: {name: ca}}}",
        None,
    ),
    ("auth: {type: Token}", Some("auth.type Token needs auth.token")),
    (
        "auth: {type: None, token: {realm: \"https://a\", service: r, issuer: i, rootCertSecretRef: {name: ca}}}",
        Some("auth.token belongs to type Token"),
    ),
    (
        "auth: {type: Token, token: {realm: auth, service: r, issuer: i, rootCertSecretRef: {name: ca}}}",
        Some("auth.token.realm must be a URL"),
    ),
    (
        "auth: {type: Token, token: {realm: \"https://a\", service: \" \", issuer: i, rootCertSecretRef: {name: ca}}}",
        Some("auth.token.service must be one line of text"),
    ),
    (
        "auth: {type: Token, token: {realm: \"https://a\", service: r, issuer: \"\", rootCertSecretRef: {name: ca}}}",
        Some("auth.token.issuer must be one line of text"),
    ),
    ("metadataCache: {type: InMemory}", None),
    (
        "metadataCache: {type: Redis, redis: {addrs: [\"valkey:6379\"], passwordSecretRef: {name: r, key: p}, db: 0}}",
        None,
    ),
    ("metadataCache: {type: Redis}", Some("metadataCache.type Redis needs metadataCache.redis.addrs")),
    (
        "metadataCache: {type: None, redis: {addrs: [\"valkey:6379\"]}}",
        Some("metadataCache.redis belongs to type Redis"),
    ),
    (
        "metadataCache: {type: Redis, redis: {addrs: []}}",
        Some("metadataCache.redis.addrs needs at least one"),
    ),
    (
        "metadataCache: {type: Redis, redis: {addrs: [valkey]}}",
        Some("metadataCache.redis.addrs takes addresses"),
    ),
    (
        "metadataCache: {type: Redis, redis: {addrs: [\"v:1\"], db: -1}}",
        Some("metadataCache.redis.db must be a number from 0"),
    ),
    (
        "metadataCache: {type: Redis, redis: {addrs: [\"v:1\"], passwordSecretRef: {name: r, key: \"a b\"}}}",
        Some("key must be a key of a Secret's data"),
    ),
];

const CHANGES: &[(&str, &str, Option<&str>)] = &[
    ("storage: {pvc: {size: 1Gi}}", "storage: {pvc: {size: 2Gi}}", None),
    ("storage: {pvc: {size: 1Gi}}", "storage: {pvc: {size: 1024Mi}}", None),
    ("storage: {pvc: {size: 2Gi}}", "storage: {pvc: {size: 1Gi}}", Some("storage.pvc.size cannot shrink")),
    ("storage: {pvc: {claim: a}}", "storage: {pvc: {claim: b}}", None),
    ("storage: {pvc: {size: 2Gi}}", "storage: {pvc: {claim: b}}", None),
    (
        "storage: {pvc: {size: 1Gi, storageClassName: a}}",
        "storage: {pvc: {size: 1Gi, storageClassName: b}}",
        Some("storage.pvc.storageClassName cannot change"),
    ),
    (
        "storage: {pvc: {size: 1Gi}}",
        "storage: {pvc: {size: 1Gi, storageClassName: b}}",
        Some("storage.pvc.storageClassName cannot change"),
    ),
    (
        "storage: {bucketClassName: a, bucketAccessClass: b}",
        "storage: {bucketClassName: c, bucketAccessClass: b}",
        Some("storage.bucketClassName cannot change"),
    ),
    (
        "storage: {bucketClassName: a, bucketAccessClass: b}",
        "storage: {bucketClassName: a, bucketAccessClass: c}",
        Some("storage.bucketAccessClass cannot change"),
    ),
    ("storage: {bucketClassName: a, bucketAccessClass: b}", "storage: {pvc: {claim: a}}", None),
    ("replicas: 3, storage: {s3: {bucket: b, region: r}}", "replicas: 1, storage: {emptyDir: {}}", None),
    (
        "replicas: 3, storage: {s3: {bucket: b, region: r}}",
        "replicas: 3, storage: {emptyDir: {}}",
        Some("spec.replicas must be 1 or 0 on emptyDir"),
    ),
];
