//! The operator or the agent killed in the middle: nothing lost, nothing twice.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::harness::{SYSTEM, Script, apply, eventually, kubectl, rest};

const COUNTER: &str = r#"
import korelogger

def count(start, lines):
    for i in range(start, start + lines):
        print(f"print {i}")
        korelogger.info(f"log {i}")
    return start
"#;

/// Ends the pods of a component at once, as a crash does.
async fn kill(component: &str) {
    let label = format!("app.kubernetes.io/component={component}");
    kubectl(&[
        "-n",
        SYSTEM,
        "delete",
        "pods",
        "-l",
        &label,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ])
    .await;
}

// One test for both parts: they would get into each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn killing_operator_and_agent_in_the_middle_loses_and_doubles_nothing() {
    let script = Script::new("kill", "counter").await;
    script.deploy(COUNTER, json!({})).await;
    let before = script.object().await["status"]["deployments"].clone();

    const RUNS: usize = 60;
    const LINES: usize = 50;
    let mut ids = Vec::new();
    for run in 0..RUNS {
        match run {
            10 | 35 => kill("operator").await,
            20 => kill("agent").await,
            45 => {
                kill("agent").await;
                kill("operator").await;
            }
            _ => {}
        }
        // The script's endpoint does not depend on the operator.
        let answer = script
            .call("count", json!({"start": run * LINES, "lines": LINES}))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        ids.push(answer.run_id().to_owned());
        tokio::time::sleep(Duration::from_millis(150)).await;
    }

    eventually("everything is stored", Duration::from_secs(90), || async {
        let figures = rest(&script.path()).await?;
        let lifetime = &figures["figures"];
        let wanted = 2 * RUNS * LINES;
        if lifetime["succeededRuns"] == RUNS && lifetime["totalLogs"].as_u64() >= Some(wanted as u64) {
            Ok(())
        } else {
            Err(figures.to_string())
        }
    })
    .await;

    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in script.items("logs", "last=1d").await {
        let message = line["message"].as_str().unwrap();
        let number: usize = message.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(line["runId"], ids[number / LINES].as_str(), "{line}");
        *seen.entry(message.to_owned()).or_default() += 1;
    }
    let expected: BTreeMap<String, usize> = (0..RUNS * LINES)
        .flat_map(|i| [(format!("print {i}"), 1), (format!("log {i}"), 1)])
        .collect();
    let lost: Vec<_> = expected
        .keys()
        .filter(|k| !seen.contains_key(*k))
        .take(5)
        .collect();
    let doubled: Vec<_> = seen.iter().filter(|(_, n)| **n > 1).take(5).collect();
    assert!(
        lost.is_empty() && doubled.is_empty() && seen == expected,
        "lost {lost:?}, doubled {doubled:?}"
    );

    let mut stored: Vec<_> = script
        .items("runs", "")
        .await
        .iter()
        .map(|r| r["runId"].as_str().unwrap().to_owned())
        .collect();
    stored.reverse();
    assert_eq!(stored, ids, "each run once, in order");
    let status = script.wait_for_phase("Deployed").await;
    assert_eq!(status["version"], 1);
    assert_eq!(status["deployments"], before, "a restart is no deployment");
    let status = script
        .wait_for_metrics("figures go on", |m| m["totalRuns"] == RUNS)
        .await;
    assert_eq!(status["metrics"]["totalLogs"], 2 * RUNS * LINES);
}

/// No agent runs on any node while this exists.
struct NoAgents;

/// A node label that no node has.
const NOWHERE: &str = "e2e.scriptscope.dev/nowhere";

fn agents_go_to(nowhere: &Value) -> [String; 6] {
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {NOWHERE: nowhere}}}}});
    [
        "-n",
        SYSTEM,
        "patch",
        "daemonset/scriptscope-agent",
        "--type=merge",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([format!("--patch={patch}")])
    .collect::<Vec<_>>()
    .try_into()
    .unwrap()
}

impl NoAgents {
    async fn begin() -> Self {
        let args = agents_go_to(&json!("true"));
        kubectl(&args.each_ref().map(String::as_str)).await;
        let selector = "app.kubernetes.io/component=agent";
        eventually("the agents are gone", Duration::from_secs(60), || async {
            match pods(SYSTEM, selector).await {
                left if left.is_empty() => Ok(()),
                left => Err(left.join(" ")),
            }
        })
        .await;
        Self
    }
}

impl Drop for NoAgents {
    fn drop(&mut self) {
        // Also when the test failed: others need the agents.
        let status = std::process::Command::new("kubectl")
            .args(agents_go_to(&Value::Null))
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Names of pods.
async fn pods(namespace: &str, selector: &str) -> Vec<String> {
    let names = kubectl(&["-n", namespace, "get", "pods", "-l", selector, "-o", "name"]).await;
    names.lines().map(str::to_owned).collect()
}

async fn pods_of(script: &Script) -> Vec<String> {
    pods(
        &script.namespace,
        &format!("scriptscope.dev/script={}", script.name),
    )
    .await
}

async fn gone(script: &Script, limit: Duration) {
    eventually("the script's pods are gone", limit, || async {
        match pods_of(script).await {
            left if left.is_empty() => Ok(()),
            left => Err(left.join(" ")),
        }
    })
    .await;
}

async fn gaps(script: &Script) -> Vec<Value> {
    let page = rest(&format!("{}/gaps", script.path())).await.unwrap();
    page["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_while_the_agent_is_away_waits_to_be_read() {
    let script = Script::new("away", "waiter").await;
    script.deploy(COUNTER, json!({})).await;
    let away = NoAgents::begin().await;
    let answer = script.call("count", json!({"start": 0, "lines": 200})).await;
    script
        .patch(&json!({"spec": {"desiredState": "Undeployed"}}))
        .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        pods_of(&script).await.len(),
        1,
        "it waits until its records are stored"
    );
    drop(away);
    // Far less than the minute and a half that it would wait for nobody.
    gone(&script, Duration::from_secs(40)).await;
    let run = script.ended_run(answer.run_id()).await;
    assert_eq!(run["status"], "Success");
    let stored = |level: &'static str| script.messages(answer.run_id(), level);
    let expected = |what: &str| (0..200).map(|n| format!("{what} {n}")).collect::<Vec<_>>();
    assert_eq!(stored("Stdout").await, expected("print"));
    assert_eq!(stored("Info").await, expected("log"));
    script.wait_for_phase("ReadyToDeploy").await;
    assert!(gaps(&script).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_agent_ever_read_is_a_gap() {
    let script = Script::new("unread", "unread").await;
    script.deploy(COUNTER, json!({"timeoutSeconds": 1})).await;
    let read = script.call("count", json!({"start": 0, "lines": 3})).await;
    script.ended_run(read.run_id()).await;
    let away = NoAgents::begin().await;
    script.call("count", json!({"start": 3, "lines": 3})).await;
    let pod = pods_of(&script).await.remove(0);
    script
        .patch(&json!({"spec": {"desiredState": "Undeployed"}}))
        .await;
    // It waits for somebody to read it, and ends before kubelet would kill it.
    gone(&script, Duration::from_secs(60)).await;
    let found = eventually("the gap is recorded", Duration::from_secs(60), || async {
        match gaps(&script).await {
            gaps if gaps.is_empty() => Err("none".to_owned()),
            gaps => Ok(gaps),
        }
    })
    .await;
    drop(away);
    assert_eq!(found.len(), 1, "{found:?}");
    let gap = &found[0];
    assert_eq!(
        (&gap["reason"], &gap["version"]),
        (&json!("PodEndedUnread"), &json!(1))
    );
    assert_eq!(format!("pod/{}", gap["pod"].as_str().unwrap()), pod);
    assert!(gap["offset"].as_u64() > Some(0), "after what was read: {gap}");
    let page = rest(&format!("{}/logs?last=1d", script.path())).await.unwrap();
    assert_eq!(page["gaps"][0], *gap);
    eventually(
        "the script has an event about it",
        Duration::from_secs(20),
        || async {
            let events = kubectl(&[
                "-n",
                &script.namespace,
                "get",
                "events",
                "--field-selector=reason=LogGap",
                "-o",
                "name",
            ])
            .await;
            if events.is_empty() {
                Err("none".to_owned())
            } else {
                Ok(())
            }
        },
    )
    .await;
}

/// Forgets, in the operator's own database, what it has of a script's versions above one, as an older copy would.
const FORGET: &str = r#"
import sqlite3, sys
namespace, name, version = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = sqlite3.connect("/data/scriptscope.db")
script = db.execute("SELECT id FROM scripts WHERE namespace = ? AND name = ?", (namespace, name)).fetchone()[0]
streams = "SELECT id FROM streams WHERE pod_uid IN (SELECT uid FROM pods WHERE script_id = ? AND version > ?)"
db.execute(f"DELETE FROM runs WHERE stream_id IN ({streams})", (script, version))
db.execute(f"DELETE FROM streams WHERE id IN ({streams})", (script, version))
for table in ("pods", "deployments"):
    print(table, db.execute(f"DELETE FROM {table} WHERE script_id = ? AND version > ?", (script, version)).rowcount)
db.commit()
"#;

/// How many operators there are to be.
async fn operators(count: &str) {
    kubectl(&[
        "-n",
        SYSTEM,
        "scale",
        "deployment/scriptscope",
        &format!("--replicas={count}"),
    ])
    .await;
    eventually(
        "the operator is as it was told",
        Duration::from_secs(120),
        || async {
            let running = pods(SYSTEM, "app.kubernetes.io/component=operator").await;
            let path = "jsonpath={.status.readyReplicas}";
            let ready = kubectl(&["-n", SYSTEM, "get", "deployment/scriptscope", "-o", path]).await;
            if running.len().to_string() == count && (ready == count || (count == "0" && ready.is_empty())) {
                Ok(())
            } else {
                Err(format!("{running:?} {ready}"))
            }
        },
    )
    .await;
}

/// The operator is away while this exists, and comes back with it, also when the test failed.
struct NoOperator;

impl Drop for NoOperator {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kubectl")
            .args(["-n", SYSTEM, "scale", "deployment/scriptscope", "--replicas=1"])
            .stdout(std::process::Stdio::null())
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_go_on_after_the_database_was_put_back_to_an_older_copy() {
    let script = Script::new("restored", "restored").await;
    let version = |n: u32| format!("def f():\n    return {n}\n");
    for n in 1..=3 {
        script.deploy(&version(n), json!({})).await;
    }
    assert_eq!(script.object().await["status"]["version"], 3);

    let away = NoOperator;
    operators("0").await;
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "scriptscope"}}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restore", "namespace": SYSTEM},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "volumes": volumes,
                 "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
                 "containers": [{"name": "restore", "image": "localhost/python:3.11",
                     "command": ["python3", "-c", FORGET, script.namespace, script.name, "1"],
                     "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}});
    apply(&pod).await.unwrap();
    let said = eventually("the copy is older", Duration::from_secs(60), || async {
        let phase = kubectl(&[
            "-n",
            SYSTEM,
            "get",
            "pod",
            "restore",
            "-o",
            "jsonpath={.status.phase}",
        ])
        .await;
        match phase.as_str() {
            "Succeeded" => Ok(kubectl(&["-n", SYSTEM, "logs", "restore"]).await),
            "Failed" => panic!("{}", kubectl(&["-n", SYSTEM, "logs", "restore"]).await),
            _ => Err(phase),
        }
    })
    .await;
    kubectl(&["-n", SYSTEM, "delete", "pod", "restore"]).await;
    assert!(said.contains("deployments 2"), "{said}");
    drop(away);
    operators("1").await;

    // What runs is begun anew under the next number, since the store knows nothing of it any more.
    let status = eventually(
        "a version above all that there were",
        Duration::from_secs(120),
        || async {
            let status = script.object().await["status"].clone();
            let version = status["version"].as_i64().unwrap();
            assert!(version >= 3, "the number went backwards: {status}");
            if version == 4 && status["phase"] == "Deployed" {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        },
    )
    .await;
    let cause = status["deployments"][0]["change"]["cause"].as_str().unwrap();
    assert_eq!(cause, "begun anew: the store has forgotten versions 2 to 3");
    let answer = script.call("f", json!({})).await;
    assert_eq!(answer.body["result"], 3);
    assert_eq!(script.ended_run(answer.run_id()).await["deploymentVersion"], 4);
    script.deploy(&version(5), json!({})).await;
    assert_eq!(script.object().await["status"]["version"], 5);
}
