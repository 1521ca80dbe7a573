//! Second step: whether what the cluster holds can be deployed, and what it would be. Pure.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use super::{
    dereference::Dereferenced,
    endpoint::peers_name,
    failure::Failure,
    fingerprint::{Files, fingerprint},
    source::{Delivery, delivery},
};
use crate::{
    api::{CustomScript, Runtime, reasons},
    fetch::{Address, AddressError, Sha256Error, Sha256Sum},
    store::{RetentionError, Wish},
};

/// The most that a `ConfigMap` can hold, in bytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// What is in the way of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The source is a `ConfigMap` that does not exist.
    #[error(
        "spec.source.configMapRef: ConfigMap {0} does not exist in this namespace; create it with a key {1}"
    )]
    ConfigMapMissing(String, &'static str),
    /// No entry point.
    #[error("{place} has no file {file}, the entry point")]
    EntryPointMissing {
        /// Where it was looked for.
        place: String,
        /// Name of the entry point.
        file: &'static str,
    },
    /// Too many bytes.
    #[error("spec.source has {0} bytes; at most {MAX_SOURCE_BYTES} fit")]
    SourceTooLarge(usize),
    /// An archive's address that is none.
    #[error("spec.source.archive.url: {0}")]
    ArchiveUrl(AddressError),
    /// An archive's checksum that is none.
    #[error("spec.source.archive.sha256: {0}")]
    ArchiveSha256(Sha256Error),
    /// The API should have refused it.
    #[error("{0} is missing")]
    FieldMissing(&'static str),
    /// A setting of the retention that the API should have refused.
    #[error("{field}: {error}")]
    Retention {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        error: RetentionError,
    },
    /// Failed runs would go first.
    #[error(
        "spec.retention.failedRuns ({failed_runs}) must not be shorter than spec.retention.runs ({runs}); raise it, or lower runs"
    )]
    FailedRunsShorter {
        /// Age of failed runs.
        failed_runs: String,
        /// Age of runs.
        runs: String,
    },
    /// The `RuntimeClass` does not exist.
    #[error(
        "RuntimeClass {0} does not exist; install gVisor with a RuntimeClass of that name, or set spec.runtimeClassName (\"\" for the cluster's default)"
    )]
    RuntimeClassMissing(String),
    /// Somebody else's object has the name.
    #[error(
        "{kind} {name} exists and belongs to somebody else; nothing was touched. Delete it or give the CustomScript another name"
    )]
    NameConflict {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

impl Problem {
    /// In one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ConfigMapMissing(..) => reasons::CONFIG_MAP_MISSING,
            Self::EntryPointMissing { .. } => reasons::ENTRY_POINT_MISSING,
            Self::SourceTooLarge(_) => reasons::SOURCE_TOO_LARGE,
            Self::FieldMissing(_) | Self::ArchiveUrl(_) | Self::ArchiveSha256(_) => reasons::INVALID_SPEC,
            Self::Retention { .. } | Self::FailedRunsShorter { .. } => reasons::INVALID_RETENTION,
            Self::RuntimeClassMissing(_) => reasons::RUNTIME_CLASS_MISSING,
            Self::NameConflict { .. } => reasons::NAME_CONFLICT,
        }
    }

    /// Whether a failure was this kind of problem, one that kept the pods from being made at all and whose passing
    /// therefore shows without them. (A source that changes is another fingerprint anyway.)
    pub fn is_of_surroundings(reason: &str) -> bool {
        [reasons::RUNTIME_CLASS_MISSING, reasons::NAME_CONFLICT].contains(&reason)
    }
}

impl From<&Problem> for Failure {
    fn from(problem: &Problem) -> Self {
        Self::new(problem.reason(), problem.to_string())
    }
}

/// Whose object it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// There is no such object.
    Nobody,
    /// This `CustomScript`.
    Us,
    /// A `CustomScript` of this name that was deleted; the garbage collector is about to take the object.
    Predecessor,
    /// Somebody else.
    Other,
}

/// Whose object this is, as seen from `object`.
pub fn owner(meta: Option<&ObjectMeta>, object: &CustomScript) -> Owner {
    let Some(meta) = meta else { return Owner::Nobody };
    let controller = meta
        .owner_references
        .iter()
        .flatten()
        .find(|reference| reference.controller == Some(true));
    match controller {
        Some(reference)
            if reference.kind == CustomScript::kind(&())
                && reference.api_version == CustomScript::api_version(&()) =>
        {
            if Some(&reference.uid) == object.metadata.uid.as_ref() {
                Owner::Us
            } else if Some(&reference.name) == object.metadata.name.as_ref() {
                Owner::Predecessor
            } else {
                Owner::Other
            }
        }
        _ => Owner::Other,
    }
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Hash of what would run.
    pub fingerprint: String,
    /// The files to run, or what is in the way.
    pub files: Result<Files, Problem>,
    /// Objects of a deleted `CustomScript` of this name still exist; wait for them to go.
    pub predecessor: bool,
}

/// Finds out.
pub fn inspect(object: &CustomScript, cluster: &Dereferenced) -> Inspection {
    let deployment = owner(cluster.deployment.as_ref().map(|d| &d.metadata), object);
    let service = owner(cluster.service.as_ref(), object);
    let peers = owner(cluster.peers.as_ref(), object);
    let mut autoscaler = owner(cluster.autoscaler.as_ref(), object);
    if autoscaler == Owner::Other && object.spec.replicas.scaled_to().is_none() {
        // We would neither make one nor touch this one.
        autoscaler = Owner::Nobody;
    }
    let source = source(object, cluster);
    Inspection {
        fingerprint: fingerprint(object, source.as_ref().ok()),
        predecessor: [deployment, service, peers, autoscaler].contains(&Owner::Predecessor),
        files: source.and_then(|files| {
            let name = || object.metadata.name.clone().unwrap_or_default();
            for (owner, kind, name) in [
                (deployment, "Deployment", name()),
                (service, "Service", name()),
                (peers, "Service", peers_name(&name())),
                (autoscaler, "HorizontalPodAutoscaler", name()),
            ] {
                if owner == Owner::Other {
                    return Err(Problem::NameConflict { kind, name });
                }
            }
            check_files(object, files)
        }),
    }
}

/// What of the surroundings keeps pods from starting. It says nothing about pods that run already.
pub fn surroundings(object: &CustomScript, cluster: &Dereferenced) -> Result<(), Problem> {
    if cluster.runtime_class_found {
        Ok(())
    } else {
        Err(Problem::RuntimeClassMissing(
            object.spec.runtime_class_name.clone(),
        ))
    }
}

/// How long the script's data is to be kept. It says nothing about what runs, so it stops no deployment.
pub fn retention(object: &CustomScript) -> Result<Wish, Problem> {
    fn field<T: FromStr<Err = RetentionError>>(
        field: &'static str,
        text: Option<&String>,
    ) -> Result<Option<T>, Problem> {
        text.map(|text| text.parse().map_err(|error| Problem::Retention { field, error }))
            .transpose()
    }
    let Some(spec) = &object.spec.retention else {
        return Ok(Wish::default());
    };
    let wish = Wish {
        runs: field("spec.retention.runs", spec.runs.as_ref())?,
        failed_runs: field("spec.retention.failedRuns", spec.failed_runs.as_ref())?,
        logs: field("spec.retention.logs", spec.logs.as_ref())?,
        max_bytes: field("spec.retention.maxBytes", spec.max_bytes.as_ref())?,
    };
    match (wish.runs, wish.failed_runs) {
        (Some(runs), Some(failed_runs)) if failed_runs.or_longer(runs) != failed_runs => {
            Err(Problem::FailedRunsShorter {
                failed_runs: failed_runs.to_string(),
                runs: runs.to_string(),
            })
        }
        _ => Ok(wish),
    }
}

fn source(object: &CustomScript, cluster: &Dereferenced) -> Result<Files, Problem> {
    let source = object
        .spec
        .source
        .as_ref()
        .ok_or(Problem::FieldMissing("spec.source"))?;
    if let Some(archive) = &source.archive {
        archive.url.parse::<Address>().map_err(Problem::ArchiveUrl)?;
        archive
            .sha256
            .parse::<Sha256Sum>()
            .map_err(Problem::ArchiveSha256)?;
        return Ok(Files::default());
    }
    if source.image.is_some() {
        return Ok(Files::default());
    }
    if let Some(inline) = &source.inline {
        return Ok(Files {
            text: inline.clone(),
            ..Files::default()
        });
    }
    let reference = source.config_map_ref.as_ref().ok_or(Problem::FieldMissing(
        "spec.source.inline, configMapRef, archive or image",
    ))?;
    cluster.config_map.clone().ok_or_else(|| {
        let runtime = object.spec.runtime.unwrap_or(Runtime::Python);
        Problem::ConfigMapMissing(reference.name.clone(), runtime.entry_point())
    })
}

fn check_files(object: &CustomScript, files: Files) -> Result<Files, Problem> {
    let runtime = object.spec.runtime.ok_or(Problem::FieldMissing("spec.runtime"))?;
    let file = runtime.entry_point();
    if delivery(&object.spec) != Delivery::ConfigMap {
        // What is in there shows in the pod.
        return Ok(files);
    }
    if !files.has(file) {
        let reference = object
            .spec
            .source
            .as_ref()
            .and_then(|s| s.config_map_ref.as_ref());
        let place = reference.map_or_else(
            || "spec.source.inline".to_owned(),
            |reference| {
                format!(
                    "ConfigMap {}, which spec.source.configMapRef names,",
                    reference.name
                )
            },
        );
        return Err(Problem::EntryPointMissing { place, file });
    }
    match files.bytes() {
        bytes if bytes > MAX_SOURCE_BYTES => Err(Problem::SourceTooLarge(bytes)),
        _ => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::{NameRef, Source},
        operator::custom_script::fixtures::{files, script},
    };

    fn cluster() -> Dereferenced {
        Dereferenced {
            runtime_class_found: true,
            ..Dereferenced::default()
        }
    }

    fn from_config_map() -> CustomScript {
        let mut object = script();
        object.spec.source = Some(Source {
            config_map_ref: Some(NameRef { name: "code".into() }),
            ..Source::default()
        });
        object
    }

    fn owned_by(kind: &str, name: &str, uid: &str) -> ObjectMeta {
        serde_json::from_value(json!({ "name": "qbalance", "ownerReferences": [{
            "apiVersion": "scriptscope.dev/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": true
        }] }))
        .unwrap()
    }

    #[test]
    fn inline_source_can_be_deployed_as_it_is() {
        assert_eq!(inspect(&script(), &cluster()).files, Ok(files()));
    }

    #[test]
    fn a_missing_config_map_or_entry_point_is_named_with_its_remedy() {
        let found = inspect(&from_config_map(), &cluster());
        let problem = found.files.unwrap_err();
        assert_eq!(problem.reason(), reasons::CONFIG_MAP_MISSING);
        assert!(
            problem.to_string().contains("ConfigMap code does not exist"),
            "{problem}"
        );

        let mut other = cluster();
        other.config_map = Some(Files {
            text: [("util.py".to_owned(), String::new())].into(),
            ..Files::default()
        });
        let problem = inspect(&from_config_map(), &other).files.unwrap_err();
        assert!(problem.to_string().contains("has no file main.py"), "{problem}");
        assert!(problem.to_string().contains("ConfigMap code"), "{problem}");
    }

    #[test]
    fn a_node_script_s_entry_point_is_main_js() {
        let mut object = from_config_map();
        object.spec.runtime = Some(Runtime::Node);
        let problem = inspect(&object, &cluster()).files.unwrap_err();
        assert!(
            problem.to_string().ends_with("create it with a key main.js"),
            "{problem}"
        );
        let mut there = cluster();
        there.config_map = Some(files());
        let problem = inspect(&object, &there).files.unwrap_err();
        assert!(problem.to_string().contains("has no file main.js"), "{problem}");
        let file = ("main.js".to_owned(), "exports.f = () => 1".to_owned());
        there.config_map.as_mut().unwrap().text.extend([file]);
        assert!(inspect(&object, &there).files.is_ok());
    }

    #[test]
    fn a_config_map_that_appears_or_changes_is_a_new_deployment() {
        let before = inspect(&from_config_map(), &cluster()).fingerprint;
        let mut there = cluster();
        there.config_map = Some(files());
        let first = inspect(&from_config_map(), &there);
        assert_eq!(first.files, Ok(files()));
        there
            .config_map
            .as_mut()
            .unwrap()
            .text
            .insert("b.py".into(), String::new());
        let second = inspect(&from_config_map(), &there).fingerprint;
        assert!(before != first.fingerprint && first.fingerprint != second);
    }

    #[test]
    fn archives_and_images_are_looked_into_by_the_pod_and_their_fields_are_checked() {
        let with = |json: serde_json::Value| {
            let mut object = script();
            object.spec.source = Some(serde_json::from_value(json).unwrap());
            inspect(&object, &cluster()).files
        };
        let sum = "0a".repeat(32);
        let archive = |url: &str, sha256: &str| with(json!({ "archive": { "url": url, "sha256": sha256 } }));
        assert_eq!(
            archive("https://files.test/a.zip?token=1", &sum),
            Ok(Files::default())
        );
        assert_eq!(with(json!({ "image": "shop/balance:1" })), Ok(Files::default()));
        for (url, sha256, text) in [
            (
                "ftp://files.test/a.zip",
                sum.as_str(),
                "spec.source.archive.url: it is no absolute http or https URL",
            ),
            (
                "http://me:secret@files.test/a.zip",
                &sum,
                "spec.source.archive.url: it holds a user or password",
            ),
            (
                "http://files.test/a.zip",
                "abc",
                "spec.source.archive.sha256: it has not 64",
            ),
        ] {
            let problem = archive(url, sha256).unwrap_err();
            assert!(problem.to_string().starts_with(text), "{problem}");
            assert!(!problem.to_string().contains("secret"), "{problem}");
            assert_eq!(problem.reason(), reasons::INVALID_SPEC);
        }
    }

    #[test]
    fn source_that_no_config_map_can_hold_is_refused() {
        let mut object = script();
        let big = "x".repeat(700_000);
        let inline = object.spec.source.as_mut().unwrap().inline.as_mut().unwrap();
        inline.extend([("a.py".to_owned(), big.clone()), ("b.py".to_owned(), big)]);
        let problem = inspect(&object, &cluster()).files.unwrap_err();
        assert!(problem.to_string().contains("at most 1048576 fit"), "{problem}");
    }

    #[test]
    fn a_missing_runtime_class_names_the_way_out() {
        let problem = surroundings(&script(), &Dereferenced::default()).unwrap_err();
        assert!(
            problem
                .to_string()
                .starts_with("RuntimeClass gvisor does not exist"),
            "{problem}"
        );
        assert!(problem.to_string().contains("spec.runtimeClassName"), "{problem}");
        assert_eq!(surroundings(&script(), &cluster()), Ok(()));
    }

    #[test]
    fn a_retention_that_would_delete_everything_names_field_and_remedy() {
        let with = |json: serde_json::Value| {
            let mut object = script();
            object.spec.retention = Some(serde_json::from_value(json).unwrap());
            retention(&object)
        };
        assert_eq!(retention(&script()), Ok(Wish::default()));
        let wanted = with(json!({ "runs": "2w", "failedRuns": "14d", "maxBytes": "1Gi" })).unwrap();
        assert_eq!((wanted.runs, wanted.logs), (wanted.failed_runs, None));
        for (json, text) in [
            (
                json!({ "runs": "0d" }),
                "spec.retention.runs: \"0d\" is not an age; give a whole number",
            ),
            (
                json!({ "logs": "5m" }),
                "spec.retention.logs: 5m is too short; at least 1h",
            ),
            (
                json!({ "maxBytes": "0" }),
                "spec.retention.maxBytes: 0 is too little; at least 16Mi",
            ),
            (
                json!({ "runs": "90d", "failedRuns": "10d" }),
                "spec.retention.failedRuns (10d) must not be shorter than spec.retention.runs (90d); raise it",
            ),
            (
                json!({ "runs": "forever", "failedRuns": "10d" }),
                "spec.retention.failedRuns (10d) must not",
            ),
        ] {
            let problem = with(json).unwrap_err();
            assert!(problem.to_string().starts_with(text), "{problem}");
            assert_eq!(problem.reason(), reasons::INVALID_RETENTION);
        }
    }

    #[test]
    fn an_object_of_somebody_else_is_a_conflict_and_ours_is_not() {
        let mut there = cluster();
        there.service = Some(ObjectMeta::default());
        let problem = inspect(&script(), &there).files.unwrap_err();
        assert_eq!(problem.reason(), reasons::NAME_CONFLICT);
        assert!(
            problem.to_string().starts_with("Service qbalance exists"),
            "{problem}"
        );

        there.service = Some(owned_by("CustomScript", "qbalance", "uid-1"));
        assert!(inspect(&script(), &there).files.is_ok());
        there.service = Some(owned_by("CustomScript", "qbalance", "uid-0"));
        assert!(inspect(&script(), &there).predecessor);
        assert_eq!(
            owner(Some(&owned_by("CustomScript", "other", "uid-0")), &script()),
            Owner::Other
        );
        assert_eq!(
            owner(Some(&owned_by("Widget", "qbalance", "uid-1")), &script()),
            Owner::Other
        );
    }
}
