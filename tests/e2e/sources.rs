//! Where a script's files and packages come from: archives, images, requirements.txt.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Script, apply, eventually, kubectl};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A project as `tar czf project.tgz DIR` packs it.
fn tgz(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("project/{name}"), *content)
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// The smallest wheel of a package `greeting`.
fn wheel() -> Vec<u8> {
    let info = "greeting-1.0.dist-info";
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in [
        ("greeting.py".to_owned(), "WORD = 'hello'\n".to_owned()),
        (
            format!("{info}/METADATA"),
            "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n".to_owned(),
        ),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
        ),
        (
            format!("{info}/RECORD"),
            format!("greeting.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"),
        ),
    ] {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Serves the files by HTTP in the script's namespace; the address of the folder, as pods reach it.
async fn serve(script: &Script, files: &[(&str, &[u8])]) -> String {
    let data: serde_json::Map<String, Value> = files
        .iter()
        .map(|(name, content)| ((*name).to_owned(), BASE64_STANDARD.encode(content).into()))
        .collect();
    let labels = json!({"app": "files"});
    let manifest = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files", "namespace": script.namespace},
         "binaryData": data},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "files", "namespace": script.namespace},
         "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]}},
        {"apiVersion": "v1", "kind": "Pod",
         "metadata": {"name": "files", "namespace": script.namespace, "labels": labels},
         "spec": {"terminationGracePeriodSeconds": 0,
                  "containers": [{"name": "files", "image": "localhost/python:3.11",
                      "command": ["python3", "-m", "http.server", "8000", "--directory", "/files"],
                      "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
                      "volumeMounts": [{"name": "files", "mountPath": "/files"}]}],
                  "volumes": [{"name": "files", "configMap": {"name": "files"}}]}}]});
    apply(&manifest).await.unwrap();
    kubectl(&[
        "-n",
        &script.namespace,
        "wait",
        "--for=condition=Ready",
        "pod/files",
        "--timeout=60s",
    ])
    .await;
    format!("http://files.{}.svc", script.namespace)
}

fn from_archive(url: &str, sha256: &str) -> Value {
    json!({"source": {"archive": {"url": url, "sha256": sha256}}})
}

/// Deploys what can not work; the reason that is shown within a minute, in the history and in the condition.
async fn failure(script: &Script, more: &Value) -> (String, String) {
    let start = Instant::now();
    apply(&script.manifest("", more)).await.unwrap();
    let status = script.wait_for_phase("DeploymentFailed").await;
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "took {:?}",
        start.elapsed()
    );
    assert_eq!(status["deployments"][0]["state"], "Failed");
    let conditions = status["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
    let reason = status["deployments"][0]["reason"].as_str().unwrap().to_owned();
    assert!(ready["message"].as_str().unwrap().contains(&reason), "{ready}");
    (ready["reason"].as_str().unwrap().to_owned(), reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_deployed_with_its_packages_and_its_next_one_is_a_version() {
    let script = Script::new("archive", "balance").await;
    let main =
        b"import greeting\nfrom lib.rates import RATE\n\ndef check():\n    return [greeting.WORD, RATE]\n";
    let project = |rate: &str| {
        let rates = format!("RATE = {rate}\n");
        tgz(&[
            ("main.py", main),
            ("lib/rates.py", rates.as_bytes()),
            ("requirements.txt", b"./greeting-1.0-py3-none-any.whl\n"),
            ("greeting-1.0-py3-none-any.whl", &wheel()),
        ])
    };
    let (first, second) = (project("1"), project("2"));
    let files = serve(&script, &[("1.tgz", &first), ("2.tgz", &second)]).await;
    script
        .deploy("", from_archive(&format!("{files}/1.tgz"), &sha256(&first)))
        .await;
    let answer = script.call("check", json!({})).await;
    assert_eq!(answer.body["result"], json!(["hello", 1]), "{answer:?}");

    script
        .deploy("", from_archive(&format!("{files}/2.tgz"), &sha256(&second)))
        .await;
    assert_eq!(script.object().await["status"]["version"], 2);
    // Calls may reach the first version for a moment.
    eventually("the second version answers", Duration::from_secs(30), || async {
        let answer = script.call("check", json!({})).await;
        match &answer.body["result"] {
            result if *result == json!(["hello", 2]) => Ok(()),
            result => Err(result.to_string()),
        }
    })
    .await;

    // Another file than the one that was meant; the version before goes on.
    apply(&script.manifest("", &from_archive(&format!("{files}/1.tgz"), &sha256(&second))))
        .await
        .unwrap();
    let status = script.wait_for_phase("DeploymentFailed").await;
    let reason = status["deployments"][0]["reason"].as_str().unwrap();
    for part in [
        &*format!("{files}/1.tgz"),
        &*sha256(&first),
        &*sha256(&second),
        "spec.source.archive.sha256",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    let answer = script.call("check", json!({})).await;
    assert_eq!(answer.body["result"], json!(["hello", 2]), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_archive_is_deployed_with_its_packages() {
    let script = Script::new("nodepkg", "balance-node").await;
    let package = tgz(&[
        (
            "package.json",
            br#"{"name": "greeting", "version": "1.0.0", "main": "greeting.js"}"#,
        ),
        ("greeting.js", b"module.exports.word = 'hello';\n"),
    ]);
    let manifest = br#"{"dependencies": {"greeting": "file:greeting-1.0.0.tgz"}}"#;
    let project = tgz(&[
        (
            "main.js",
            b"const greeting = require('greeting');\nmodule.exports.check = () => greeting.word;\n",
        ),
        ("package.json", manifest),
        ("greeting-1.0.0.tgz", &package),
    ]);
    let missing = tgz(&[
        ("main.js", b"module.exports.check = () => 1;\n"),
        ("package.json", manifest),
    ]);
    let files = serve(&script, &[("1.tgz", &project), ("2.tgz", &missing)]).await;
    let node = |name: &str, sha256: &str| {
        let mut spec = from_archive(&format!("{files}/{name}"), sha256);
        spec["runtime"] = json!("node");
        spec
    };
    script.deploy("", node("1.tgz", &sha256(&project))).await;
    let answer = script.call("check", json!({})).await;
    assert_eq!(answer.body["result"], "hello", "{answer:?}");

    // npm's own words say what is missing.
    let (word, reason) = failure(&script, &node("2.tgz", &sha256(&missing))).await;
    assert_eq!(word, "PreviousVersionServes");
    assert!(reason.contains("greeting-1.0.0.tgz"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_without_the_entry_point_or_out_of_reach_says_so() {
    let script = Script::new("noentry", "lost").await;
    let project = tgz(&[("app.py", b"")]);
    let files = serve(&script, &[("app.tgz", &project)]).await;
    let (word, reason) = failure(
        &script,
        &from_archive(&format!("{files}/app.tgz"), &sha256(&project)),
    )
    .await;
    assert_eq!(word, "SourceFailed");
    assert!(reason.contains("has no file main.py"), "{reason}");
    let (word, reason) = failure(
        &script,
        &from_archive(&format!("{files}/nothing.tgz"), &sha256(&project)),
    )
    .await;
    assert_eq!(word, "SourceFailed");
    assert!(reason.contains("404"), "{reason}");
    let metadata = from_archive("http://169.254.169.254/latest/meta-data", &sha256(&project));
    let (_, reason) = failure(&script, &metadata).await;
    assert!(
        reason.contains("169.254.169.254") && reason.contains("metadata"),
        "{reason}"
    );
    assert_eq!(
        script.object().await["status"]["version"],
        3,
        "each attempt keeps its number"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_can_not_be_installed_show_pips_last_lines() {
    let script = Script::new("packages", "picky").await;
    let source = |requirements: &str| {
        json!({"source": {"inline": {"main.py": "def f():\n    return 1\n", "requirements.txt": requirements}},
               "env": [{"name": "PIP_NO_INDEX", "value": "1"}]})
    };
    let (word, reason) = failure(&script, &source("no-such-package-anywhere==1.0\n")).await;
    assert_eq!(word, "DependenciesFailed");
    assert!(
        reason.contains("pip ended with") && reason.contains("no-such-package-anywhere==1.0"),
        "{reason}"
    );
    script.deploy("", source("# none\n")).await;
    assert_eq!(script.call("f", json!({})).await.body["result"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_holds_the_script_is_deployed_and_one_that_does_not_says_so() {
    let script = Script::new("image", "packed").await;
    let (word, reason) = failure(&script, &json!({"source": {"image": "localhost/python:3.11"}})).await;
    assert_eq!(word, "LoadFailed");
    assert!(reason.contains("no folder /app"), "{reason}");
    script
        .deploy("", json!({"source": {"image": "localhost/script:1"}}))
        .await;
    let answer = script.call("word", json!({})).await;
    assert_eq!(answer.body["result"], "from the image", "{answer:?}");
}
