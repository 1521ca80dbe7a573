//! Deploy, undeploy, redeploy; and what a deployment that can not work is answered.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Script, apply, eventually, kubectl};

const BALANCE: &str = r#"
import korelogger

def check(account):
    print("checking", account)
    korelogger.info(f"account {account} is looked up")
    if account == "closed":
        raise ValueError("account closed is not active")
    return {"account": account, "balance": 42}

def kernel():
    return open("/proc/version").read()
"#;

/// One line of `kubectl get customscripts`, by column.
async fn printed(script: &Script) -> Vec<(String, String)> {
    let table = kubectl(&["-n", &script.namespace, "get", "customscripts"]).await;
    let mut lines = table.lines();
    let (heading, row) = (lines.next().unwrap(), lines.next().unwrap());
    // Columns are aligned under their headings; a heading may hold one space ("LAST RUN").
    let starts: Vec<usize> = heading
        .char_indices()
        .filter(|(i, c)| *c != ' ' && (*i == 0 || heading[..*i].ends_with("  ")))
        .map(|(i, _)| i)
        .collect();
    let cell = |text: &str, n: usize| {
        let end = starts.get(n + 1).copied().unwrap_or(text.len()).min(text.len());
        text.get(starts[n]..end).unwrap_or("").trim().to_owned()
    };
    (0..starts.len())
        .map(|n| (cell(heading, n), cell(row, n)))
        .collect()
}

fn column<'a>(row: &'a [(String, String)], name: &str) -> &'a str {
    &row.iter()
        .find(|(heading, _)| heading == name)
        .unwrap_or_else(|| panic!("no column {name} in {row:?}"))
        .1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_deployed_called_undeployed_and_deployed_again() {
    let script = Script::new("life", "qbalance").await;
    script.deploy(BALANCE, json!({})).await;

    let first = script.call("check", json!({"account": "a1"})).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.body["result"], json!({"account": "a1", "balance": 42}));
    assert_eq!(first.body["status"], "Success");
    assert!(
        first.body["stdout"].as_str().unwrap().contains("checking a1"),
        "{first:?}"
    );
    let failed = script.call("check", json!({"account": "closed"})).await;
    assert_eq!(failed.status, 500, "{failed:?}");
    assert_eq!(failed.body["error"]["type"], "ValueError");
    let kernel = script.call("kernel", json!({})).await;
    assert!(
        kernel.body["result"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .contains("gvisor"),
        "{kernel:?}"
    );

    // 3 runs, 1 failed; 2 x (print + korelogger line).
    let status = script
        .wait_for_metrics("3 runs", |m| m["totalRuns"] == 3 && m["totalLogs"] == 4)
        .await;
    assert_eq!(status["metrics"]["failureRateBasisPoints"], 3333);
    assert_eq!(status["metrics"]["byVersion"][0]["version"], 1);
    let row = eventually("kubectl prints the figures", Duration::from_secs(10), || async {
        let row = printed(&script).await;
        if column(&row, "RUNS") == "3" {
            Ok(row)
        } else {
            Err(format!("{row:?}"))
        }
    })
    .await;
    assert_eq!(column(&row, "PHASE"), "Deployed");
    assert_eq!(column(&row, "VERSION"), "1");
    assert_eq!(column(&row, "FAILURE%"), "33.33%");
    assert_eq!(column(&row, "LOGS"), "4");
    assert!(
        column(&row, "P90").ends_with('s') && column(&row, "P99").ends_with('s'),
        "{row:?}"
    );
    assert!(
        !column(&row, "LAST RUN").is_empty() && !column(&row, "AGE").is_empty(),
        "{row:?}"
    );

    // Every run as it was, with what went in and what came out.
    let run = script.ended_run(failed.run_id()).await;
    assert_eq!(run["status"], "Failed");
    assert_eq!(run["reason"], "Exception");
    assert_eq!(run["deploymentVersion"], 1);
    assert_eq!(run["function"], "check");
    assert_eq!(run["sourceType"], "API");
    assert_eq!(run["input"], json!({"account": "closed"}));
    assert_eq!(run["error"]["message"], "account closed is not active");
    assert!(run["responseTimeMicros"].is_null());

    script
        .patch(&json!({"spec": {"desiredState": "Undeployed"}}))
        .await;
    let status = script.wait_for_phase("ReadyToDeploy").await;
    assert_eq!(status["version"], 1, "an undeploy takes no number");
    assert!(status["endpoint"].is_null());
    assert_eq!(
        kubectl(&["-n", &script.namespace, "get", "pods", "-o", "name"]).await,
        ""
    );
    assert_eq!(
        script.items("runs", "").await.len(),
        3,
        "the runs are still there"
    );
    assert_eq!(
        script.items("logs", "").await.len(),
        4,
        "the logs are still there"
    );

    script.patch(&json!({"spec": {"desiredState": "Deployed"}})).await;
    let status = script.wait_for_phase("Deployed").await;
    assert_eq!(status["version"], 2);
    script.call("check", json!({"account": "a2"})).await;
    let status = script
        .wait_for_metrics("the fourth run", |m| m["totalRuns"] == 4)
        .await;
    let versions: Vec<_> = status["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["version"])
        .collect();
    assert_eq!(versions, [2, 1]);
    assert_eq!(status["deployments"][1]["state"], "Undeployed");
    let runs = script.items("runs", "").await;
    assert_eq!(runs[0]["deploymentVersion"], 2, "the newest run comes first");

    // Events tell the story.
    let events = kubectl(&[
        "-n",
        &script.namespace,
        "get",
        "events",
        "-o",
        "jsonpath={.items[*].reason}",
    ])
    .await;
    for reason in ["Deployed", "Undeployed"] {
        assert!(
            events.split(' ').any(|r| r == reason),
            "{reason} is not among {events}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_runs_is_a_new_version_and_a_change_of_replicas_is_not() {
    let script = Script::new("versions", "counter").await;
    let config = |text: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code", "namespace": script.namespace},
               "data": {"main.py": format!("from helper import word\ndef say():\n    return word\n"),
                        "helper.py": format!("word = '{text}'\n")}})
    };
    apply(&config("one")).await.unwrap();
    let source = json!({"source": {"configMapRef": {"name": "code"}}});
    script.deploy("", source).await;
    assert_eq!(script.call("say", json!({})).await.body["result"], "one");

    script.patch(&json!({"spec": {"replicas": {"min": 2}}})).await;
    eventually("two pods serve", Duration::from_secs(60), || async {
        let ready = kubectl(&[
            "-n",
            &script.namespace,
            "get",
            "deployment",
            "counter",
            "-o",
            "jsonpath={.status.readyReplicas}",
        ])
        .await;
        if ready == "2" { Ok(()) } else { Err(ready) }
    })
    .await;
    assert_eq!(script.wait_for_phase("Deployed").await["version"], 1);

    apply(&config("two")).await.unwrap();
    eventually(
        "a changed ConfigMap is version 2",
        Duration::from_secs(60),
        || async {
            let status = script.object().await["status"].clone();
            if status["version"] == 2 && status["phase"] == "Deployed" {
                Ok(())
            } else {
                Err(status.to_string())
            }
        },
    )
    .await;
    // While the old pods leave, calls may still reach them; each run says which version it was.
    let run_id = eventually("the new version answers", Duration::from_secs(60), || async {
        let answer = script.call("say", json!({})).await;
        let version = match answer.body["result"].as_str() {
            Some("one") => 1,
            Some("two") => 2,
            _ => panic!("a call failed during the rollout: {answer:?}"),
        };
        assert_eq!(
            script.ended_run(answer.run_id()).await["deploymentVersion"],
            version
        );
        if version == 2 {
            Ok(answer.run_id().to_owned())
        } else {
            Err(answer.body.to_string())
        }
    })
    .await;
    assert_eq!(
        script.items("runs", "version=2").await[0]["runId"],
        run_id.as_str()
    );
}

/// Deploys what can not work and gives the reason shown, within 60 s.
async fn failure(script: &Script, manifest: &Value) -> String {
    let start = Instant::now();
    apply(manifest).await.unwrap();
    let status = script.wait_for_phase("DeploymentFailed").await;
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "took {:?}",
        start.elapsed()
    );
    assert_eq!(status["deployments"][0]["state"], "Failed");
    let ready = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "Ready")
        .unwrap();
    assert_eq!(ready["status"], "False");
    let reason = status["deployments"][0]["reason"].as_str().unwrap().to_owned();
    assert!(ready["message"].as_str().unwrap().contains(&reason), "{ready}");
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_syntax_error_is_shown_with_its_line_and_mending_it_deploys_the_next_version() {
    let script = Script::new("syntax", "typo").await;
    let reason = failure(
        &script,
        &script.manifest("def f():\n    return 1\n\ndef g(:\n    pass\n", &json!({})),
    )
    .await;
    assert!(
        reason.contains("SyntaxError") && reason.contains("main.py") && reason.contains("line 4"),
        "{reason}"
    );
    script.deploy("def f():\n    return 1\n", json!({})).await;
    assert_eq!(
        script.object().await["status"]["version"],
        2,
        "the failed attempt keeps its number"
    );
    assert_eq!(script.call("f", json!({})).await.body["result"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_runtime_class_is_named() {
    let script = Script::new("class", "classless").await;
    let manifest = script.manifest(
        "def f():\n    pass\n",
        &json!({"runtimeClassName": "firecracker"}),
    );
    let reason = failure(&script, &manifest).await;
    assert!(
        reason.contains("RuntimeClass") && reason.contains("firecracker"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unschedulable_pod_is_explained() {
    let script = Script::new("sched", "huge").await;
    let resources = json!({"resources": {"requests": {"cpu": "900"}}});
    let reason = failure(&script, &script.manifest("def f():\n    pass\n", &resources)).await;
    assert!(reason.to_lowercase().contains("cpu"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_config_map_is_named() {
    let script = Script::new("nomap", "mapless").await;
    let manifest = script.manifest("", &json!({"source": {"configMapRef": {"name": "nowhere"}}}));
    let reason = failure(&script, &manifest).await;
    assert!(
        reason.contains("ConfigMap") && reason.contains("nowhere"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_somebody_elses_is_left_alone() {
    let script = Script::new("foreign", "taken").await;
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "taken", "namespace": script.namespace},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 81}]}});
    apply(&service).await.unwrap();
    let reason = failure(&script, &script.manifest("def f():\n    pass\n", &json!({}))).await;
    assert!(reason.contains("Service") && reason.contains("taken"), "{reason}");
    let port = kubectl(&[
        "-n",
        &script.namespace,
        "get",
        "service",
        "taken",
        "-o",
        "jsonpath={.spec.ports[0].port}",
    ])
    .await;
    assert_eq!(port, "81");
}
