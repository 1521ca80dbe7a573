//! Versions that replace each other under load, and pods that go while runs are in flight.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Script, eventually, http, kubectl, rest, try_kubectl};

/// Calls a second.
const RATE: u64 = 50;

fn worded(word: &str) -> String {
    format!(
        "import time\n\ndef say(n):\n    time.sleep(0.01)\n    print('call', n)\n    return ['{word}', n]\n"
    )
}

/// Calls the function at a steady pace, whatever the answers, until told to stop; what each call was answered.
async fn steadily(address: String, stop: Arc<AtomicBool>) -> Vec<Result<Value, String>> {
    let mut calls = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let request = http()
            .post(format!("{address}/functions/say"))
            .json(&json!({"n": number}));
        calls.spawn(async move {
            let response = request
                .send()
                .await
                .map_err(|error| format!("{number}: {error:?}"))?;
            let status = response.status();
            let text = response
                .text()
                .await
                .map_err(|error| format!("{number}: {error:?}"))?;
            let body: Value =
                serde_json::from_str(&text).map_err(|_| format!("{number}: {status} {text}"))?;
            if status == 200 && body["result"][1] == number {
                Ok(body)
            } else {
                Err(format!("{number}: {status} {text}"))
            }
        });
        number += 1;
    }
    calls.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn redeploys_under_load_fail_no_call() {
    let script = Script::new("rolling", "busy").await;
    let more = || json!({"concurrency": 8});
    script.deploy(&worded("v1"), more()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(steadily(script.address().await, stop.clone()));
    for version in 2..=3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        script.deploy(&worded(&format!("v{version}")), more()).await;
        assert_eq!(script.object().await["status"]["version"], version);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    let answers = load.await.unwrap();
    let failed: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}: {:?}",
        failed.len(),
        answers.len(),
        &failed[..failed.len().min(5)]
    );
    assert!(answers.len() > 300, "{}", answers.len());

    // Every run is stored once, with the version of the pod that ran it.
    let expected: BTreeMap<String, String> = answers
        .iter()
        .flatten()
        .map(|body| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&body["runId"]), text(&body["result"][0]))
        })
        .collect();
    script
        .wait_for_metrics("every run has ended", |m| m["succeededRuns"] == answers.len())
        .await;
    let runs = script.items("runs", "last=1d").await;
    assert_eq!(runs.len(), expected.len());
    for run in runs {
        let version = format!("v{}", run["deploymentVersion"]);
        assert_eq!(expected[run["runId"].as_str().unwrap()], version, "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeploy_lets_runs_end_and_stores_every_line_of_theirs() {
    let script = Script::new("inflight", "long").await;
    let main = r#"
import korelogger, time

def work(n, seconds):
    for i in range(50):
        print(f"print {n} {i}")
        korelogger.info(f"log {n} {i}")
        time.sleep(seconds / 50)
    print(f"done {n}")
    return n
"#;
    script
        .deploy(main, json!({"concurrency": 4, "timeoutSeconds": 30}))
        .await;
    let address = script.address().await;
    let mut calls = JoinSet::new();
    for n in 0..4 {
        let address = address.clone();
        calls.spawn(async move {
            let request = http().post(format!("{address}/functions/work"));
            let response = request.json(&json!({"n": n, "seconds": 8})).send().await.unwrap();
            response.json::<Value>().await.unwrap()
        });
    }
    script
        .wait_for_metrics("4 runs go on", |m| m["inProgressRuns"] == 4)
        .await;
    script
        .patch(&json!({"spec": {"desiredState": "Undeployed"}}))
        .await;
    let answers = calls.join_all().await;
    assert!(
        answers.iter().all(|body| body["status"] == "Success"),
        "{answers:?}"
    );
    script.wait_for_phase("ReadyToDeploy").await;
    for body in answers {
        let (run_id, n) = (body["runId"].as_str().unwrap(), &body["result"]);
        assert_eq!(script.ended_run(run_id).await["status"], "Success");
        let mut expected: Vec<_> = (0..50).map(|i| format!("print {n} {i}")).collect();
        expected.push(format!("done {n}"));
        assert_eq!(script.messages(run_id, "Stdout").await, expected);
        let expected: Vec<_> = (0..50).map(|i| format!("log {n} {i}")).collect();
        assert_eq!(script.messages(run_id, "Info").await, expected);
    }
    let gaps = rest(&format!("{}/gaps", script.path())).await.unwrap();
    assert_eq!(gaps["items"], json!([]));
    script
        .wait_for_metrics("all four have ended well", |m| {
            m["succeededRuns"] == 4 && m["inProgressRuns"] == 0
        })
        .await;
}

/// Calls what will end with its pod, and gives the run's reason as it is stored, within a minute of its end.
async fn reason_of(script: &Script, function: &str, end: impl AsyncFnOnce()) -> String {
    let address = script.address().await;
    let request = http()
        .post(format!("{address}/functions/{function}"))
        .json(&json!({}));
    // Its answer never comes.
    let call = tokio::spawn(async move { request.send().await.is_ok() });
    let run = eventually("the run goes on", Duration::from_secs(20), || async {
        let page = rest(&format!("{}/runs?function={function}", script.path())).await?;
        page["items"][0]["runId"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| page.to_string())
    })
    .await;
    let began = Instant::now();
    end().await;
    let ended = eventually("the run has ended", Duration::from_secs(60), || async {
        let run = rest(&format!("{}/runs/{run}", script.path())).await?;
        if run["status"] == "Failed" {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    call.abort();
    ended["reason"].as_str().unwrap().to_owned()
}

async fn can_be_called_again(script: &Script) {
    script.wait_for_phase("Deployed").await;
    let what = "the script can be called again";
    eventually(what, Duration::from_secs(60), || async {
        let ready = script.object().await["status"]["conditions"].to_string();
        if ready.contains("serves with 1 pod") {
            Ok(())
        } else {
            Err(ready)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_end_with_their_pod_have_its_reason_within_a_minute() {
    let script = Script::new("reasons", "doomed").await;
    let main = r#"
import time

def eats():
    time.sleep(2)
    hoard = []
    while True:
        hoard.append(bytearray(b"x" * (8 << 20)))

def hangs():
    time.sleep(600)
"#;
    let limits = json!({"limits": {"memory": "256Mi"}});
    script
        .deploy(main, json!({"resources": limits, "timeoutSeconds": 120}))
        .await;
    let label = format!("scriptscope.dev/script={}", script.name);
    assert_eq!(reason_of(&script, "eats", async || {}).await, "OOMKilled");
    can_be_called_again(&script).await;
    let kill = async || {
        let namespace = script.namespace.as_str();
        kubectl(&[
            "-n",
            namespace,
            "delete",
            "pods",
            "-l",
            &label,
            "--force",
            "--grace-period=0",
            "--wait=false",
        ])
        .await;
    };
    assert_eq!(reason_of(&script, "hangs", kill).await, "PodDeleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_pod_is_evicted_says_so() {
    let script = Script::new("evicted", "evicted").await;
    let main = "import time\n\ndef hangs():\n    time.sleep(600)\n";
    script.deploy(main, json!({"timeoutSeconds": 120})).await;
    let label = format!("scriptscope.dev/script={}", script.name);
    // What `kubectl drain --grace-period=3` asks for.
    let evict = async || {
        let pod = kubectl(&[
            "-n",
            &script.namespace,
            "get",
            "pods",
            "-l",
            &label,
            "-o",
            "jsonpath={.items[0].metadata.name}",
        ])
        .await;
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": script.namespace},
            "deleteOptions": {"gracePeriodSeconds": 3}
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", script.namespace);
        try_kubectl(
            &["create", "--raw", &path, "-f", "-"],
            Some(&eviction.to_string()),
        )
        .await
        .unwrap();
    };
    assert_eq!(reason_of(&script, "hangs", evict).await, "Evicted");
}

fn numbers(status: &Value) -> Vec<u64> {
    let deployments = status["deployments"].as_array().unwrap();
    deployments
        .iter()
        .map(|d| d["version"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_edits_and_a_re_created_object_never_use_a_number_twice() {
    let script = Script::new("numbers", "numbered").await;
    let main = "import os\n\ndef edit():\n    return os.environ.get('EDIT', '')\n";
    script.deploy(main, json!({})).await;
    // Nobody waits for anybody; the last one counts, whichever it is.
    let edits = (0..8).map(|n| {
        let patch = json!({"spec": {"env": [{"name": "EDIT", "value": n.to_string()}]}});
        let script = &script;
        async move { script.patch(&patch).await }
    });
    futures::future::join_all(edits).await;
    let status = script.wait_for_phase("Deployed").await;
    let used = numbers(&status);
    assert!(used.len() >= 2, "{status}");
    let expected: Vec<u64> = (1..=used[0]).rev().collect();
    assert_eq!(used, expected, "each number once, none left out");
    let ids: std::collections::BTreeSet<_> = status["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["deploymentId"].to_string())
        .collect();
    assert_eq!(ids.len(), used.len());
    let wanted = script.object().await["spec"]["env"][0]["value"].clone();
    eventually("the last edit serves", Duration::from_secs(30), || async {
        match script.call("edit", json!({})).await.body["result"].clone() {
            found if found == wanted => Ok(()),
            found => Err(found.to_string()),
        }
    })
    .await;

    let latest = used[0];
    kubectl(&[
        "-n",
        &script.namespace,
        "delete",
        "customscript",
        &script.name,
        "--wait=true",
    ])
    .await;
    script.deploy(main, json!({})).await;
    let status = script.object().await["status"].clone();
    assert_eq!(status["version"], latest + 1, "{status}");
    assert_eq!(script.call("edit", json!({})).await.body["result"], "");
}
