//! The cases, held against the definitions without a cluster: rules by kube's own evaluation, the plain words of a
//! schema (types, enums, ends) by the few lines below.

use std::collections::HashMap;

use kube::core::cel::Validator;
use serde_json::{Map, Value};

use super::super::*;
use super::*;

struct Definitions(HashMap<String, Value>);

impl Definitions {
    fn read() -> Self {
        let schema = |definition: &CustomResourceDefinition| {
            let schema = definition.spec.versions[0].schema.as_ref().unwrap();
            serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap()
        };
        Self(all().iter().map(|crd| (crd.spec.names.kind.clone(), schema(crd))).collect())
    }

    /// Everything that is wrong with an object, one line each.
    fn complaints(&self, object: &Value, before: Option<&Value>) -> Vec<String> {
        let schema = &self.0[object["kind"].as_str().unwrap()];
        let mut complaints = Vec::new();
        check(schema, object, "", &mut complaints);
        // The API server runs no rule over what does not fit the schema.
        if complaints.is_empty() {
            let rules = Validator::new().validate(schema, object, before);
            complaints.extend(rules.err().into_iter().flat_map(|e| e.into_vec()).map(|e| e.message));
        }
        complaints
    }
}

/// The words of a schema that a structural schema may use, as far as ours do.
fn check(schema: &Value, value: &Value, path: &str, complaints: &mut Vec<String>) {
    let mut complain = |what: &str| complaints.push(format!("{path}: {what}"));
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        _ => value.is_i64() || value.is_string() || schema["type"].is_null() && path.is_empty(),
    };
    if !fits {
        return complain("Invalid value: it has another type");
    }
    let longest = |word: &str| schema[word].as_u64().map_or(usize::MAX, |most| most as usize);
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        complain("Unsupported value");
    }
    match value {
        Value::String(text) => {
            if text.chars().count() > longest("maxLength") {
                complain("Too long");
            }
            // The one pattern of ours is the quantity's.
            if schema["pattern"].is_string() && text.parse::<crate::quantity::Quantity>().is_err() {
                complain("should match");
            }
        }
        Value::Array(items) => {
            if items.len() > longest("maxItems") {
                complain("Too many");
            }
            items.iter().for_each(|item| check(&schema["items"], item, &format!("{path}[]"), complaints));
        }
        Value::Object(fields) => check_fields(schema, fields, path, complaints),
        _ => {}
    }
}

fn check_fields(schema: &Value, fields: &Map<String, Value>, path: &str, complaints: &mut Vec<String>) {
    for required in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(required.as_str().unwrap()) {
            complaints.push(format!("{path}.{required}: Required value"));
        }
    }
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if ["apiVersion", "kind", "metadata"].contains(&name.as_str()) => {}
            (Value::Null, Value::Null) => complaints.push(format!("{path}: unknown field")),
            (Value::Null, schema) | (schema, _) => check(schema, field, &path, complaints),
        }
    }
}

/// As the API server reads it: a null is no value.
fn read(yaml: &str) -> Value {
    fn without_nulls(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|_, field| !field.is_null());
                fields.values_mut().for_each(without_nulls);
            }
            Value::Array(items) => items.iter_mut().for_each(without_nulls),
            _ => {}
        }
    }
    let mut value: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    without_nulls(&mut value);
    value
}

fn judge(name: &str, complaints: &[String], refused: Option<&str>) -> Result<(), String> {
    match refused {
        None if complaints.is_empty() => Ok(()),
        Some(part) if complaints.iter().any(|complaint| complaint.contains(part)) => Ok(()),
        _ => Err(format!("{name}\n  expected {refused:?}\n  got {complaints:?}")),
    }
}

fn assert_all(wrong: impl Iterator<Item = Result<(), String>>) {
    let wrong: Vec<String> = wrong.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn objects_are_accepted_or_refused() {
    let definitions = Definitions::read();
    assert_all(
        cases()
            .iter()
            .map(|case| judge(&case.name, &definitions.complaints(&read(&case.object), None), case.refused)),
    );
}

#[test]
fn changes_are_accepted_or_refused() {
    let definitions = Definitions::read();
    assert_all(updates().iter().map(|update| {
        let (before, after) = (read(&update.before), read(&update.after));
        judge(&update.name, &definitions.complaints(&before, None), None)?;
        judge(&update.name, &definitions.complaints(&after, Some(&before)), update.refused)
    }));
}

#[test]
fn every_rule_has_a_case_that_it_refuses() {
    let definitions = Definitions::read();
    let mut messages = Vec::new();
    definitions.0.values().for_each(|schema| collect_messages(schema, &mut messages));
    messages.sort_unstable();
    messages.dedup();
    let told: Vec<&str> = cases()
        .iter()
        .filter_map(|case| case.refused)
        .chain(updates().iter().filter_map(|update| update.refused))
        .collect();
    let silent: Vec<&String> =
        messages.iter().filter(|message| !told.iter().any(|part| message.contains(part))).collect();
    assert!(silent.is_empty(), "no case is refused by these rules: {silent:#?}");
}

#[test]
fn what_is_accepted_reads_as_its_type() {
    for case in cases().iter().filter(|case| case.refused.is_none()) {
        let object = read(&case.object);
        let back = match object["kind"].as_str().unwrap() {
            "Cache" => round::<Cache>(&object),
            "NodeCache" => round::<NodeCache>(&object),
            "NodeCacheReport" => round::<NodeCacheReport>(&object),
            "Registry" => round::<Registry>(&object),
            "RegistryTemplate" => round::<RegistryTemplate>(&object),
            "RegistryGateway" => round::<RegistryGateway>(&object),
            kind => panic!("no type for {kind}"),
        };
        contains(&back, &object, &case.name);
    }
}

fn round<T: serde::Serialize + serde::de::DeserializeOwned>(object: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
}

/// Nothing that was written is lost on the way through the type.
fn contains(back: &Value, written: &Value, name: &str) {
    match written {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| contains(&back[key], value, name)),
        // A quantity written as a number is a text in the type.
        Value::Number(number) if back.is_string() => assert_eq!(back, &number.to_string(), "{name}"),
        value => assert_eq!(back, value, "{name}"),
    }
}

fn collect_messages(schema: &Value, messages: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(rules) = fields.get("x-kubernetes-validations").and_then(Value::as_array) {
                messages.extend(rules.iter().map(|rule| rule["message"].as_str().unwrap().to_owned()));
            }
            fields.values().for_each(|value| collect_messages(value, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_messages(item, messages)),
        _ => {}
    }
}
