//! What makes two deployments the same.

use std::{collections::BTreeMap, fmt::Write as _};

use k8s_openapi::{
    ByteString,
    api::core::v1::{EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::api::{Archive, Capture, CustomScript, Endpoint, Logging, Runtime, labels};

/// The files of a script, as a `ConfigMap` holds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    /// Files that are text.
    pub text: BTreeMap<String, String>,
    /// Files that are not.
    pub binary: BTreeMap<String, ByteString>,
}

impl Files {
    /// Hash of names and contents, hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |name: &str, content: &[u8]| {
            // Lengths first, so that no two lists of files look alike.
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name);
            hash.update((content.len() as u64).to_be_bytes());
            hash.update(content);
        };
        for (name, content) in &self.text {
            add(name, content.as_bytes());
        }
        for (name, content) in &self.binary {
            add(name, &content.0);
        }
        hex(&hash.finalize())
    }

    /// Bytes of all names and contents.
    pub fn bytes(&self) -> usize {
        let text: usize = self.text.iter().map(|(name, text)| name.len() + text.len()).sum();
        let binary: usize = self
            .binary
            .iter()
            .map(|(name, bytes)| name.len() + bytes.0.len())
            .sum();
        text + binary
    }

    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.text.contains_key(name) || self.binary.contains_key(name)
    }
}

/// Everything that a deployment runs with. Replicas, retention and labels are not in it: changing them changes nothing
/// about what runs. Neither are the operator's own default images, so that an upgrade of the operator restarts nobody.
#[derive(Serialize)]
struct WhatRuns<'a> {
    /// An object that was deleted and created anew begins a new deployment, also with the same content.
    uid: &'a str,
    redeploy: Option<&'a String>,
    runtime: Option<Runtime>,
    runtime_image: &'a Option<String>,
    files: Option<String>,
    /// These are left out where they are not given, so that scripts from before there were some keep their version.
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<&'a Archive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a String>,
    env: &'a [EnvVar],
    env_from: &'a [EnvFromSource],
    resources: &'a Option<ResourceRequirements>,
    runtime_class_name: &'a str,
    service_account_name: &'a Option<String>,
    image_pull_secrets: &'a [LocalObjectReference],
    /// Left out where it is not given, so that scripts from before there was one keep their version.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: &'a Option<Endpoint>,
    timeout_seconds: i32,
    concurrency: i32,
    logging: &'a Logging,
    capture: &'a Capture,
}

/// Hash of what would run, hexadecimal. `files` is none while the source can not be found.
pub fn fingerprint(object: &CustomScript, files: Option<&Files>) -> String {
    let spec = &object.spec;
    let what = WhatRuns {
        uid: object.metadata.uid.as_deref().unwrap_or_default(),
        redeploy: object
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(labels::REDEPLOY)),
        runtime: spec.runtime,
        runtime_image: &spec.runtime_image,
        files: files.map(Files::digest),
        archive: spec.source.as_ref().and_then(|source| source.archive.as_ref()),
        image: spec.source.as_ref().and_then(|source| source.image.as_ref()),
        env: &spec.env,
        env_from: &spec.env_from,
        resources: &spec.resources,
        runtime_class_name: &spec.runtime_class_name,
        service_account_name: &spec.service_account_name,
        image_pull_secrets: &spec.image_pull_secrets,
        endpoint: &spec.endpoint,
        timeout_seconds: spec.timeout_seconds,
        concurrency: spec.concurrency,
        logging: &spec.logging,
        capture: &spec.capture,
    };
    // Plain structs, strings and ordered maps: serialising them can not fail.
    let json = serde_json::to_vec(&what).unwrap_or_default();
    hex(&Sha256::digest(json))
}

/// Hexadecimal digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{DesiredState, NameRef, Source, StandardOutput},
        operator::custom_script::fixtures::{files, script},
    };

    #[test]
    fn what_does_not_change_what_runs_is_no_new_deployment() {
        let before = script();
        let mut after = script();
        after.spec.replicas.min = 3;
        after.spec.replicas.max = Some(7);
        after.spec.replicas.target_cpu_utilization = 50;
        after.spec.desired_state = DesiredState::Undeployed;
        after.metadata.labels = Some([("team".to_owned(), "billing".to_owned())].into());
        after.metadata.generation = Some(9);
        assert_eq!(
            fingerprint(&before, Some(&files())),
            fingerprint(&after, Some(&files()))
        );
    }

    fn from_archive(url: &str, digit: &str) -> Source {
        Source {
            archive: Some(Archive {
                url: url.into(),
                sha256: digit.repeat(64),
            }),
            ..Source::default()
        }
    }

    #[test]
    fn what_changes_what_runs_is_a_new_deployment() {
        type Change = fn(&mut CustomScript);
        let changes: [Change; 19] = [
            |o| o.metadata.uid = Some("another".into()),
            |o| o.metadata.annotations = Some([(labels::REDEPLOY.to_owned(), "1".to_owned())].into()),
            |o| o.spec.runtime_image = Some("python:3.13".into()),
            |o| o.spec.source = Some(from_archive("http://a/1.zip", "0")),
            |o| o.spec.source = Some(from_archive("http://a/2.zip", "0")),
            |o| o.spec.source = Some(from_archive("http://a/2.zip", "1")),
            |o| {
                o.spec.source = Some(Source {
                    image: Some("shop/balance:1".into()),
                    ..Source::default()
                });
            },
            |o| {
                o.spec.env = vec![EnvVar {
                    name: "A".into(),
                    value: Some("1".into()),
                    ..EnvVar::default()
                }];
            },
            |o| o.spec.env_from = vec![EnvFromSource::default()],
            |o| o.spec.resources = Some(ResourceRequirements::default()),
            |o| o.spec.runtime_class_name = String::new(),
            |o| o.spec.service_account_name = Some("billing".into()),
            |o| o.spec.image_pull_secrets = vec![LocalObjectReference { name: "pull".into() }],
            |o| {
                o.spec.endpoint = Some(Endpoint {
                    api_keys_secret_ref: Some(NameRef { name: "keys".into() }),
                });
            },
            |o| o.spec.timeout_seconds = 61,
            |o| o.spec.concurrency = 2,
            |o| o.spec.logging.standard = StandardOutput::Live,
            |o| o.spec.capture.output = false,
            |o| o.spec.capture.max_bytes = 1,
        ];
        let mut seen = vec![
            fingerprint(&script(), Some(&files())),
            fingerprint(&script(), None),
        ];
        let mut edited = files();
        edited
            .text
            .insert("main.py".into(), "def check(a): return 2".into());
        seen.push(fingerprint(&script(), Some(&edited)));
        for change in changes {
            let mut object = script();
            change(&mut object);
            seen.push(fingerprint(&object, Some(&files())));
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(
            seen.len(),
            count,
            "two different things have the same fingerprint"
        );
    }

    #[test]
    fn moving_text_between_files_is_a_change() {
        let of = |pairs: [(&str, &str); 2]| {
            Files {
                text: pairs.map(|(n, t)| (n.to_owned(), t.to_owned())).into(),
                ..Files::default()
            }
            .digest()
        };
        assert_ne!(
            of([("a.py", "xy"), ("b.py", "")]),
            of([("a.py", "x"), ("b.py", "y")])
        );
    }
}
