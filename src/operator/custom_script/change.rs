//! What a version changed, compared with the one before: why there is a version, and the paths of the fields that are not
//! as they were. Pure. Never a value: whoever may read runs may read this, and a spec may hold secrets.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    fingerprint::Files,
    recorded::{recorded, version_members},
};
use crate::{
    api::{CustomScript, CustomScriptSpec, Endpoint, labels},
    model::{Change, DeployedSpec, Deployment, DeploymentState},
};

/// Fields that are named.
const NAMED: usize = 8;
/// Characters of a path and of a user's name that are kept.
const LONGEST: usize = 200;

/// What `scriptscope rollback` writes down of itself in the annotation [`labels::ROLLBACK`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// The version that was gone back to.
    pub to: i64,
    /// The latest version then, so that no two rollbacks look alike.
    pub from: i64,
    /// Who ran it, as the operator knows the user. Whoever may change the object may write something else here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What is compared beside the members of the spec that make a version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Beside {
    uid: String,
    redeploy: Option<String>,
    rollback: Option<String>,
    endpoint: Option<Endpoint>,
    /// Digest of the files, which the spec does not show where it refers to some that are no text.
    files: Option<String>,
}

impl Beside {
    /// Of an object as it is now.
    pub fn of(object: &CustomScript, files: Option<&Files>) -> Self {
        let annotation = |name: &str| object.annotations().get(name).cloned();
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            redeploy: annotation(labels::REDEPLOY),
            rollback: annotation(labels::ROLLBACK),
            endpoint: object.spec.endpoint.clone(),
            files: files.map(Files::digest),
        }
    }

    /// The rollback that this is, if it is one that the version before was not.
    pub fn rollback(&self, before: &DeployedSpec) -> Option<Rollback> {
        let asked = self.rollback.as_deref()?;
        if beside(before)?.rollback.as_deref() == Some(asked) {
            return None;
        }
        serde_json::from_str(asked).ok()
    }
}

fn beside(made_of: &DeployedSpec) -> Option<Beside> {
    serde_json::from_str(made_of.beside.as_deref()?).ok()
}

/// A version that begins.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// Its number.
    pub version: i64,
    /// The members of the spec that make it, as [`recorded`] gives them.
    pub spec: &'a str,
    /// What is compared with it.
    pub beside: &'a Beside,
}

/// What a version changes. `before` is the one before, as the store has it; `target` what the version was made of that a
/// rollback goes back to.
pub fn change(
    now: Beginning<'_>,
    before: Option<(&Deployment, &DeployedSpec)>,
    rollback: Option<(&Rollback, &DeployedSpec)>,
) -> Change {
    let of = |cause: String| Change {
        cause,
        ..Change::default()
    };
    let Some((before, made_of)) = before else {
        return of(if now.version == 1 {
            "first deployment".to_owned()
        } else {
            "not known: the store has none of the versions before".to_owned()
        });
    };
    if before.version + 1 < now.version {
        return of(forgotten(before.version + 1, now.version - 1));
    }
    let (Some(then), Some(was)) = (members(made_of), beside(made_of)) else {
        return of("not known: what the version before ran was not kept".to_owned());
    };
    let fields = changed(now, &then, &was);
    let back = rollback.filter(|(_, target)| {
        members(target).is_some_and(|target| difference(&normal(now.spec), &target).is_empty())
    });
    let cause = match back {
        Some((rollback, _)) => format!("rollback to {}", rollback.to),
        None if was.uid != now.beside.uid => "created anew".to_owned(),
        None if was.redeploy != now.beside.redeploy => "redeploy requested".to_owned(),
        None if !fields.is_empty() => "spec changed".to_owned(),
        None if before.state == DeploymentState::Failed => "tried again".to_owned(),
        None => "deployed again".to_owned(),
    };
    let more_fields = fields.len().saturating_sub(NAMED);
    Change {
        cause,
        fields: fields.into_iter().take(NAMED).map(|path| cut(&path)).collect(),
        more_fields,
        claimed_by: back.and_then(|(rollback, _)| rollback.by.as_deref().map(cut)),
    }
}

/// The object knows of versions that the store does not: it was put back to an older copy.
fn forgotten(first: i64, last: i64) -> String {
    let versions = if first == last {
        format!("version {first}")
    } else {
        format!("versions {first} to {last}")
    };
    format!("begun anew: the store has forgotten {versions}")
}

fn changed(now: Beginning<'_>, then: &Map<String, Value>, was: &Beside) -> Vec<String> {
    let mut fields = difference(&normal(now.spec), then);
    let endpoint = |beside: &Beside| serde_json::to_value(&beside.endpoint).unwrap_or_default();
    compare(&endpoint(now.beside), &endpoint(was), "endpoint", &mut fields);
    let files = |beside: &Beside| beside.files.clone();
    let told = fields.iter().any(|path| path.starts_with("source."));
    if !told && files(now.beside).is_some() && files(was).is_some() && files(now.beside) != files(was) {
        fields.insert("source.configMapRef".to_owned());
    }
    fields.into_iter().collect()
}

fn members(made_of: &DeployedSpec) -> Option<Map<String, Value>> {
    Some(normal(made_of.spec.as_ref()?.get()))
}

/// With the defaults of today, so that a field which an upgrade brought is no change. Members that a spec does not have, such
/// as those of an adopted Deployment, stay.
fn normal(spec: &str) -> Map<String, Value> {
    let given: Map<String, Value> = serde_json::from_str(spec).unwrap_or_default();
    let read = serde_json::from_str::<CustomScriptSpec>(spec).and_then(|spec| recorded(&spec, None));
    let mut members: Map<String, Value> = read
        .and_then(|read| serde_json::from_str(&read))
        .unwrap_or_default();
    for (name, value) in version_members(given) {
        members.entry(name).or_insert(value);
    }
    members
}

fn difference(now: &Map<String, Value>, then: &Map<String, Value>) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    compare_members(now, then, "", &mut paths);
    paths
}

fn compare_members(
    now: &Map<String, Value>,
    then: &Map<String, Value>,
    path: &str,
    paths: &mut BTreeSet<String>,
) {
    let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    for name in names {
        let member = |of: &Map<String, Value>| of.get(name).cloned().unwrap_or_default();
        compare(&member(now), &member(then), &below(path, name), paths);
    }
}

/// What is absent is null.
fn compare(now: &Value, then: &Value, path: &str, paths: &mut BTreeSet<String>) {
    if now == then {
        return;
    }
    let before = paths.len();
    if let (Some(now), Some(then)) = (object(now), object(then)) {
        compare_members(&now, &then, path, paths);
    } else if let (Some(now), Some(then)) = (named(now), named(then)) {
        let names = now.keys().chain(then.keys());
        let changed = names.filter(|name| now.get(*name) != then.get(*name));
        paths.extend(changed.map(|name| below(path, name)));
    }
    // Neither, or only their order.
    if paths.len() == before {
        paths.insert(path.to_owned());
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn object(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Null => Some(Map::new()),
        Value::Object(members) => Some(members.clone()),
        _ => None,
    }
}

/// The items of a list by their names, if each has one.
fn named(value: &Value) -> Option<BTreeMap<&str, &Value>> {
    match value {
        Value::Null => Some(BTreeMap::new()),
        Value::Array(items) => items
            .iter()
            .map(|item| Some((item["name"].as_str()?, item)))
            .collect(),
        _ => None,
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
