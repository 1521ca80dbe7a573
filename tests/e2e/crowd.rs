//! A hundred calls at once, on several pods with several workers each: whatever a run prints and returns is its own.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Answer, Script, eventually, kubectl};

const CALLS: usize = 100;
/// Lines of each kind that a call prints.
const LINES: usize = 5;

const PYTHON: &str = r#"
import asyncio, subprocess, sys, threading
import korelogger

async def talk(token, lines):
    for i in range(lines):
        print(f"{token} print {i}")
        korelogger.info(f"{token} log {i}")
        await asyncio.sleep(0.02)
    sys.stderr.write(f"{token} error\n")
    subprocess.run(["sh", "-c", f"echo {token} child"], check=True)
    thread = threading.Thread(target=lambda: print(f"{token} thread"))
    thread.start()
    thread.join()
    return token
"#;

const NODE: &str = r"
const { spawnSync } = require('child_process');
const { setTimeout: sleep } = require('timers/promises');
const korelogger = require('korelogger');

exports.talk = async (token, lines) => {
  for (let i = 0; i < lines; i++) {
    console.log(`${token} print ${i}`);
    korelogger.info(`${token} log ${i}`);
    await sleep(20);
  }
  console.error(`${token} error`);
  spawnSync('sh', ['-c', `echo ${token} child`], { stdio: 'inherit' });
  await new Promise((done) => setTimeout(() => { console.log(`${token} thread`); done(); }, 5));
  return token;
};
";

/// Calls until it is not told to come later; each try that is refused is no run.
async fn call(script: &Script, address: &str, token: &str) -> Answer {
    eventually(
        &format!("{token} is answered"),
        Duration::from_secs(120),
        || async {
            let request = crate::harness::http()
                .post(format!("{address}/functions/talk"))
                .json(&json!({"token": token, "lines": LINES}));
            let response = request
                .send()
                .await
                .map_err(|error| format!("{}: {error:?}", script.name))?;
            let status = response.status();
            let body: Value = response.json().await.map_err(|error| error.to_string())?;
            if status == StatusCode::TOO_MANY_REQUESTS {
                return Err(body.to_string());
            }
            Ok(Answer { status, body })
        },
    )
    .await
}

async fn crowd(script: &Script) {
    eventually("both pods serve", Duration::from_secs(90), || async {
        let path = "jsonpath={.status.readyReplicas}";
        let ready = kubectl(&[
            "-n",
            &script.namespace,
            "get",
            "deployment",
            &script.name,
            "-o",
            path,
        ])
        .await;
        if ready == "2" { Ok(()) } else { Err(ready) }
    })
    .await;
    let address = script.address().await;
    let tokens: Vec<String> = (0..CALLS)
        .map(|n| format!("token-{n:03}-{}", uuid::Uuid::now_v7().simple()))
        .collect();
    let answers = join_all(tokens.iter().map(|token| call(script, &address, token))).await;

    let mut ids = BTreeSet::new();
    for (token, answer) in tokens.iter().zip(&answers) {
        assert_eq!(
            (answer.status, &answer.body["result"]),
            (StatusCode::OK, &json!(token)),
            "{answer:?}"
        );
        assert!(
            ids.insert(answer.run_id().to_owned()),
            "an id was given twice: {answer:?}"
        );
        let shown = answer.body["stdout"].as_str().unwrap();
        assert!(
            shown.lines().all(|line| line.contains(token.as_str())),
            "{token}: {shown}"
        );
    }
    let status = script
        .wait_for_metrics("every run", |m| m["succeededRuns"] == CALLS)
        .await;
    assert_eq!(
        (&status["metrics"]["totalRuns"], &status["metrics"]["failedRuns"]),
        (&json!(CALLS), &json!(0))
    );
    for (token, answer) in tokens.iter().zip(&answers) {
        let run = script.ended_run(answer.run_id()).await;
        assert_eq!(
            (&run["output"], &run["input"]["token"]),
            (&json!(token), &json!(token)),
            "{run}"
        );
        let numbered = |what: &str| {
            (0..LINES)
                .map(|i| format!("{token} {what} {i}"))
                .collect::<Vec<_>>()
        };
        let mut printed = numbered("print");
        printed.extend([format!("{token} child"), format!("{token} thread")]);
        for (level, expected) in [
            ("Stdout", printed),
            ("Info", numbered("log")),
            ("Stderr", vec![format!("{token} error")]),
        ] {
            assert_eq!(script.messages(answer.run_id(), level).await, expected, "{level}");
        }
    }
    // And no line is anywhere else.
    let lines = script.items("logs", "last=1d").await;
    assert_eq!(lines.len(), CALLS * (2 * LINES + 3));
    assert!(
        lines
            .iter()
            .all(|line| line["runId"].as_str().is_some_and(|id| ids.contains(id)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_python_calls_at_once_are_never_mixed() {
    let script = Script::new("crowd", "crowd").await;
    script
        .deploy(PYTHON, json!({"replicas": {"min": 2}, "concurrency": 4}))
        .await;
    crowd(&script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_node_calls_at_once_are_never_mixed() {
    let script = Script::new("crowd-node", "crowd-node").await;
    let spec = json!({"runtime": "node", "source": {"inline": {"main.js": NODE}},
                      "replicas": {"min": 2}, "concurrency": 4});
    script.deploy("", spec).await;
    crowd(&script).await;
}
