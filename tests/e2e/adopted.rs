//! Deployments that exist and are only observed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Script, apply, eventually, kubectl};

/// Prints plain lines; `kubectl set env` changes its word.
const PLAIN: &str = r#"
import os, sys, time
n = 0
while True:
    n += 1
    print(f"{os.environ['WORD']} {n}", flush=True)
    if n % 10 == 0:
        print("to standard error", file=sys.stderr, flush=True)
    time.sleep(0.2)
"#;

/// Prints the documented records: every third run fails, and one never ends.
const RECORDS: &str = r#"
import json, time, uuid
from datetime import datetime, timezone

def now():
    return datetime.now(timezone.utc).isoformat()

def record(kind, **members):
    print(json.dumps({"scriptscope": kind, **members}), flush=True)

for n in range(1, 10):
    run = f"run_{n}_{uuid.uuid4().hex}"
    record("run.started", time=now(), run_id=run, function="check", source="nightly", source_type="Tool", input={"n": n})
    record("run.output", run_id=run, stream="stdout", lines=[[now(), f"checking {n}"]])
    span = {"name": "gvisor_error_log", "start_time": now(), "attributes":
            {"run_id": run, "log.level": "ERROR", "log.message": f"two\nlines {n}"}}
    print(f"{json.dumps(span)}\nERROR :: two\nlines {n}", flush=True)
    if n == 9:
        time.sleep(15)
        raise SystemExit(3)
    error = {"reason": "Exception", "type": "ValueError", "message": "no luck"} if n % 3 == 0 else None
    record("run.finished", time=now(), run_id=run, status="Failed" if error else "Success", duration_us=1500,
           output={"n": n}, error=error)
"#;

/// A Deployment with these containers, in the test's namespace; not in gVisor.
fn deployment(script: &Script, name: &str, containers: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": script.namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": containers}}}})
}

fn python(name: &str, program: &str) -> Value {
    json!({"name": name, "image": "localhost/python:3.11", "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program], "env": [{"name": "WORD", "value": "one"}]})
}

fn adopter(script: &Script, name: &str, workload: &Value) -> Value {
    json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "CustomScript",
        "metadata": {"name": name, "namespace": script.namespace}, "spec": {"workload": workload}})
}

fn web() -> Value {
    json!({"deploymentRef": {"name": "web"}})
}

/// The condition Ready of the script: its reason, and the message.
async fn ready(script: &Script) -> (String, String) {
    let object = script.object().await;
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions.iter().find(|c| c["type"] == "Ready");
    let text = |key: &str| found.map_or("", |c| c[key].as_str().unwrap()).to_owned();
    (text("reason"), text("message"))
}

async fn wait_for_reason(script: &Script, reason: &str) -> String {
    eventually(
        &format!("Ready says {reason}"),
        Duration::from_secs(60),
        || async {
            let (found, message) = ready(script).await;
            if found == reason {
                Ok(message)
            } else {
                Err(format!("{found}: {message}"))
            }
        },
    )
    .await
}

async fn wait_for_version(script: &Script, version: i64, phase: &str) -> Value {
    eventually(
        &format!("version {version} is {phase}"),
        Duration::from_secs(120),
        || async {
            let status = script.object().await["status"].clone();
            if status["version"] == version && status["phase"] == phase {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        },
    )
    .await
}

async fn wait_for_line(script: &Script, text: &str, limit: u64) {
    eventually(
        &format!("a line with {text:?}"),
        Duration::from_secs(limit),
        || async {
            let lines = script.items("logs", "last=1h").await;
            let has = |line: &Value| {
                line["message"]
                    .as_str()
                    .is_some_and(|message| message.contains(text))
            };
            if lines.iter().any(has) {
                Ok(())
            } else {
                Err(format!("{} lines", lines.len()))
            }
        },
    )
    .await;
}

/// What the API server says of the Deployment that nobody but its owner changes.
async fn generation(script: &Script) -> String {
    kubectl(&[
        "-n",
        &script.namespace,
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.metadata.generation}",
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_follow_the_deployment_and_its_plain_lines_are_the_scripts() {
    let script = Script::new("adopt", "watched").await;
    let namespace = script.namespace.clone();
    apply(&adopter(&script, "watched", &web())).await.unwrap();
    let message = wait_for_reason(&script, "WorkloadMissing").await;
    assert!(message.contains("spec.workload.deploymentRef.name"), "{message}");
    apply(&deployment(&script, "web", &json!([python("app", PLAIN)])))
        .await
        .unwrap();
    let status = wait_for_version(&script, 1, "Deployed").await;
    assert!(status["endpoint"].is_null(), "{status}");
    wait_for_line(&script, "one 1", 30).await;
    wait_for_line(&script, "to standard error", 30).await;
    let lines = script.items("logs", "last=1h&level=Stderr").await;
    assert!(lines.iter().all(|line| line["runId"].is_null()), "{lines:?}");

    // Neither scaling nor a label is a version.
    kubectl(&["-n", &namespace, "scale", "deployment/web", "--replicas=2"]).await;
    kubectl(&["-n", &namespace, "label", "deployment/web", "team=x"]).await;
    kubectl(&[
        "-n",
        &namespace,
        "rollout",
        "status",
        "deployment/web",
        "--timeout=60s",
    ])
    .await;
    kubectl(&["-n", &namespace, "set", "env", "deployment/web", "WORD=two"]).await;
    wait_for_version(&script, 2, "Deployed").await;
    wait_for_line(&script, "two 1", 30).await;

    // An image that does not come: the version before goes on.
    kubectl(&[
        "-n",
        &namespace,
        "set",
        "image",
        "deployment/web",
        "app=registry.invalid/none:1",
    ])
    .await;
    let status = wait_for_version(&script, 3, "DeploymentFailed").await;
    let (reason, message) = ready(&script).await;
    assert_eq!(reason, "PreviousVersionServes", "{message}");
    assert!(message.contains("could not be pulled"), "{message}");
    assert_eq!(status["deployments"][1]["state"], "Deployed", "{status}");

    // Back to what ran before is a version of its own.
    kubectl(&[
        "-n",
        &namespace,
        "rollout",
        "undo",
        "deployment/web",
        "--to-revision=1",
    ])
    .await;
    wait_for_version(&script, 4, "Deployed").await;
    let before = generation(&script).await;

    kubectl(&["-n", &namespace, "scale", "deployment/web", "--replicas=0"]).await;
    let status = wait_for_version(&script, 4, "ReadyToDeploy").await;
    assert_eq!(ready(&script).await.0, "WorkloadScaledToZero");
    assert!(status["metrics"]["totalLogs"].as_i64().unwrap() > 10, "{status}");
    wait_for_line(&script, "two 1", 10).await;
    kubectl(&["-n", &namespace, "scale", "deployment/web", "--replicas=1"]).await;
    wait_for_version(&script, 5, "Deployed").await;
    let after: i64 = generation(&script).await.parse().unwrap();
    assert_eq!(
        after,
        before.parse::<i64>().unwrap() + 2,
        "only the test has changed it"
    );

    kubectl(&["-n", &namespace, "delete", "deployment", "web"]).await;
    wait_for_version(&script, 5, "ReadyToDeploy").await;
    assert_eq!(ready(&script).await.0, "WorkloadMissing");
    wait_for_line(&script, "two 1", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_deployment_prints_are_runs() {
    let script = Script::new("records", "worker").await;
    apply(&deployment(&script, "web", &json!([python("app", RECORDS)])))
        .await
        .unwrap();
    apply(&adopter(&script, "worker", &web())).await.unwrap();
    script.wait_for_phase("Deployed").await;
    // Also when its pods were there before: the agent asks again within a minute.
    let runs = eventually("nine runs have ended", Duration::from_secs(120), || async {
        let runs = script.items("runs", "last=1h").await;
        let ended: Vec<Value> = runs
            .into_iter()
            .filter(|run| run["status"] != "In Progress")
            .collect();
        // The container begins anew after the ninth.
        let has = |n: u32| {
            let prefix = format!("run_{n}_");
            ended
                .iter()
                .any(|run| run["runId"].as_str().unwrap().starts_with(&prefix))
        };
        if (1..=9).all(has) {
            Ok(ended)
        } else {
            Err(format!("{} runs", ended.len()))
        }
    })
    .await;
    let of = |n: u32| {
        let prefix = format!("run_{n}_");
        let is_it = |run: &&Value| run["runId"].as_str().unwrap().starts_with(&prefix);
        runs.iter().rfind(is_it).unwrap().clone()
    };
    let good = of(1);
    assert_eq!(good["status"], "Success", "{good}");
    assert_eq!(
        (&good["deploymentVersion"], &good["source"]),
        (&json!(1), &json!("nightly")),
        "{good}"
    );
    assert_eq!(of(3)["status"], "Failed");
    // The container ended before the last one had.
    let last = of(9);
    assert_eq!(
        (&last["status"], &last["reason"]),
        (&json!("Failed"), &json!("ContainerExited")),
        "{last}"
    );
    let id = good["runId"].as_str().unwrap();
    assert_eq!(script.messages(id, "Stdout").await, ["checking 1"]);
    assert_eq!(script.messages(id, "Error").await, ["two\nlines 1"]);
    let plain = script.items("logs", "last=1h&level=Stdout").await;
    assert!(
        plain.iter().all(|line| !line["runId"].is_null()),
        "the echo is no line of its own: {plain:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_script_adopts_a_deployment_and_the_next_one_when_it_is_gone() {
    let first = Script::new("two", "first").await;
    let second = Script {
        namespace: first.namespace.clone(),
        name: "second".to_owned(),
    };
    apply(&deployment(&first, "web", &json!([python("app", PLAIN)])))
        .await
        .unwrap();
    apply(&adopter(&first, "first", &web())).await.unwrap();
    first.wait_for_phase("Deployed").await;
    wait_for_line(&first, "one 1", 90).await;
    // Their creation has whole seconds.
    apply(&adopter(&first, "second", &web())).await.unwrap();
    let message = wait_for_reason(&second, "WorkloadTaken").await;
    assert!(message.contains("CustomScript first"), "{message}");
    assert!(second.items("logs", "last=1h").await.is_empty());

    kubectl(&["-n", &first.namespace, "delete", "customscript", "first"]).await;
    second.wait_for_phase("Deployed").await;
    // Pods keep the script that adopted them.
    kubectl(&["-n", &first.namespace, "rollout", "restart", "deployment/web"]).await;
    wait_for_line(&second, "one 1", 90).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_adopted_is_refused_in_clear_words() {
    let script = Script::new("refuse", "managed").await;
    script.deploy("def f():\n    return 1\n", json!({})).await;
    let thief = Script {
        namespace: script.namespace.clone(),
        name: "thief".to_owned(),
    };
    let managed = json!({"deploymentRef": {"name": "managed"}});
    apply(&adopter(&script, "thief", &managed)).await.unwrap();
    let message = wait_for_reason(&thief, "WorkloadRefused").await;
    assert!(message.contains("CustomScript managed"), "{message}");

    let two = json!([python("app", PLAIN), python("sidecar", PLAIN)]);
    apply(&deployment(&script, "web", &two)).await.unwrap();
    let picker = Script {
        namespace: script.namespace.clone(),
        name: "picker".to_owned(),
    };
    apply(&adopter(&script, "picker", &web())).await.unwrap();
    let message = wait_for_reason(&picker, "WorkloadContainerMissing").await;
    assert!(
        message.contains("spec.workload.container") && message.contains("app, sidecar"),
        "{message}"
    );
    picker
        .patch(&json!({"spec": {"workload": {"container": "sidecar"}}}))
        .await;
    wait_for_version(&picker, 2, "Deployed").await;
    wait_for_line(&picker, "one 1", 90).await;

    // Left alone, and not collected.
    picker
        .patch(&json!({"spec": {"desiredState": "Undeployed"}}))
        .await;
    picker.wait_for_phase("ReadyToDeploy").await;
    let replicas = kubectl(&[
        "-n",
        &script.namespace,
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.spec.replicas}",
    ])
    .await;
    assert_eq!(replicas, "1");
    picker.patch(&json!({"spec": {"desiredState": "Deployed"}})).await;
    let status = picker.wait_for_phase("Deployed").await;
    assert_eq!(status["version"], 2, "nothing was deployed");
}
