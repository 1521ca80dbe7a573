//! `doctor` and `support-bundle` on a cluster that is sound, and on one that is not.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{SYSTEM, Script, eventually, kubectl};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scriptscope"));
    command
        .args(arguments)
        .args(["--system-namespace", SYSTEM])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The exit code and the findings.
async fn doctor(namespace: &str) -> (Option<i32>, Vec<Value>) {
    let output = command(&["doctor", "-o", "json", "-n", namespace])
        .output()
        .await
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (
        output.status.code(),
        report["findings"].as_array().unwrap().clone(),
    )
}

/// What is wrong by one check.
fn of<'a>(findings: &'a [Value], check: &str, grade: &str) -> Vec<&'a str> {
    findings
        .iter()
        .filter(|finding| finding["check"] == check && finding["grade"] == grade)
        .map(|finding| finding["saw"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_cluster_has_no_failure_and_a_missing_runtime_class_is_named() {
    let script = Script::new("doctor", "sound").await;
    script.deploy("def f():\n    return 1\n", json!({})).await;
    // Other tests end operators and agents meanwhile.
    let findings = eventually("nothing fails", Duration::from_secs(90), || async {
        let (code, findings) = doctor(&script.namespace).await;
        let failed: Vec<&Value> = findings
            .iter()
            .filter(|finding| finding["grade"] == "FAIL")
            .collect();
        if code == Some(0) && failed.is_empty() {
            Ok(findings)
        } else {
            Err(format!("{code:?} {failed:#?}"))
        }
    })
    .await;
    for check in [
        "api-server",
        "definitions",
        "operator",
        "version",
        "readiness",
        "store",
        "leader",
        "runtime-class",
        "agents",
        "agent-nodes",
    ] {
        assert!(!of(&findings, check, "OK").is_empty(), "{check}: {findings:#?}");
    }
    let patch = json!({"spec": {"runtimeClassName": "not-there"}}).to_string();
    let object = format!("customscript/{}", script.name);
    kubectl(&[
        "-n",
        &script.namespace,
        "patch",
        &object,
        "--type=merge",
        "-p",
        &patch,
    ])
    .await;
    let (code, findings) = doctor(&script.namespace).await;
    assert_eq!(code, Some(1));
    let said = of(&findings, "runtime-class", "FAIL");
    assert!(
        said.len() == 1
            && said[0].contains("not-there")
            && said[0].contains(&format!("{}/{}", script.namespace, script.name)),
        "{findings:#?}"
    );
}

/// Agents that are kept away from every node, until this is dropped.
struct NoAgents;

impl Drop for NoAgents {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl")
            .args([
                "-n",
                SYSTEM,
                "patch",
                "daemonset/scriptscope-agent",
                "--type=json",
                "-p",
            ])
            .arg(r#"[{"op": "remove", "path": "/spec/template/spec/nodeSelector/nowhere"}]"#)
            .stdout(Stdio::null())
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "no other test's lines are stored meanwhile: run it alone, with --ignored"]
async fn a_node_without_an_agent_is_named_with_the_pods_on_it() {
    let script = Script::new("doctor", "blind").await;
    script.deploy("def f():\n    return 1\n", json!({})).await;
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "here"}}}}}).to_string();
    kubectl(&[
        "-n",
        SYSTEM,
        "patch",
        "daemonset/scriptscope-agent",
        "--type=merge",
        "-p",
        &patch,
    ])
    .await;
    let away = NoAgents;
    eventually("the agent is missed", Duration::from_secs(60), || async {
        let (code, findings) = doctor(&script.namespace).await;
        let nodes = of(&findings, "agent-nodes", "FAIL");
        if code == Some(1) && nodes.iter().any(|saw| saw.contains(&script.namespace)) {
            Ok(())
        } else {
            Err(format!("{findings:#?}"))
        }
    })
    .await;
    drop(away);
    let arguments = [
        "-n",
        SYSTEM,
        "rollout",
        "status",
        "daemonset/scriptscope-agent",
        "--timeout=120s",
    ];
    kubectl(&arguments).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_support_bundle_has_what_helps_and_no_secret() {
    let script = Script::new("doctor", "secretive").await;
    let env = json!([{"name": "TOKEN", "value": "hush-hush-1"}]);
    script
        .deploy(
            "KEY = 'hush-hush-2'\ndef f():\n    return 1\n",
            json!({"env": env}),
        )
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.tar.gz");
    let output = command(&["support-bundle", "-o", file.to_str().unwrap()])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut names = Vec::new();
    let bytes = std::fs::File::open(&file).unwrap();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(bytes))
        .entries()
        .unwrap()
    {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        assert!(!text.contains("hush-hush"), "{name}");
        names.push(name);
    }
    for wanted in [
        "versions.json",
        "doctor.json",
        "customscripts.json",
        "system/pods.json",
        "system/events.json",
        "/metrics/",
        "/logs/",
    ] {
        assert!(
            names.iter().any(|name| name.contains(wanted)),
            "{wanted}: {names:?}"
        );
    }
}
