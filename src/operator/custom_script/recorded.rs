//! What is written down of a version when it begins, so that one can go back to it, and who asked for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::fingerprint::Files;
use crate::api::{CustomScript, CustomScriptSpec};

/// Members of a spec that are no part of a version: they change without one, and stay as they are when one goes back.
pub const NOT_OF_A_VERSION: [&str; 5] = ["desiredState", "replicas", "retention", "onDelete", "endpoint"];

/// The members of a spec, given as JSON, that make a version.
pub fn version_members(mut spec: Map<String, Value>) -> Map<String, Value> {
    spec.retain(|name, _| !NOT_OF_A_VERSION.contains(&name.as_str()));
    spec
}

/// What made a version, as JSON. The content of a referenced `ConfigMap` takes its place, since it can change; one with
/// files that are no text stays a reference.
pub fn recorded(spec: &CustomScriptSpec, files: Option<&Files>) -> Result<String, serde_json::Error> {
    let Value::Object(members) = serde_json::to_value(spec)? else {
        return Ok("{}".to_owned());
    };
    let mut members = version_members(members);
    let by_reference = spec
        .source
        .as_ref()
        .is_some_and(|source| source.config_map_ref.is_some());
    if let Some(files) = files.filter(|files| by_reference && files.binary.is_empty()) {
        members.insert("source".to_owned(), json!({ "inline": files.text }));
    }
    serde_json::to_string(&members)
}

/// Keeps of the managed fields only who changed the spec last, without the fields: objects are kept in memory by the
/// thousand.
pub fn keep_author(object: &mut CustomScript) {
    let fields = object.managed_fields_mut();
    let author = std::mem::take(fields)
        .into_iter()
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty() && is_of_spec(entry))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    fields.extend(author.map(|entry| ManagedFieldsEntry {
        fields_v1: None,
        ..entry
    }));
}

fn is_of_spec(entry: &ManagedFieldsEntry) -> bool {
    entry
        .fields_v1
        .as_ref()
        .is_some_and(|FieldsV1(fields)| fields.get("f:spec").is_some())
}

/// Who changed the spec of any object last.
pub fn author_of(meta: &ObjectMeta) -> Option<String> {
    let entries = meta.managed_fields.iter().flatten();
    let of_spec = entries
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty() && is_of_spec(entry));
    let latest = of_spec.max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    latest?.manager.clone()
}

/// Who changed the spec last, as [`keep_author`] left it.
pub fn author(object: &CustomScript) -> Option<&str> {
    object.managed_fields().first()?.manager.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{NameRef, Source},
        operator::custom_script::fixtures::{files, script},
    };

    #[test]
    fn what_makes_a_version_is_recorded_with_its_source() {
        let mut object = script();
        object.spec.replicas.min = 3;
        object.spec.source = Some(Source {
            config_map_ref: Some(NameRef { name: "code".into() }),
            ..Source::default()
        });
        let json: Value = serde_json::from_str(&recorded(&object.spec, Some(&files())).unwrap()).unwrap();
        assert_eq!(json["source"], json!({ "inline": files().text }));
        assert_eq!(json["timeoutSeconds"], 60);
        for name in NOT_OF_A_VERSION {
            assert!(json.get(name).is_none(), "{name}");
        }
        // What can be read back is a spec again.
        let back: CustomScriptSpec = serde_json::from_value(json).unwrap();
        assert_eq!(back.runtime, object.spec.runtime);
        let unknown: Value = serde_json::from_str(&recorded(&object.spec, None).unwrap()).unwrap();
        assert_eq!(unknown["source"]["configMapRef"]["name"], "code");
    }

    #[test]
    fn the_author_is_who_changed_the_spec_last() {
        let entry =
            |manager: &str, second: i64, subresource: Option<&str>, fields: Value| ManagedFieldsEntry {
                manager: Some(manager.into()),
                subresource: subresource.map(Into::into),
                time: Some(jiff::Timestamp::from_second(second).unwrap().into()),
                fields_v1: Some(FieldsV1(fields)),
                ..ManagedFieldsEntry::default()
            };
        let spec = || json!({"f:spec": {"f:env": {}}});
        let mut object = script();
        object.metadata.managed_fields = Some(vec![
            entry("kubectl-edit", 20, None, spec()),
            entry("kubectl-create", 10, None, spec()),
            entry("labeller", 30, None, json!({"f:metadata": {}})),
            entry("scriptscope", 40, Some("status"), spec()),
        ]);
        keep_author(&mut object);
        assert_eq!(author(&object), Some("kubectl-edit"));
        assert!(object.managed_fields()[0].fields_v1.is_none());
        keep_author(&mut object);
        assert_eq!(author(&script()), None);
    }
}
