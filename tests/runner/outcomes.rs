//! However a run ends, its caller and its record say so, and the next run works.

use serde_json::{Value, json};

use crate::harness::{Answer, Runner, none};

/// The outcome, and that the run after it works.
async fn outcome(runner: &Runner, function: &str, arguments: Value) -> Answer {
    let answer = runner.call(function, arguments).await;
    let records = runner.records(answer.run_id()).await;
    let last = records.last().unwrap();
    assert_eq!(last["scriptscope"], "run.finished", "{function}: {records:?}");
    assert_eq!(last["status"], answer.body["status"], "{function}");
    assert_eq!(last["error"], answer.body["error"], "{function}");
    let next = runner.call("ok", json!({"word": function})).await;
    assert_eq!(next.result(), function, "the run after {function}");
    assert_eq!(
        next.body["stdout"],
        format!("ok {function}\n"),
        "the run after {function}"
    );
    assert_eq!(
        runner.printed(next.run_id(), "stdout").await,
        [format!("ok {function}")]
    );
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_says_why_and_the_next_one_works() {
    let limit = (1 << 20).to_string();
    let environment = [
        ("SCRIPTSCOPE_TIMEOUT_SECONDS", "1"),
        ("SCRIPTSCOPE_MAX_OUTPUT_BYTES", limit.as_str()),
    ];
    let runner = Runner::start("rough", &environment).await;
    for (function, arguments, status, reason, message) in [
        ("fails", none(), 500, "Exception", "'no such key'"),
        ("exits", none(), 500, "WorkerExited", "exited with code 3"),
        ("sys_exits", none(), 500, "WorkerExited", "sys.exit(4)"),
        (
            "is_killed",
            none(),
            500,
            "WorkerExited",
            "SIGKILL, probably out of memory",
        ),
        ("crashes", none(), 500, "WorkerExited", "SIGSEGV"),
        ("never", none(), 504, "Timeout", "longer than 1 s"),
        (
            "floods",
            json!({"mebibytes": 50}),
            500,
            "OutputLimitExceeded",
            "1 MiB",
        ),
        (
            "bytes_in_print",
            none(),
            500,
            "Exception",
            "surrogates not allowed",
        ),
        ("not_json", none(), 500, "ResultNotJson", "of type set"),
        ("not_a_number", none(), 500, "ResultNotJson", "float"),
        ("half_a_character", none(), 500, "ResultNotJson", "surrogate"),
        (
            "large_result",
            json!({"mebibytes": 7}),
            500,
            "ResultTooLarge",
            "6291456",
        ),
    ] {
        let answer = outcome(&runner, function, arguments).await;
        assert_eq!(answer.status, status, "{function}: {answer:?}");
        assert_eq!(answer.body["error"]["reason"], reason, "{function}");
        assert!(
            answer.message().contains(message),
            "{function}: {}",
            answer.message()
        );
        assert!(answer.body.get("result").is_none(), "{function}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_run_printed_is_kept() {
    let runner = Runner::start("rough", &[("SCRIPTSCOPE_TIMEOUT_SECONDS", "1")]).await;
    for (function, line) in [
        ("fails", "about to fail"),
        ("exits", "printed before the exit"),
        ("never", "still here"),
    ] {
        let answer = runner.call(function, none()).await;
        assert_eq!(answer.body["stdout"], format!("{line}\n"));
        assert_eq!(runner.printed(answer.run_id(), "stdout").await, [line]);
    }
    let answer = runner.call("fails", none()).await;
    let error = &answer.body["error"];
    assert_eq!(error["type"], "KeyError");
    let traceback = error["traceback"].as_str().unwrap();
    assert!(
        traceback.contains("in fails") && traceback.contains("in inner"),
        "{traceback}"
    );
    assert!(
        !traceback.contains("worker.py"),
        "only the user's frames: {traceback}"
    );

    // 16 MiB are the limit by default; lines are 1 KiB long.
    let answer = runner.call("floods", json!({"mebibytes": 50})).await;
    assert_eq!(
        answer.body["error"]["reason"],
        "OutputLimitExceeded",
        "{}",
        answer.message()
    );
    let printed = runner.printed(answer.run_id(), "stdout").await;
    assert_eq!(printed.len(), 16 << 10);
    assert!(printed.iter().all(|line| line.len() == 1023));
    let stdout = answer.body["stdout"].as_str().unwrap();
    assert!(
        stdout.len() < 66_000 && stdout.contains("[truncated: the first 65536 of"),
        "{}",
        stdout.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_runs_succeed() {
    let runner = Runner::start("rough", &[]).await;
    let raw = outcome(&runner, "raw_bytes", none()).await;
    assert_eq!(raw.result(), &Value::Null);
    assert!(raw.body.get("result").is_some(), "null is a result");
    assert_eq!(
        runner.printed(raw.run_id(), "stdout").await,
        ["caf\u{fffd} \u{fffd}"]
    );
    assert_eq!(runner.printed(raw.run_id(), "stderr").await, ["nul \0 there"]);

    let from_c = outcome(&runner, "prints_from_c", none()).await;
    assert_eq!(runner.printed(from_c.run_id(), "stdout").await, ["from C"]);
    let fork = outcome(&runner, "forks", none()).await;
    assert_eq!(fork.result(), "parent");
    assert_eq!(runner.printed(fork.run_id(), "stdout").await, ["from the fork"]);
    outcome(&runner, "closes_stdout", none()).await;
    let large = outcome(&runner, "large_result", json!({"mebibytes": 1})).await;
    let records = runner.records(large.run_id()).await;
    let last = records.last().unwrap();
    assert_eq!(last["output_truncated"], true, "larger than what is captured");
    assert!(last.get("output").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_a_run_never_prints_into_another() {
    let runner = Runner::start("rough", &[]).await;
    for function in ["leaves_a_process", "leaves_a_thread"] {
        let left = runner.call(function, json!({"word": "ghost"})).await;
        assert_eq!(left.result(), &Value::Null);
        // Longer than a ghost's pause.
        let nap = runner.call("naps", none()).await;
        assert_eq!(nap.body["stdout"], "napping\n", "after {function}");
        assert_eq!(
            runner.printed(nap.run_id(), "stdout").await,
            ["napping"],
            "after {function}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let left = runner
        .call("leaves_a_daemon", json!({"word": "ghost", "file": file}))
        .await;
    assert_eq!(left.result(), &Value::Null);
    let nap = runner.call("naps", none()).await;
    assert_eq!(nap.body["stdout"], "napping\n");
    let pid = std::fs::read_to_string(file).unwrap();
    let process = std::path::Path::new("/proc").join(pid.trim());
    crate::harness::eventually("the daemon is gone", || (!process.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stays_warm() {
    let runner = Runner::start("rough", &[]).await;
    let first = runner.call("process", none()).await;
    assert_eq!(runner.call("fails", none()).await.status, 500);
    // Idle threads of an executor are no leftovers.
    assert_eq!(runner.call("uses_a_pool", none()).await.result(), first.result());
    // Nor is a process that has ended and that nobody has waited for.
    runner.call("forgets_a_process", none()).await.result();
    assert_eq!(runner.call("process", none()).await.result(), first.result());
}
