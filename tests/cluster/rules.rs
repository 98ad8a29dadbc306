//! The cases that the rules of the custom resources are tried with, put to the API server itself; and that they leave no
//! rule out, which is worked out from the schemas. Must not hold cases: those stand beside the rules.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, ResourceExt};
use larder_controller::crd;
use larder_controller::crd::cases::{Case, Update, cases, updates};
use larder_tests::cluster::Cluster;
use serde_json::Value;

/// What is known of a kind from its definition.
struct Kind {
    resource: ApiResource,
    namespaced: bool,
    rules: Vec<Rule>,
}

/// One rule at one place. A rule of a type that many fields have is tried at one of them.
struct Rule {
    /// As in `spec.overrides[].limits`; empty for the root.
    path: String,
    message: String,
    /// It compares an object with what it was before.
    of_changes: bool,
}

#[tokio::test]
async fn objects_are_accepted_and_refused_as_the_cases_say() {
    // Alone: other tests have objects of the same names.
    let Some((cluster, _plane)) = Cluster::private().await else { return };
    cluster.install_crds().await;
    let namespace = cluster.namespace("cases").await;
    let (kinds, mut met, mut broken) = (kinds(), BTreeSet::new(), BTreeSet::new());
    for Case { name, object, refused } in cases().into_iter().chain([foreign_issuer()]) {
        let object = read(&object);
        let kind = &kinds[object["kind"].as_str().unwrap()];
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let posted: DynamicObject = serde_json::from_value(object).unwrap();
        let answer = kind.api(&cluster, &namespace).create(&dry, &posted).await;
        match (&answer, refused) {
            (Ok(stored), None) => {
                let stored = serde_json::to_value(stored).unwrap();
                let there = kind.rules.iter().filter(|rule| has(&stored, &rule.path));
                met.extend(there.map(|rule| rule.message.clone()));
            }
            (Err(error), Some(message)) => {
                assert!(told(error).contains(message), "{name:.200}: {:.2000}, not {message}", told(error));
                broken.extend(kind.broken_by(error));
            }
            _ => panic!("{name:.200}: {:.2000}, not {refused:?}", format!("{answer:?}")),
        }
    }
    let rules = messages(&kinds, |rule| !rule.of_changes);
    let never_met: Vec<_> = rules.difference(&met).collect();
    let never_broken: Vec<_> = rules.difference(&broken).collect();
    let complete = never_met.is_empty() && never_broken.is_empty();
    assert!(complete, "no accepted object has {never_met:#?}\nno refused object breaks {never_broken:#?}");
}

#[tokio::test]
async fn changes_are_accepted_and_refused_as_the_cases_say() {
    let Some(cluster) = Cluster::start().await else { return };
    let (kinds, mut broken) = (kinds(), BTreeSet::new());
    // What a Registry's spec is held to a template's is held to as well.
    let as_template = |yaml: &str| yaml.replace("kind: Registry\n", "kind: RegistryTemplate\n");
    let of_templates = updates().into_iter().filter(|update| update.before.contains("kind: Registry\n"));
    let of_templates = of_templates.map(|update| Update {
        before: as_template(&update.before),
        after: as_template(&update.after),
        ..update
    });
    for Update { name, before, after, refused } in updates().into_iter().chain(of_templates) {
        let namespace = cluster.namespace("updates").await;
        let (mut before, mut after) = (read(&before), read(&after));
        let kind = &kinds[before["kind"].as_str().unwrap()];
        let (api, called) = (kind.api(&cluster, &namespace), cluster.name("update"));
        before["metadata"]["name"] = called.as_str().into();
        let before: DynamicObject = serde_json::from_value(before).unwrap();
        let made = api.create(&PostParams::default(), &before).await.unwrap();
        after["metadata"]["name"] = called.as_str().into();
        after["metadata"]["resourceVersion"] = made.resource_version().into();
        let after: DynamicObject = serde_json::from_value(after).unwrap();
        let answer = api.replace(&called, &PostParams::default(), &after).await;
        match (&answer, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(message)) => {
                assert!(told(error).contains(message), "{name}: {}, not {message}", told(error));
                broken.extend(kind.broken_by(error));
            }
            _ => panic!("{name}: {answer:?}, not {refused:?}"),
        }
    }
    let rules = messages(&kinds, |rule| rule.of_changes);
    let never_broken: Vec<_> = rules.difference(&broken).collect();
    assert!(never_broken.is_empty(), "no refused change breaks {never_broken:#?}");
}

impl Kind {
    fn api(&self, cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
        let client = cluster.admin.clone();
        match self.namespaced {
            true => Api::namespaced_with(client, namespace, &self.resource),
            false => Api::all_with(client, &self.resource),
        }
    }

    /// The messages of the rules that the API server says were broken.
    fn broken_by(&self, error: &kube::Error) -> Vec<String> {
        let kube::Error::Api(status) = error else { panic!("no answer: {error}") };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let broken = causes.filter_map(|cause| {
            let path = without_indices(&cause.field);
            self.rules.iter().find(|rule| rule.path == path && cause.message.ends_with(&rule.message))
        });
        broken.map(|rule| rule.message.clone()).collect()
    }
}

fn kinds() -> BTreeMap<String, Kind> {
    let kind = |crd: CustomResourceDefinition| {
        let name = crd.spec.names.kind;
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let mut rules = Vec::new();
        collect(&schema["openAPIV3Schema"], "", &mut rules);
        let resource = ApiResource {
            group: crd.spec.group.clone(),
            version: crd::VERSION.to_owned(),
            api_version: format!("{}/{}", crd.spec.group, crd::VERSION),
            kind: name.clone(),
            plural: crd.spec.names.plural,
        };
        (name, Kind { resource, namespaced: crd.spec.scope == "Namespaced", rules })
    };
    crd::all().into_iter().map(kind).collect()
}

fn told(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else { panic!("no answer: {error}") };
    status.message.clone()
}

fn messages(kinds: &BTreeMap<String, Kind>, wanted: impl Fn(&&Rule) -> bool) -> BTreeSet<String> {
    kinds.values().flat_map(|kind| &kind.rules).filter(wanted).map(|rule| rule.message.clone()).collect()
}

/// `spec.overrides[0].limits` -> `spec.overrides[].limits`
fn without_indices(field: &str) -> String {
    let mut path = String::new();
    let mut inside = false;
    for letter in field.trim_start_matches("<nil>").chars() {
        inside = inside && letter != ']';
        if !inside {
            path.push(letter);
        }
        inside = inside || letter == '[';
    }
    path
}

fn collect(schema: &Value, path: &str, rules: &mut Vec<Rule>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let message = rule["message"].as_str().expect("every rule has a message").to_owned();
        let of_changes = rule["rule"].as_str().unwrap().contains("oldSelf");
        rules.push(Rule { path: path.to_owned(), message, of_changes });
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(property, &below, rules);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), rules);
    }
}

/// Whether something stands at a rule's place.
fn has(value: &Value, path: &str) -> bool {
    let Some((first, rest)) = path.split_once('.').or_else(|| (!path.is_empty()).then_some((path, "")))
    else {
        return true;
    };
    match first.strip_suffix("[]") {
        Some(list) => value[list].as_array().is_some_and(|items| items.iter().any(|item| has(item, rest))),
        None => value.get(first).is_some_and(|inside| has(inside, rest)),
    }
}

/// Of another group than cert-manager's own.
fn foreign_issuer() -> Case {
    let object = "{apiVersion: registry-operator.dev/v1alpha1, kind: Registry, metadata: {name: main}, spec: \
                  {tls: {mode: CertManager, issuerRef: {name: ca, kind: AWSPCAIssuer, group: awspca.cert-manager.io}}}}";
    Case { name: "an issuer of another group".to_owned(), object: object.to_owned(), refused: None }
}

fn read(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}
