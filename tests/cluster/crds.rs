//! The custom resources as people meet them: YAML that was written before they were, `kubectl get`, `kubectl scale`, and
//! texts without an end. Their rules have a file of their own. Must not need the controller.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use larder_controller::crd::{self, Cache, NodeCache, Registry};
use larder_tests::cluster::Cluster;
use serde_json::{Value, json};

const REGISTRY: &str = include_str!("drafts/registry.yaml");
const TEMPLATE: &str = include_str!("drafts/template.yaml");
const CACHE: &str = include_str!("drafts/cache.yaml");
/// Patches of the registry before us; only kind and name are ours.
const STORAGES: [&str; 4] = [
    include_str!("drafts/storage-empty-dir.json"),
    include_str!("drafts/storage-pvc.json"),
    include_str!("drafts/storage-s3.json"),
    include_str!("drafts/storage-empty-dir.json"),
];

#[tokio::test]
async fn the_first_drafts_yaml_applies_unchanged() {
    let Some(cluster) = Cluster::start().await else { return };
    for yaml in [REGISTRY, TEMPLATE, CACHE] {
        let namespace = cluster.namespace("drafts").await;
        let first = cluster.apply(&namespace, yaml).await.well();
        assert!(first.lines().all(|line| line.ends_with("created")), "{first}");
        let again = cluster.apply(&namespace, yaml).await.well();
        assert!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");

        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
        for document in documents {
            let (kind, name) =
                (document["kind"].as_str().unwrap(), document["metadata"]["name"].as_str().unwrap());
            let get = ["get", kind, name, "--namespace", &namespace, "--output=json"];
            let stored: Value = serde_json::from_str(&cluster.kubectl(&get, "").await.well()).unwrap();
            assert_eq!(stored["spec"], document["spec"], "{kind} {name}");
            assert_eq!(stored["template"], document["template"], "{kind} {name}");
        }
    }
}

#[tokio::test]
async fn storage_is_switched_by_merge_patches_that_leave_the_rest() {
    let Some(cluster) = Cluster::start().await else { return };
    let namespace = cluster.namespace("storages").await;
    let yaml = "{apiVersion: registry-operator.dev/v1alpha1, kind: Registry, metadata: {name: main}, \
                spec: {image: 'registry:3.1.1', ingress: {host: registry.example.com}}}";
    let _ = cluster.apply(&namespace, yaml).await.well();
    let registries: Api<Registry> = Api::namespaced(cluster.admin.clone(), &namespace);
    for patch in STORAGES {
        let args = ["patch", "registry", "main", "--namespace", &namespace, "--type=merge", "--patch", patch];
        let _ = cluster.kubectl(&args, "").await.well();
        let stored = serde_json::to_value(registries.get("main").await.unwrap()).unwrap();
        let mut wanted: Value = serde_json::from_str(patch).unwrap();
        let wanted = wanted["spec"]["storage"].as_object_mut().unwrap();
        wanted.retain(|_, value| !value.is_null());
        for (field, value) in wanted {
            assert_eq!(stored["spec"]["storage"][field.as_str()], *value, "{patch}");
        }
        let backends = ["emptyDir", "pvc", "s3"].map(|backend| !stored["spec"]["storage"][backend].is_null());
        assert_eq!(backends.into_iter().filter(|there| *there).count(), 1, "{stored}");
        assert_eq!(stored["spec"]["ingress"]["host"], "registry.example.com");
    }
}

#[tokio::test]
async fn two_backends_are_refused_in_words_that_say_what_to_write() {
    let Some(cluster) = Cluster::start().await else { return };
    let namespace = cluster.namespace("backends").await;
    let yaml = "{apiVersion: registry-operator.dev/v1alpha1, kind: Registry, metadata: {name: main}, \
                spec: {storage: {emptyDir: {}, s3: {bucket: images, region: eu-1}}}}";
    let said = cluster.apply(&namespace, yaml).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("keep one of emptyDir, pvc, s3"), "{}", said.err);
}

#[tokio::test]
async fn a_text_of_a_million_characters_is_refused() {
    let Some(cluster) = Cluster::start().await else { return };
    let namespace = cluster.namespace("long").await;
    let long = "a".repeat(1_000_000);
    let url = "https://registry.example.com";
    for (kind, spec) in [
        ("Cache", json!({"upstreamRegistryURL": format!("{url}/{long}")})),
        ("Cache", json!({"upstreamRegistryURL": url, "tokenHosts": [long]})),
        ("NodeCache", json!({"image": long})),
        ("NodeCache", json!({"nodeSelector": {"disk": long}})),
        ("Registry", json!({"storage": {"s3": {"bucket": long, "region": "eu-1"}}})),
        ("Registry", json!({"service": {"annotations": {"note": long}}})),
        ("Registry", json!({"resources": {"requests": {"cpu": long}}})),
        ("Registry", json!({"tolerations": [{"key": long}]})),
        ("RegistryTemplate", json!({"image": long})),
        ("RegistryGateway", json!({"registryRef": {"name": long}})),
    ] {
        let object = json!({
            "apiVersion": "registry-operator.dev/v1alpha1", "kind": kind, "metadata": {"name": "long"}, "spec": spec,
        });
        let args = ["create", "--namespace", &namespace, "--filename=-"];
        let said = cluster.kubectl(&args, &object.to_string()).await;
        assert_eq!(said.code, Some(1), "{kind} {:.60}", spec.to_string());
        let why = ["Too long", "may not be more than", "should be at most"];
        assert!(why.iter().any(|why| said.err.contains(why)), "{kind} {:.300}", said.err);
    }
}

/// What the API server is asked for a few fields above holds for all.
#[test]
fn every_text_list_and_map_has_an_end() {
    let mut endless = Vec::new();
    for crd in crd::all() {
        let kind = crd.spec.names.kind.clone();
        for version in crd.spec.versions {
            let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).unwrap();
            find_endless(&schema, &kind, &mut endless);
        }
    }
    assert!(endless.is_empty(), "{endless:#?}");
}

fn find_endless(schema: &JSONSchemaProps, path: &str, endless: &mut Vec<String>) {
    let mut ends = match schema.type_.as_deref() {
        Some("string") => {
            let by_format = matches!(schema.format.as_deref(), Some("date-time"));
            schema.max_length.is_some() || schema.enum_.is_some() || by_format
        }
        Some("array") => schema.max_items.is_some(),
        Some("object") => schema.additional_properties.is_none() || schema.max_properties.is_some(),
        Some("integer" | "number" | "boolean") => true,
        _ => schema.x_kubernetes_int_or_string == Some(true) && schema.max_length.is_some(),
    };
    // What is kept without a schema would be kept at any length.
    ends &= schema.x_kubernetes_preserve_unknown_fields != Some(true);
    // Kubernetes' own limits hold for the root's.
    let root = ["metadata", "apiVersion", "kind"].iter().any(|name| path.split('.').nth(1) == Some(name));
    if !ends && !root {
        endless.push(path.to_owned());
    }
    for (name, property) in schema.properties.iter().flatten() {
        find_endless(property, &format!("{path}.{name}"), endless);
    }
    let inside = serde_json::to_value(schema).unwrap();
    for key in ["items", "additionalProperties"] {
        if inside[key].is_object() {
            let below = serde_json::from_value(inside[key].clone()).unwrap();
            find_endless(&below, &format!("{path}[]"), endless);
        }
    }
}

#[tokio::test]
async fn kubectl_get_shows_what_matters() {
    let Some(cluster) = Cluster::start().await else { return };
    let (namespace, cache, nodes) =
        (cluster.namespace("columns").await, cluster.name("cache"), cluster.name("nodes"));
    let caches: Api<Cache> = Api::all(cluster.admin.clone());
    let object =
        json!({"metadata": {"name": cache}, "spec": {"upstreamRegistryURL": "https://registry-1.docker.io"}});
    caches.create(&PostParams::default(), &read("Cache", object)).await.unwrap();
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "Tested", "message": "",
               "lastTransitionTime": "2026-11-20T09:00:00Z", "observedGeneration": 1})
    };
    let status = json!({"status": {
        "registry": "docker.io", "nodesServing": 12, "hitRatio": "93%", "conditions": [condition("Ready")],
    }});
    caches.patch_status(&cache, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let table = table(&cluster, &["get", "cch", &cache]).await;
    assert_eq!(table[0], ["NAME", "UPSTREAM", "NODES", "HIT%", "READY", "AGE"]);
    assert_eq!(table[1][..5], [cache.as_str(), "docker.io", "12", "93%", "True"]);

    let node_caches: Api<NodeCache> = Api::all(cluster.admin.clone());
    let object = json!({"metadata": {"name": nodes}, "spec": {}});
    node_caches.create(&PostParams::default(), &read("NodeCache", object)).await.unwrap();
    let status = json!({"status": {
        "nodes": {"desired": 5, "installed": 4, "inUse": 3}, "usage": {"hitRatio": "80%"}, "upstream": "up",
    }});
    node_caches.patch_status(&nodes, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let table = self::table(&cluster, &["get", "nc", &nodes]).await;
    assert_eq!(table[0], ["NAME", "NODES", "INSTALLED", "IN-USE", "HIT%", "UPSTREAM", "AGE"]);
    assert_eq!(table[1][..6], [nodes.as_str(), "5", "4", "3", "80%", "up"]);

    let registries: Api<Registry> = Api::namespaced(cluster.admin.clone(), &namespace);
    let object = json!({"metadata": {"name": "main"}, "spec": {"replicas": 3}});
    registries.create(&PostParams::default(), &read("Registry", object)).await.unwrap();
    let status = json!({"status": {
        "version": "3.1.1", "readyReplicas": 2, "url": "https://registry.example.com",
        "conditions": [condition("Available"), condition("Degraded")],
    }});
    registries.patch_status("main", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let table =
        self::table(&cluster, &["get", "reg", "main", "--namespace", &namespace, "--output=wide"]).await;
    assert_eq!(table[0], ["NAME", "VERSION", "READY", "DESIRED", "AVAILABLE", "DEGRADED", "URL", "AGE"]);
    assert_eq!(table[1][..7], ["main", "3.1.1", "2", "3", "True", "True", "https://registry.example.com"]);

    // The category has them all.
    let all =
        cluster.kubectl(&["get", "larder", "--namespace", &namespace, "--output=name"], "").await.well();
    for name in
        [format!("cache.registry-operator.dev/{cache}"), "registry.registry-operator.dev/main".to_owned()]
    {
        assert!(all.lines().any(|line| line == name), "{name} is not in:\n{all}");
    }
}

#[tokio::test]
async fn a_registry_is_scaled_as_a_deployment_is() {
    let Some(cluster) = Cluster::start().await else { return };
    let namespace = cluster.namespace("scale").await;
    let registries: Api<Registry> = Api::namespaced(cluster.admin.clone(), &namespace);
    let object = json!({"metadata": {"name": "main"}, "spec": {"replicas": 1}});
    registries.create(&PostParams::default(), &read("Registry", object)).await.unwrap();
    let status = json!({"status": {"replicas": 1, "selector": "app.kubernetes.io/instance=main"}});
    registries.patch_status("main", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();

    let _ =
        cluster.kubectl(&["scale", "reg/main", "--replicas=5", "--namespace", &namespace], "").await.well();
    let scale = registries.get_scale("main").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(5));
    let status = scale.status.unwrap();
    assert_eq!((status.replicas, status.selector.as_deref()), (1, Some("app.kubernetes.io/instance=main")));
    assert_eq!(registries.get("main").await.unwrap().spec.spec.replicas, Some(5));

    let refused =
        cluster.kubectl(&["scale", "reg/main", "--replicas=101", "--namespace", &namespace], "").await;
    assert!(refused.err.contains("spec.replicas must be a number from 0 to 100"), "{}", refused.err);
}

fn read<K: serde::de::DeserializeOwned>(kind: &str, mut object: Value) -> K {
    object["apiVersion"] = "registry-operator.dev/v1alpha1".into();
    object["kind"] = kind.into();
    serde_json::from_value(object).unwrap()
}

/// The words of each line.
async fn table(cluster: &Cluster, args: &[&str]) -> Vec<Vec<String>> {
    let out = cluster.kubectl(args, "").await.well();
    out.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}
