//! What the derive cannot say: every string, list and map of a schema has an end, embedded types of Kubernetes carry no
//! prose, quantities are quantities, and the definitions are marked as ours. Must not change what a type means.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use serde_json::{Map, Value, json};

/// The label by which our definitions are told from those of another owner of the group.
pub const OWNER: (&str, &str) = ("app.kubernetes.io/part-of", "larder");

/// A label's key: 253 characters, a slash, 63 characters.
const LONGEST_STRING: u64 = 317;
/// Values of maps are annotations, which hold whole snippets of a proxy's configuration.
const LONGEST_MAP_VALUE: u64 = 8192;
/// As metav1 has it.
const LONGEST_MESSAGE: u64 = 32_768;
const LONGEST_QUANTITY: u64 = 64;
const MOST_ITEMS: u64 = 64;
const MOST_PROPERTIES: u64 = 64;
/// Lists inside a type of Kubernetes, over which no rule runs: names of nodes, say.
const MOST_EMBEDDED_ITEMS: u64 = 512;

/// Fields of a type that Kubernetes documents.
const EMBEDDED: [&str; 8] = [
    "affinity",
    "cacheSelector",
    "conditions",
    "maxUnavailable",
    "resources",
    "seLinuxOptions",
    "tolerations",
    "topologySpreadConstraints",
];

/// What `kubectl` prints for a quantity that is none, and what the API server's own types accept.
const QUANTITY: &str = concat!(
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))",
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
);

/// The formats that an API server knows; it warns of others.
const KNOWN_FORMATS: [&str; 5] = ["int32", "int64", "double", "date-time", "byte"];

/// # Panics
/// Never: a schema is JSON and reads back as a schema.
pub(super) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let labels = crd.metadata.labels.get_or_insert_default();
    labels.insert(OWNER.0.to_owned(), OWNER.1.to_owned());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "larder-controller".to_owned());
    let template = crd.spec.names.kind == "RegistryTemplate";
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        let mut value = serde_json::to_value(&*schema).expect("a schema is JSON");
        bound(&mut value, Place::Ours);
        if template && let Some(spec) = value.pointer_mut("/properties/spec/properties") {
            // A template takes no template.
            spec.as_object_mut().map(|fields| fields.remove("templateRef"));
        }
        *schema = serde_json::from_value::<JSONSchemaProps>(value).expect("what was a schema still is one");
    }
    crd
}

/// Whose schema is looked at.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Ours,
    /// Below a field of [`EMBEDDED`]; the name of that field.
    Embedded(&'static str),
}

fn bound(schema: &mut Value, place: Place) {
    let Some(schema) = schema.as_object_mut() else { return };
    // A default would be stored in the object and hide a template's value from then on; a null that is not nullable is
    // dropped before rules see it, so that `pvc: null` is the same as no pvc.
    schema.remove("default");
    schema.remove("nullable");
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| !KNOWN_FORMATS.contains(&format)) {
        schema.remove("format");
    }
    if place != Place::Ours {
        schema.remove("description");
    }
    bound_value(schema, place);
    if let Some(items) = schema.get_mut("items") {
        bound(items, place);
    }
    if let Some(values) = schema.get_mut("additionalProperties") {
        if values.get("type").and_then(Value::as_str) == Some("string")
            && let Some(values) = values.as_object_mut()
        {
            values.entry("maxLength").or_insert(json!(LONGEST_MAP_VALUE));
        }
        bound(values, place);
    }
    for (name, property) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
    {
        if name == "message"
            && let Some(message) = property.as_object_mut()
        {
            message.entry("maxLength").or_insert(json!(LONGEST_MESSAGE));
        }
        let inside = EMBEDDED.into_iter().find(|embedded| embedded == name).map(Place::Embedded);
        match (place, inside) {
            (Place::Ours, Some(inside)) => {
                // What the field is for is ours to say.
                let description = property.get("description").cloned();
                bound(property, inside);
                if let (Some(property), Some(description)) = (property.as_object_mut(), description) {
                    property.insert("description".to_owned(), description);
                }
            }
            _ => bound(property, place),
        }
    }
}

/// An end for this one value.
fn bound_value(schema: &mut Map<String, Value>, place: Place) {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        schema.entry("maxLength").or_insert(json!(LONGEST_QUANTITY));
        schema.entry("anyOf").or_insert(json!([{ "type": "integer" }, { "type": "string" }]));
        if place == Place::Embedded("resources") {
            schema.entry("pattern").or_insert(json!(QUANTITY));
        }
        return;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if !schema.contains_key("enum") && !schema.contains_key("format") => {
            schema.entry("maxLength").or_insert(json!(LONGEST_STRING));
        }
        Some("array") => {
            let most = if place == Place::Ours { MOST_ITEMS } else { MOST_EMBEDDED_ITEMS };
            schema.entry("maxItems").or_insert(json!(most));
        }
        Some("object") if schema.contains_key("additionalProperties") => {
            schema.entry("maxProperties").or_insert(json!(MOST_PROPERTIES));
        }
        _ => {}
    }
}
