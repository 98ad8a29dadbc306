//! RegistryGateways, accepted and refused.

use super::{Case, Update, changes, object, table};

pub(super) fn cases() -> Vec<Case> {
    let with_registry =
        |fields: &str| object("RegistryGateway", "main", &format!("registryRef: {{name: main}}, {fields}"));
    let mut cases = table("RegistryGateway", GATEWAYS, with_registry);
    let named = |name: &str, refused| Case {
        name: format!("RegistryGateway named {name}"),
        object: object("RegistryGateway", name, "registryRef: {name: main}"),
        refused,
    };
    cases.push(named(&"g".repeat(40), None));
    cases
        .push(named(&"g".repeat(41), Some("metadata.name of a RegistryGateway takes at most 40 characters")));
    cases.push(named("a.gateway", Some("metadata.name of a RegistryGateway starts with a letter")));
    cases.push(Case {
        name: "RegistryGateway without a registry".to_owned(),
        object: object("RegistryGateway", "main", ""),
        refused: Some("Required value"),
    });
    cases
}

pub(super) fn updates() -> Vec<Update> {
    changes(
        "RegistryGateway",
        &[
            ("registryRef: {name: main}", "registryRef: {name: main}, replicas: 3", None),
            (
                "registryRef: {name: main}",
                "registryRef: {name: other}",
                Some("spec.registryRef cannot change"),
            ),
        ],
        |fields| object("RegistryGateway", "main", fields),
    )
}

const MAX: Option<&str> = Some("limits.image.max must be a quantity above zero");
const PATTERNS: Option<&str> = Some("overrides[].repositories takes repository names");

const GATEWAYS: super::Table<'_> = &[
    ("", None),
    ("capacityTier: Medium, replicas: 3, service: {type: ClusterIP, port: 443}", None),
    ("capacityTier: Huge", Some("Unsupported value")),
    ("replicas: -1", Some("spec.replicas must be a number from 0 to 100")),
    ("service: {port: 0}", Some("service.port must be a number from 1 to 65535")),
    ("service: {type: ExternalName}", Some("Unsupported value")),
    ("tls: {mode: CertManager, issuerRef: {kind: ClusterIssuer, name: ca}, renewBefore: 720h}", None),
    ("tls: {mode: Secret, secretRef: {name: my-tls}}", None),
    ("action: Audit", None),
    ("action: audit", Some("Unsupported value")),
    (
        "limits: {image: {max: 1Gi, scope: PerManifest}, tags: {maxPerRepository: 100}, manifestMaxBytes: 4Mi}",
        None,
    ),
    ("limits: {image: {max: 1500M, scope: IndexSum}}", None),
    ("limits: {image: {max: \"0\"}}", MAX),
    ("limits: {image: {max: -1Gi}}", MAX),
    ("limits: {image: {max: big}}", MAX),
    ("limits: {image: {}}", Some("Required value")),
    ("limits: {image: {max: 1Gi, scope: Layers}}", Some("Unsupported value")),
    ("limits: {tags: {maxPerRepository: 0}}", Some("limits.tags.maxPerRepository must be a number from 1")),
    ("limits: {tags: {maxPerRepository: 5, excludePattern: \"^sha256-[0-9a-f]{64}\"}}", None),
    ("limits: {tags: {maxPerRepository: 5, excludePattern: \"([\"}}", Some("regex")),
    (
        "limits: {tags: {maxPerRepository: 5, excludePattern: \"\"}}",
        Some("limits.tags.excludePattern must be a regular expression"),
    ),
    ("limits: {manifestMaxBytes: 0Mi}", Some("limits.manifestMaxBytes must be a quantity above zero")),
    ("overrides: [{repositories: [\"team-a/*\"], limits: {tags: {maxPerRepository: 500}}}]", None),
    (
        "overrides: [{repositories: [], limits: {}}]",
        Some("overrides[].repositories needs at least one pattern"),
    ),
    ("overrides: [{repositories: [Team-A], limits: {}}]", PATTERNS),
    ("overrides: [{repositories: [/team-a], limits: {}}]", PATTERNS),
    ("overrides: [{repositories: [team-a]}]", Some("Required value")),
    ("tagIndex: {mode: Indexed, seedTimeout: 2s, onUnknown: Allow, resyncInterval: 10m}", None),
    ("tagIndex: {mode: Guess}", Some("Unsupported value")),
    ("tagIndex: {onUnknown: Maybe}", Some("Unsupported value")),
    ("tagIndex: {seedTimeout: 0s}", Some("tagIndex.seedTimeout must be a duration above zero")),
    ("tagIndex: {resyncInterval: often}", Some("tagIndex.resyncInterval must be a duration above zero")),
    ("image: registry.example/larder@sha256:abc", Some("spec.image must be an image")),
];
