//! The examples: their manifests hold the files beside them, and each call has the answer that it is said to have.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use scriptscope::api::CustomScript;
use serde::Deserialize;
use serde_json::Value;

use crate::harness::Runner;

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    assert!(found.len() >= 5, "{found:?}");
    found
}

/// The objects of a manifest.
fn manifest(example: &Path) -> Vec<Value> {
    let text = fs::read_to_string(example.join("customscript.yaml")).unwrap();
    let documents = serde_norway::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn custom_script(example: &Path) -> Value {
    let mut found = manifest(example)
        .into_iter()
        .filter(|object| object["kind"] == "CustomScript");
    let script = found
        .next()
        .unwrap_or_else(|| panic!("{} has no CustomScript", example.display()));
    assert!(found.next().is_none(), "{} has several", example.display());
    script
}

#[test]
fn a_manifest_is_a_custom_script_with_the_files_beside_it() {
    let (_, crd) = scriptscope::api::crds().unwrap().remove(0);
    let crd: Value = serde_norway::from_str(&crd).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for example in examples() {
        let object = custom_script(&example);
        known(&object["spec"], schema, &format!("{}: spec", example.display()));
        let script: CustomScript = serde_json::from_value(object).unwrap();
        let entry = script.spec.runtime.unwrap().entry_point();
        let inline = script.spec.source.unwrap().inline.unwrap();
        assert!(inline.contains_key(entry), "{example:?}");
        for (name, text) in &inline {
            let file = example.join(name);
            assert_eq!(
                text,
                &fs::read_to_string(&file).unwrap_or_default(),
                "{} is not what customscript.yaml beside it has under this name; make them the same",
                file.display()
            );
        }
        let code = |name: &str| {
            [".py", ".js", "package.json"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        for file in fs::read_dir(&example).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(
                !code(&name) || inline.contains_key(&name),
                "{example:?}: {name} is not in customscript.yaml"
            );
        }
        let readme = fs::read_to_string(example.join("README.md")).unwrap();
        let command = format!(
            "kubectl apply -f customscript.yaml && kubectl wait customscript/{}",
            script.metadata.name.unwrap()
        );
        assert!(
            readme.contains(&command),
            "{example:?}: README.md does not say: {command}"
        );
    }
}

/// Every field is one that the kind has: a slip of the pen would be dropped in silence.
fn known(value: &Value, schema: &Value, path: &str) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (name, value) in value.as_object().into_iter().flatten() {
        let property = properties
            .get(name)
            .unwrap_or_else(|| panic!("{path} has no field {name}"));
        known(value, property, &format!("{path}.{name}"));
    }
}

/// The variables that its pods have. Nothing is asked of other machines.
fn environment(example: &Path) -> BTreeMap<String, String> {
    let objects = manifest(example);
    let of_secret = |reference: &Value| {
        let secret = objects
            .iter()
            .find(|o| o["kind"] == "Secret" && o["metadata"]["name"] == reference["name"]);
        secret.unwrap()["stringData"][reference["key"].as_str().unwrap()].clone()
    };
    let spec = custom_script(example)["spec"].take();
    let variables = spec["env"].as_array().into_iter().flatten().map(|variable| {
        let value = match &variable["value"] {
            Value::Null => of_secret(&variable["valueFrom"]["secretKeyRef"]),
            value => value.clone(),
        };
        (
            variable["name"].as_str().unwrap().to_owned(),
            value.as_str().unwrap().to_owned(),
        )
    });
    let mut all: BTreeMap<_, _> = variables.collect();
    all.insert("RATES_URL".into(), "http://127.0.0.1:9/".into());
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_the_answer_that_it_is_said_to_have() {
    for example in examples() {
        let folder = tempfile::tempdir().unwrap();
        let mut variables = environment(&example);
        variables.insert("WEBHOOK_DIR".into(), folder.path().to_str().unwrap().into());
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let runner = Runner::start_in(&example, &variables).await;
        let calls = fs::read_to_string(example.join("calls.json")).unwrap();
        let calls: Vec<Value> = serde_json::from_str(&calls).unwrap();
        for call in calls {
            let answer = runner
                .call(call["function"].as_str().unwrap(), call["arguments"].clone())
                .await;
            let what = format!("{}: {call}: {answer:?}", example.display());
            if let Some(expected) = call["error"].as_str() {
                let error = &answer.body["error"];
                let said = [&error["type"], &error["message"]].map(|part| part.as_str().unwrap());
                assert_eq!(said.join(": "), expected, "{what}");
                continue;
            }
            assert_eq!(answer.body["status"], "Success", "{what}");
            for (name, expected) in call["result"].as_object().unwrap() {
                assert!(same(&answer.body["result"][name], expected), "{name}: {what}");
            }
        }
    }
}

/// JSON knows no difference between 5 and 5.0.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => found.as_f64() == expected.as_f64(),
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| same(f, e))
        }
        _ => found == expected,
    }
}
