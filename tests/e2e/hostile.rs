//! A script that means harm, beside a good one: it harms nobody but itself.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{SYSTEM, Script, admin_token, apply, http, kubectl, operator};

/// The source that the tests of the runner have, too.
fn source(name: &str, file: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/scripts");
    std::fs::read_to_string(fixtures.join(name).join(file)).unwrap()
}

/// What a person would see in a terminal.
async fn logs(script: &Script) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_scriptscope"))
        .args([
            "logs",
            &script.name,
            "-n",
            &script.namespace,
            "--system-namespace",
            SYSTEM,
        ])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn restarts(script: &Script) -> String {
    let path = "jsonpath={.items[*].metadata.name} {.items[*].status.containerStatuses[*].restartCount}";
    kubectl(&[
        "-n",
        &script.namespace,
        "get",
        "pods",
        "-l",
        &format!("scriptscope.dev/script={}", script.name),
        "-o",
        path,
    ])
    .await
}

async fn attack(hostile: &Script, good: &Script) {
    let before = restarts(hostile).await;
    let victim = good.call("ok", json!({"word": "untouched"})).await;
    let victim_run = good.ended_run(victim.run_id()).await;
    let own = hostile.call("ok", json!({"word": "before"})).await;
    let own_run = hostile.ended_run(own.run_id()).await;

    // Records of the other script's run, and of another run of its own.
    for id in [victim.run_id(), own.run_id()] {
        let forger = hostile.call("forge", json!({"victim": id})).await;
        assert_eq!(
            forger.body["result"],
            json!([]),
            "it reaches into the runner: {forger:?}"
        );
        hostile.ended_run(forger.run_id()).await;
        let kept = hostile.messages(forger.run_id(), "Stdout").await;
        assert!(kept.iter().any(|line| line.contains("forged line")), "{kept:?}");
    }
    for (function, arguments, reason) in [
        ("bomb", json!({"file": "/tmp/pids"}), Some("Timeout")),
        ("hides", json!({"file": "/tmp/hidden"}), Some("WorkerExited")),
        ("garbage", json!({}), None),
    ] {
        let answer = hostile.call(function, arguments).await;
        let run = hostile.ended_run(answer.run_id()).await;
        if let Some(reason) = reason {
            assert_eq!(run["reason"], reason, "{function}: {run}");
        }
        let next = hostile.call("ok", json!({"word": function})).await;
        assert_eq!(
            next.body["result"], function,
            "the run after {function}: {next:?}"
        );
    }

    let markup = hostile.call("markup", json!({})).await;
    let run = hostile.ended_run(markup.run_id()).await;
    assert_eq!(run["output"], "<b>\u{1b}[31mred</b>", "{run}");
    let printed = hostile.messages(markup.run_id(), "Stdout").await;
    assert_eq!(
        printed,
        ["\u{1b}[2J\u{1b}]0;owned\u{7}<script>alert(1)</script>\u{202e}"]
    );
    let shown = logs(hostile).await;
    assert!(shown.contains("<script>alert(1)</script>"), "{shown}");
    let obeyed = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
    assert!(
        !shown.chars().any(obeyed),
        "a terminal would obey this: {shown:?}"
    );
    // A browser that is led to the answer itself shows text as well.
    let response = http()
        .get(format!("{}{}/logs", operator().await, hostile.path()))
        .bearer_auth(admin_token().await)
        .send()
        .await
        .unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert!(header("content-type").starts_with("application/json"));
    assert_eq!(header("x-content-type-options"), "nosniff");

    // The good script has its runs and lines, and no others.
    let again = good.call("ok", json!({"word": "still"})).await;
    assert_eq!(again.body["result"], "still");
    good.ended_run(again.run_id()).await;
    assert_eq!(
        good.ended_run(victim.run_id()).await,
        victim_run,
        "the other script's run is as it was"
    );
    assert_eq!(good.messages(victim.run_id(), "Stdout").await, ["ok untouched"]);
    let runs = good.items("runs", "last=1d").await;
    let ids: Vec<&str> = runs.iter().filter_map(|run| run["runId"].as_str()).collect();
    assert_eq!(ids, [again.run_id(), victim.run_id()]);
    let lines = good.items("logs", "last=1d").await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    // Nor has a run of its own changed.
    assert_eq!(hostile.ended_run(own.run_id()).await, own_run);
    assert_eq!(hostile.messages(own.run_id(), "Stdout").await, ["ok before"]);
    assert_eq!(restarts(hostile).await, before, "the runner survives");
    let figures = hostile.object().await["status"]["metrics"].clone();
    assert_ne!(figures, Value::Null);
}

/// Two scripts of one namespace.
async fn pair(test: &str, spec: &Value) -> (Script, Script) {
    let hostile = Script::new(test, "hostile").await;
    let good = Script {
        namespace: hostile.namespace.clone(),
        name: "good".into(),
    };
    for script in [&hostile, &good] {
        let mut spec = spec.clone();
        // What the bomb may take is bounded by the pod's memory and by the depth it is called with.
        spec["timeoutSeconds"] = json!(5);
        spec["resources"] = json!({"limits": {"memory": "1Gi"}});
        apply(&script.manifest("", &spec)).await.unwrap();
    }
    for script in [&hostile, &good] {
        script.wait_for_phase("Deployed").await;
    }
    (hostile, good)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_python_script_harms_only_itself() {
    let files = json!({"main.py": source("hostile", "main.py")});
    let (hostile, good) = pair("hostile", &json!({"source": {"inline": files}})).await;
    tokio::time::timeout(Duration::from_secs(240), attack(&hostile, &good))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_node_script_harms_only_itself() {
    let files = json!({"main.js": source("node_hostile", "main.js")});
    let (hostile, good) = pair(
        "hostile-node",
        &json!({"runtime": "node", "source": {"inline": files}}),
    )
    .await;
    tokio::time::timeout(Duration::from_secs(240), attack(&hostile, &good))
        .await
        .unwrap();
}
