//! The golden files of the controller's build steps, against what stands in a cluster. Must not write them: the build
//! steps' own tests do.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use larder_tests::cluster::Space;
use serde_json::Value;

/// Every child of Registry `main` that the golden file shows is in the cluster with all that it shows, but for kinds
/// that are passed over.
pub(crate) async fn shown(space: &Space, case: &str, but: &[&str]) {
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let registry = space.get("Registry", "main").await.unwrap();
    let deployment = space.get("Deployment", "main-registry").await.unwrap();
    let revision = deployment["metadata"]["annotations"]["registry-operator.dev/revision"].clone();
    let text = read(case).replace("registry-system", &space.name);
    let text = text.replace("11111111-2222-3333-4444-555555555555", &uid(&registry));
    let theirs = text.split("main-registry-config-").nth(1).unwrap().get(..10).unwrap().to_owned();
    let text = text.replace(&theirs, revision.as_str().unwrap());
    let http = space.get("Secret", "main-registry-http").await.unwrap();
    let text = text.replace(&"0".repeat(64), &decoded(&http, "secret"));

    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    for mut wanted in documents {
        let (kind, name) = (wanted["kind"].as_str().unwrap(), wanted["metadata"]["name"].as_str().unwrap());
        if but.contains(&kind) {
            continue;
        }
        let mut live = space.get(kind, name).await.unwrap_or_else(|| panic!("{kind} {name} is not there"));
        if kind == "Secret" {
            live["data"]["config.yml"] = decoded(&live, "config.yml").into();
        }
        // When it began is another time.
        if let Some(Value::Object(annotations)) = wanted.pointer_mut("/metadata/annotations") {
            annotations.remove("registry-operator.dev/since");
        }
        let missing = missing(&live, &wanted, "");
        assert!(missing.is_none(), "{case}: {} of\n{live:#}", missing.unwrap());
    }
}

/// One of a Secret's values, as text.
pub(crate) fn decoded(secret: &Value, key: &str) -> String {
    let bytes = BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A golden file's text.
pub(crate) fn read(case: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/tests/golden");
    fs::read_to_string(dir.join(case).with_extension("yaml")).unwrap()
}

/// The first thing wanted that is not there.
pub(crate) fn missing(live: &Value, wanted: &Value, path: &str) -> Option<String> {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            let path = format!("{path}.{key}");
            live.get(key).map_or_else(|| Some(format!("no {path}")), |live| missing(live, wanted, &path))
        }),
        (Value::Array(live), Value::Array(wanted)) if live.len() == wanted.len() => {
            live.iter().zip(wanted).find_map(|(live, wanted)| missing(live, wanted, &format!("{path}[]")))
        }
        _ if live == wanted => None,
        _ => Some(format!("{path} is {live}, not {wanted}")),
    }
}
