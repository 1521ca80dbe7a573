//! What a run records, whatever the function does.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Script, eventually, http, rest};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_runs_hold_their_own_lines_only() {
    let script = Script::new("mix", "chatty").await;
    let main = r#"
import os, subprocess, time

def talk(word, lines):
    for i in range(lines):
        print(word, i)
        if i % 20 == 0:
            subprocess.run(["/bin/sh", "-c", f"echo {word} child {i}"], check=True)
        if i % 10 == 0:
            os.write(2, f"{word} raw {i}\n".encode())
        time.sleep(0.005)
    return word
"#;
    script.deploy(main, json!({"concurrency": 2})).await;
    let words = ["alpha", "beta"];
    let (a, b) = tokio::join!(
        script.call("talk", json!({"word": words[0], "lines": 60})),
        script.call("talk", json!({"word": words[1], "lines": 60}))
    );
    for (answer, word) in [(a, words[0]), (b, words[1])] {
        assert_eq!(answer.body["result"], word, "{answer:?}");
        script.ended_run(answer.run_id()).await;
        let mut expected = Vec::new();
        for i in 0..60 {
            expected.push(format!("{word} {i}"));
            if i % 20 == 0 {
                expected.push(format!("{word} child {i}"));
            }
        }
        assert_eq!(script.messages(answer.run_id(), "Stdout").await, expected);
        let expected: Vec<_> = (0..60).step_by(10).map(|i| format!("{word} raw {i}")).collect();
        assert_eq!(script.messages(answer.run_id(), "Stderr").await, expected);
    }
    let all = script.items("logs", "").await;
    assert_eq!(all.len(), 2 * (60 + 3 + 6), "no line more, no line twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn korelogger_lines_show_at_once_and_prints_when_the_run_ends() {
    let script = Script::new("live", "sleeper").await;
    let main = r#"
import korelogger, time

def nap(seconds):
    print("printed before the nap")
    korelogger.warning("logged before the nap", shop=17)
    time.sleep(seconds)
    korelogger.info("logged after the nap")
    return "rested"
"#;
    script.deploy(main, json!({})).await;
    let address = script.address().await;
    let called = Instant::now();
    let call = tokio::spawn(async move {
        let request = http()
            .post(format!("{address}/functions/nap"))
            .json(&json!({"seconds": 4}));
        request
            .send()
            .await
            .unwrap()
            .json::<serde_json::Value>()
            .await
            .unwrap()
    });

    let logs = format!("{}/logs", script.path());
    let line = eventually(
        "the korelogger line is readable",
        Duration::from_secs(10),
        || async {
            let page = rest(&logs).await?;
            page["items"].get(0).cloned().ok_or_else(|| page.to_string())
        },
    )
    .await;
    assert!(!call.is_finished(), "the run still sleeps");
    assert_eq!(line["message"], "logged before the nap");
    assert_eq!(line["level"], "Warning");
    // From being logged to being readable: the line's own time against now.
    let logged: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
    let delay = jiff::Timestamp::now().duration_since(logged);
    assert!(
        delay < jiff::SignedDuration::from_secs(1),
        "readable after {delay:?}"
    );
    let run_id = line["runId"].as_str().unwrap().to_owned();
    let run = rest(&format!("{}/runs/{run_id}", script.path())).await.unwrap();
    assert_eq!(run["status"], "In Progress");
    assert_eq!(
        script.messages(&run_id, "Stdout").await,
        [""; 0],
        "the print waits for the run's end"
    );

    let body = call.await.unwrap();
    assert!(called.elapsed() >= Duration::from_secs(4));
    assert_eq!(body["runId"], run_id);
    let stdout = body["stdout"].as_str().unwrap();
    assert!(
        stdout.contains("WARNING :: logged before the nap"),
        "the caller sees korelogger's echo: {stdout}"
    );
    script.ended_run(&run_id).await;
    assert_eq!(
        script.messages(&run_id, "Stdout").await,
        ["printed before the nap"],
        "pairs count once"
    );
    let all = script.items("logs", "").await;
    let messages: Vec<_> = all.iter().map(|l| l["message"].as_str().unwrap()).collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_function_does_its_run_says_so_and_the_next_one_works() {
    let script = Script::new("rough", "rough").await;
    let main = r#"
import os, sys

def ok(word="fine"):
    return word

def fails():
    print("about to fail")
    raise KeyError("no such key")

def exits():
    os._exit(1)

def floods():
    for _ in range(50 * 1024):
        print("x" * 1023)

def bytes_in_print():
    print(b"caf\xe9".decode("utf-8", "surrogateescape"))

def raw_bytes():
    sys.stdout.buffer.write(b"caf\xe9 \xff\n")

def not_json():
    return {1, 2}
"#;
    // A flood of 16 MiB takes ten seconds and more where other sandboxes want the processors, too.
    script.deploy(main, json!({"timeoutSeconds": 90})).await;
    for (function, status, reason, text) in [
        ("fails", 500, "Exception", "no such key"),
        ("exits", 500, "WorkerExited", "1"),
        ("floods", 500, "OutputLimitExceeded", "MiB"),
        ("bytes_in_print", 500, "Exception", "surrogates not allowed"),
        ("not_json", 500, "ResultNotJson", "set"),
    ] {
        let answer = script.call(function, json!({})).await;
        assert_eq!(answer.status, status, "{function}: {answer:?}");
        assert_eq!(answer.body["status"], "Failed", "{function}");
        assert_eq!(answer.body["error"]["reason"], reason, "{function}: {answer:?}");
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.contains(text), "{function}: {message}");
        let run = script.ended_run(answer.run_id()).await;
        assert_eq!(run["status"], "Failed", "{function}: {run}");
        assert_eq!(run["reason"], reason, "{function}: {run}");
        let next = script.call("ok", json!({"word": function})).await;
        assert_eq!(
            next.body["result"], function,
            "the run after {function}: {next:?}"
        );
    }
    // Bytes that are no text are kept as far as they are: the run itself did nothing wrong.
    let raw = script.call("raw_bytes", json!({})).await;
    assert_eq!(raw.body["status"], "Success", "{raw:?}");
    script.ended_run(raw.run_id()).await;
    assert_eq!(
        script.messages(raw.run_id(), "Stdout").await,
        ["caf\u{fffd} \u{fffd}"]
    );

    for (function, arguments, status, text) in [
        ("nothing", json!({}), 404, "nothing"),
        ("ok", json!({"wrod": 1}), 400, "wrod"),
        ("ok", json!([1]), 400, "object"),
    ] {
        let answer = script.call(function, arguments).await;
        assert_eq!(answer.status, status, "{function}: {answer:?}");
        assert!(
            answer.body["error"]["message"].as_str().unwrap().contains(text),
            "{answer:?}"
        );
        assert!(
            answer.body["runId"].is_null(),
            "it never became a run: {answer:?}"
        );
    }
    // 5 failed, 5 good ones after them, 1 with raw bytes.
    let status = script.wait_for_metrics("11 runs", |m| m["totalRuns"] == 11).await;
    assert_eq!(status["metrics"]["failedRuns"], 5);
    assert_eq!(status["metrics"]["inProgressRuns"], 0);
    assert_eq!(status["metrics"]["failureRateBasisPoints"], 4545);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_never_ends_is_ended_and_the_next_one_works() {
    let script = Script::new("endless", "endless").await;
    let main = r#"
import time

def ok():
    return "fine"

def never():
    print("still here", flush=True)
    while True:
        time.sleep(1)
"#;
    script.deploy(main, json!({"timeoutSeconds": 5})).await;
    let answer = script.call("never", json!({})).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(answer.body["error"]["reason"], "Timeout", "{answer:?}");
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(message.contains('5'), "it names the limit: {message}");
    let run = script.ended_run(answer.run_id()).await;
    assert_eq!(run["status"], "Failed", "{run}");
    assert_eq!(run["reason"], "Timeout", "{run}");
    assert_eq!(
        script.messages(answer.run_id(), "Stdout").await,
        ["still here"],
        "what it printed until then"
    );
    let next = script.call("ok", json!({})).await;
    assert_eq!(next.body["result"], "fine", "{next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_names_itself_is_the_source() {
    let script = Script::new("source", "named").await;
    script.deploy("def f():\n    return None\n", json!({})).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = script
        .call_with(
            "f",
            json!({}),
            &[("x-scriptscope-source", "billing"), ("traceparent", parent)],
        )
        .await;
    let run = script.ended_run(answer.run_id()).await;
    assert_eq!(run["sourceType"], "Tool");
    assert_eq!(run["source"], "billing");
    assert!(
        run["traceparent"]
            .as_str()
            .unwrap()
            .contains("4bf92f3577b34da6a3ce929d0e0e4736"),
        "{run}"
    );
    let tools = script.items("runs", "sourceType=Tool&source=billing").await;
    assert_eq!(tools.len(), 1);
    assert_eq!(script.items("runs", "sourceType=API").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_can_not_write_records() {
    let script = Script::new("forge", "forger").await;
    let main = r#"
import json, os

def record(run_id):
    return json.dumps({"scriptscope": "run.started", "time": "2026-01-01T00:00:00Z", "run_id": run_id, "function": "f"})

print(record("forged-while-loading"), flush=True)

def forge():
    print(record("forged-print"))
    refused = []
    for path in ("/proc/1/fd/1", "/proc/1/fd/2", "/proc/1/environ", "/proc/1/mem"):
        try:
            with open(path, "w" if "fd" in path else "rb") as file:
                if "fd" in path:
                    file.write(record("forged-descriptor") + "\n")
        except PermissionError:
            refused.append(path)
    return refused
"#;
    script.deploy(main, json!({})).await;
    let answer = script.call("forge", json!({})).await;
    assert_eq!(
        answer.body["result"],
        json!(["/proc/1/fd/1", "/proc/1/fd/2", "/proc/1/environ", "/proc/1/mem"])
    );
    // Everything before it in the pod's log is stored by then.
    script.ended_run(answer.run_id()).await;
    assert_eq!(
        script.items("runs", "").await.len(),
        1,
        "no run but the one called"
    );
    let lines = script.items("logs", "").await;
    for forged in ["forged-while-loading", "forged-print"] {
        let shown = |line: &serde_json::Value| line["message"].as_str().is_some_and(|m| m.contains(forged));
        assert_eq!(lines.iter().filter(|line| shown(line)).count(), 1, "{forged}");
    }
}
