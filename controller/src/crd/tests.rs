//! The definitions as a whole: small enough, with an end everywhere, without defaults, marked as ours.

use serde_json::Value;

use super::*;

fn schemas() -> Vec<(String, Value)> {
    let schema = |definition: &CustomResourceDefinition| {
        serde_json::to_value(definition.spec.versions[0].schema.as_ref().unwrap()).unwrap()["openAPIV3Schema"]
            .clone()
    };
    all().iter().map(|definition| (definition.spec.names.kind.clone(), schema(definition))).collect()
}

/// Calls `look` for every schema inside, with its path.
fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, look);
    }
    for inside in ["items", "additionalProperties"] {
        if schema[inside].is_object() {
            walk(&format!("{path}[]"), &schema[inside], look);
        }
    }
}

#[test]
fn a_definition_fits_where_a_last_applied_annotation_must() {
    for definition in all() {
        let written = serde_saphyr::to_string(&definition).unwrap();
        assert!(written.len() < 250 * 1024, "{}: {}", definition.spec.names.kind, written.len());
    }
}

#[test]
fn everything_has_an_end_and_nothing_a_default() {
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, schema| {
            let has = |word: &str| !schema[word].is_null();
            assert!(!has("default") && !has("nullable"), "{path}");
            match schema["type"].as_str() {
                Some("string") => assert!(has("maxLength") || has("enum") || has("format"), "{path}"),
                Some("array") => assert!(has("maxItems"), "{path}"),
                Some("object") => assert!(!has("additionalProperties") || has("maxProperties"), "{path}"),
                Some("integer" | "boolean") => {}
                other => assert!(schema["x-kubernetes-int-or-string"] == true, "{path}: {other:?}"),
            }
        });
    }
}

#[test]
fn our_own_fields_say_what_they_are_for_and_rules_what_to_write() {
    let mut rules = 0;
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let message = rule["message"].as_str().unwrap_or_default();
                assert!(message.len() > 20 && !message.contains('\n'), "{path}: {message}");
                rules += 1;
            }
        });
    }
    assert!(rules > 100, "{rules}");
}

#[test]
fn a_template_takes_no_template_and_a_registry_takes_one_at_its_root() {
    let schemas: std::collections::BTreeMap<_, _> = schemas().into_iter().collect();
    assert!(schemas["RegistryTemplate"]["properties"]["spec"]["properties"]["templateRef"].is_null());
    assert_eq!(schemas["Registry"]["properties"]["template"]["type"], "string");
    assert_eq!(schemas["Registry"]["properties"]["spec"]["properties"]["templateRef"]["type"], "object");
}

#[test]
fn conditions_are_merged_by_type() {
    for (kind, schema) in schemas() {
        let conditions = &schema["properties"]["status"]["properties"]["conditions"];
        if kind != "NodeCacheReport" {
            assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
            assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type", "{kind}");
        }
    }
}

#[test]
fn ours_are_told_from_those_of_another_owner() {
    let mut definition = all().remove(0);
    assert!(is_ours(&definition));
    definition.metadata.labels = None;
    assert!(!is_ours(&definition));
}

#[test]
fn printed_definitions_read_back_as_they_are() {
    assert_eq!(yaml(), yaml());
    let documents: Vec<String> = yaml().split("---\n").skip(1).map(str::to_owned).collect();
    let read: Vec<CustomResourceDefinition> =
        documents.iter().map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    assert_eq!(read, all());
}

#[test]
fn quantities_may_be_numbers_and_texts() {
    let quantity = schemas().into_iter().find(|(kind, _)| kind == "Registry").unwrap().1["properties"]["spec"]
        ["properties"]["resources"]["properties"]["limits"]["additionalProperties"]
        .clone();
    assert_eq!(quantity["x-kubernetes-int-or-string"], true);
    assert!(quantity["pattern"].is_string());
}
