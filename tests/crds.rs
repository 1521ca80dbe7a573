//! The generated custom resource definitions: committed as they are, in `crds/` and in the chart.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

const FOLDERS: [&str; 2] = ["crds", "charts/scriptscope/files/crds"];
const COMMAND: &str = "make generate (cargo run -- crd --dir crds --dir charts/scriptscope/files/crds)";

#[test]
fn the_committed_files_are_what_the_code_generates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = scriptscope::api::crds().unwrap();
    for folder in FOLDERS {
        for (name, text) in &generated {
            let path = root.join(folder).join(name);
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == *text,
                "{} is not what the code generates; run: {COMMAND}",
                path.display()
            );
        }
        let expected: BTreeSet<String> = generated.iter().map(|(name, _)| (*name).to_owned()).collect();
        let found: BTreeSet<String> = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(found, expected, "{folder} holds other files; run: {COMMAND}");
    }
}

/// What an API server would refuse or warn about: a schema without types, integer formats that it does not know, lists
/// and strings under validation rules without bounds.
#[test]
fn the_schemas_are_structural_and_bounded() {
    for (name, text) in scriptscope::api::crds().unwrap() {
        let crd: Value = serde_norway::from_str(&text).unwrap();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let schema = &version["schema"]["openAPIV3Schema"];
            walk(name, "", schema, false);
            walk(name, "spec", &schema["properties"]["spec"], true);
        }
    }
}

fn walk(file: &str, path: &str, schema: &Value, bounded: bool) {
    let any = |key: &str| schema[key] == Value::Bool(true);
    assert!(
        schema["type"].is_string()
            || any("x-kubernetes-int-or-string")
            || any("x-kubernetes-preserve-unknown-fields"),
        "{file}: {path} has no type"
    );
    if schema["type"] == "integer" {
        let format = schema["format"].as_str().unwrap_or("int32");
        assert!(
            ["int32", "int64"].contains(&format),
            "{file}: {path} has the format {format}"
        );
    }
    if bounded && schema["x-kubernetes-validations"].is_array() {
        let bound = match schema["type"].as_str() {
            Some("array") => "maxItems",
            Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
            _ => "type",
        };
        assert!(
            !schema[bound].is_null(),
            "{file}: {path} has rules and no {bound}"
        );
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(file, &format!("{path}.{name}"), property, bounded);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            walk(file, &format!("{path}[]"), &schema[key], bounded);
        }
    }
}

/// A rule that fails must tell which field it is about.
#[test]
fn every_rule_names_its_field() {
    fn rules<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
        match schema {
            Value::Object(map) => {
                if let Some(Value::Array(list)) = map.get("x-kubernetes-validations") {
                    found.extend(list);
                }
                map.values().for_each(|value| rules(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| rules(value, found)),
            _ => {}
        }
    }
    for (name, text) in scriptscope::api::crds().unwrap() {
        let crd: Value = serde_norway::from_str(&text).unwrap();
        let mut found = Vec::new();
        rules(&crd, &mut found);
        assert!(!found.is_empty(), "{name} has no rules");
        for rule in found {
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(
                message.starts_with("spec") || message.starts_with("metadata."),
                "{name}: the message of {} does not begin with its field: {message:?}",
                rule["rule"]
            );
        }
    }
}
