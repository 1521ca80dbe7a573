//! Node scripts, as their callers and the readers of the runner's output know them.

use serde_json::{Value, json};

use crate::harness::{Answer, Runner, counted, eventually, fails_to_start, none, script};

fn pair(level: &str, message: &str) -> (String, String) {
    (level.into(), message.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_functions_of_main_js_are_listed_and_called() {
    let runner = Runner::start("node_plain", &[]).await;
    let listed = runner.functions().await;
    let functions = listed["functions"].as_array().unwrap();
    let named = |name: &str| functions.iter().find(|f| f["name"] == name).unwrap();
    let mut all: Vec<_> = functions.iter().map(|f| f["name"].as_str().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, ["anything", "check", "decorated", "later", "standard"]);
    assert_eq!(
        named("check")["doc"],
        "Checks an account.\n\n@param {string} account whose"
    );
    assert_eq!(
        named("check")["parameters"],
        json!([
            {"name": "account", "required": true, "annotation": "string"},
            {"name": "limit", "required": false, "default": 10},
            {"name": "strict", "required": false, "default": false},
        ])
    );
    for (function, arguments, result) in [
        (
            "check",
            json!({"strict": true, "account": "\u{e9}"}),
            json!({"account": "\u{e9}", "limit": 10, "strict": true}),
        ),
        ("anything", json!({"first": 1}), json!([1, 2, {}])),
        (
            "anything",
            json!({"first": 1, "other": [2]}),
            json!([1, 2, {"other": [2]}]),
        ),
        ("later", json!({"value": {"a": null}}), json!({"a": null})),
        ("decorated", json!({"x": 1.5}), json!(1.5)),
        ("standard", json!({"word": "y"}), json!("y")),
    ] {
        let answer = runner.call(function, arguments.clone()).await;
        assert_eq!(answer.result(), &result, "{function}");
        let records = runner.records(answer.run_id()).await;
        assert_eq!(
            (&records[0]["input"], &records[0]["function"]),
            (&arguments, &json!(function))
        );
        assert_eq!(
            (&records[1]["output"], &records[1]["error"]),
            (&result, &Value::Null)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_call_of_a_node_function_never_becomes_a_run() {
    let runner = Runner::start("node_plain", &[]).await;
    for (function, body, status, code, text) in [
        (
            "check",
            json!({"account": 1, "acount": 2}),
            400,
            "UnknownArgument",
            "acount",
        ),
        (
            "check",
            none(),
            400,
            "MissingArgument",
            "check(account, limit=10, strict=false)",
        ),
        ("later", none(), 400, "MissingArgument", "later(value)"),
        (
            "later",
            json!({"value": 1, "more": 2}),
            400,
            "UnknownArgument",
            "more",
        ),
        ("_hidden", none(), 404, "FunctionNotFound", "check"),
        ("unexported", none(), 404, "FunctionNotFound", "check"),
        ("Thing", none(), 404, "FunctionNotFound", "check"),
    ] {
        let answer = runner.call(function, body).await;
        assert_eq!(answer.status, status, "{function}: {answer:?}");
        assert_eq!(answer.body["error"]["code"], code, "{answer:?}");
        assert!(answer.message().contains(text), "{answer:?}");
    }
    assert_eq!(runner.objects(), [Value::Null; 0]);
}

/// The outcome, and that the run after it works.
async fn outcome(runner: &Runner, function: &str, arguments: Value) -> Answer {
    let answer = runner.call(function, arguments).await;
    let records = runner.records(answer.run_id()).await;
    let last = records.last().unwrap();
    assert_eq!(last["status"], answer.body["status"], "{function}");
    assert_eq!(last["error"], answer.body["error"], "{function}");
    let next = runner.call("ok", json!({"word": function})).await;
    assert_eq!(next.result(), function, "the run after {function}");
    assert_eq!(
        next.body["stdout"],
        format!("ok {function}\n"),
        "the run after {function}"
    );
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_node_run_says_why_and_the_next_one_works() {
    let limit = (1 << 20).to_string();
    let environment = [
        ("SCRIPTSCOPE_TIMEOUT_SECONDS", "1"),
        ("SCRIPTSCOPE_MAX_OUTPUT_BYTES", limit.as_str()),
    ];
    let runner = Runner::start("node_rough", &environment).await;
    for (function, arguments, reason, kind, message) in [
        (
            "fails",
            none(),
            "Exception",
            "TypeError",
            "properties of undefined",
        ),
        ("fails_later", none(), "Exception", "TypeError", "too late"),
        ("throws_text", none(), "Exception", "string", "only text"),
        ("own_error", none(), "Exception", "OutOfStock", "none left"),
        ("rejects", none(), "Exception", "Error", "nobody caught it"),
        ("rejects_later", none(), "Exception", "Error", "nobody caught it"),
        (
            "throws_in_a_timer",
            none(),
            "Exception",
            "Error",
            "thrown in a timer",
        ),
        ("exits", none(), "WorkerExited", "", "exited with code 3"),
        (
            "is_killed",
            none(),
            "WorkerExited",
            "",
            "SIGKILL, probably out of memory",
        ),
        ("aborts", none(), "WorkerExited", "", "SIGABRT"),
        ("never", none(), "Timeout", "", "longer than 1 s"),
        ("waits_forever", none(), "Timeout", "", "longer than 1 s"),
        (
            "floods",
            json!({"mebibytes": 50}),
            "OutputLimitExceeded",
            "",
            "1 MiB",
        ),
        ("big_int", none(), "ResultNotJson", "", "BigInt"),
        ("cycle", none(), "ResultNotJson", "", "circular"),
        ("not_a_number", none(), "ResultNotJson", "", "NaN"),
        ("a_map", none(), "ResultNotJson", "", "of type Map"),
        ("a_function", none(), "ResultNotJson", "", "of type function"),
        ("half_a_character", none(), "ResultNotJson", "", "surrogate"),
        (
            "large_result",
            json!({"mebibytes": 7}),
            "ResultTooLarge",
            "",
            "6291456",
        ),
    ] {
        let answer = outcome(&runner, function, arguments).await;
        let error = &answer.body["error"];
        assert_eq!(
            answer.status,
            if reason == "Timeout" { 504 } else { 500 },
            "{function}"
        );
        assert_eq!(error["reason"], reason, "{function}: {answer:?}");
        assert_eq!(error["type"].as_str().unwrap_or_default(), kind, "{function}");
        assert!(
            answer.message().contains(message),
            "{function}: {}",
            answer.message()
        );
        assert!(answer.body.get("result").is_none(), "{function}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_trace_holds_the_script_s_own_frames() {
    let runner = Runner::start("node_rough", &[]).await;
    let answer = runner.call("fails", none()).await;
    assert_eq!(answer.body["stdout"], "about to fail\n");
    let traceback = answer.body["error"]["traceback"].as_str().unwrap();
    let frames: Vec<_> = traceback.lines().skip(1).collect();
    assert_eq!(frames.len(), 2, "{traceback}");
    assert!(
        frames[0].contains("inner") && frames[0].ends_with("helper.js:5:18)"),
        "{traceback}"
    );
    assert!(
        frames[1].contains("fails") && frames[1].contains("main.js:"),
        "{traceback}"
    );
    let answer = runner.call("fails_later", none()).await;
    let traceback = answer.body["error"]["traceback"].as_str().unwrap();
    assert!(
        traceback.contains("\nCaused by: RangeError: out of time\n"),
        "{traceback}"
    );
    assert!(
        !traceback.contains("node:") && !traceback.contains("worker.js"),
        "{traceback}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_node_runs_succeed() {
    let runner = Runner::start("node_rough", &[]).await;
    let raw = outcome(&runner, "raw_bytes", none()).await;
    assert_eq!(raw.body.get("result"), Some(&Value::Null), "undefined is null");
    assert_eq!(
        runner.printed(raw.run_id(), "stdout").await,
        ["caf\u{fffd} \u{fffd}"]
    );
    assert_eq!(runner.printed(raw.run_id(), "stderr").await, ["nul \0 there"]);
    let values = outcome(&runner, "values", none()).await;
    let expected = json!({"date": "1970-01-01T00:00:00.000Z", "deep": [null, 1.5, "\u{e9}"]});
    assert_eq!(values.result(), &expected);
    let children = outcome(&runner, "children", none()).await;
    assert_eq!(children.result(), "piped\n");
    let printed = ["before", "inherited", "from node true", "after"];
    assert_eq!(runner.printed(children.run_id(), "stdout").await, printed);
    assert_eq!(runner.printed(children.run_id(), "stderr").await, ["its error"]);
    outcome(&runner, "closes_stdout", none()).await;
    outcome(&runner, "closes_descriptors", none()).await;
    let nap = outcome(&runner, "naps", json!({"seconds": 0.01})).await;
    let visible = json!(["SCRIPTSCOPE_RUN_CONTEXT", "SCRIPTSCOPE_RUN_WORKER"]);
    assert_eq!(nap.result(), &visible, "the runner's variables stay its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_a_node_run_never_prints_into_another() {
    let runner = Runner::start("node_rough", &[]).await;
    for function in [
        "leaves_a_process",
        "leaves_a_timer",
        "leaves_a_writer",
        "leaves_a_promise",
        "leaves_a_rejection",
    ] {
        let left = runner.call(function, json!({"word": "ghost"})).await;
        assert_eq!(left.result(), &Value::Null, "{function}");
        // Longer than a ghost's pause.
        let nap = runner.call("naps", none()).await;
        assert_eq!(nap.body["stdout"], "napping\n", "after {function}");
        assert_eq!(nap.body["stderr"], "", "after {function}");
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
    eventually("the daemon is gone", || (!process.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_worker_stays_warm_unless_something_is_left() {
    let runner = Runner::start("node_rough", &[]).await;
    let first = runner.call("process", none()).await;
    assert_eq!(runner.call("fails", none()).await.status, 500);
    // A process that has ended is no leftover.
    runner.call("forgets_a_process", none()).await.result();
    assert_eq!(runner.call("process", none()).await.result(), first.result());
    runner
        .call("leaves_a_timer", json!({"word": "ghost"}))
        .await
        .result();
    // It shows itself during this run, after which its worker is replaced.
    runner.call("naps", json!({"seconds": 0.1})).await.result();
    assert_ne!(runner.call("process", none()).await.result(), first.result());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_concurrent_node_runs_hold_their_own_lines_only() {
    let environment = [
        ("SCRIPTSCOPE_CONCURRENCY", "8"),
        ("SCRIPTSCOPE_QUEUE_SECONDS", "20"),
    ];
    let runner = Runner::start("node_talk", &environment).await;
    let mut answers = Vec::new();
    // As many at once as may run or wait.
    for batch in 0..5 {
        let calls: Vec<_> = (0..20)
            .map(|i| {
                let word = format!("w{}", batch * 20 + i);
                (word.clone(), runner.calls("says", &json!({"word": word})))
            })
            .collect();
        for (word, call) in calls {
            let (status, body) = call.await.unwrap();
            assert_eq!((status, &body["result"]), (200, &json!(word)), "{body}");
            answers.push((word, body));
        }
    }
    for (word, body) in answers {
        let run_id = body["runId"].as_str().unwrap();
        assert_eq!(
            body["stdout"],
            format!("print {word}\nINFO :: log {word}\nwrite {word}\n")
        );
        assert_eq!(body["stderr"], format!("error {word}\n"));
        let printed = [format!("print {word}"), format!("write {word}")];
        assert_eq!(runner.printed(run_id, "stdout").await, printed);
        assert_eq!(runner.printed(run_id, "stderr").await, [format!("error {word}")]);
        assert_eq!(
            runner.logged(Some(run_id)).await,
            [pair("INFO", &format!("log {word}"))]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn korelogger_for_node_shows_at_once_and_once() {
    let runner = Runner::start("node_talk", &[]).await;
    let call = runner.calls("blocks", &json!({"milliseconds": 1000}));
    eventually("the line is there", || {
        let objects = runner.objects();
        let mut logged = objects.iter().map(|o| &o["attributes"]["log.message"]);
        logged.any(|m| m == "logged before the block").then_some(())
    })
    .await;
    assert!(!call.is_finished(), "the run still blocks its thread");
    call.await.unwrap();

    let answer = runner.call("nap", json!({"seconds": 0.01})).await;
    assert_eq!(
        answer.body["stdout"],
        "printed before the nap\nWARNING :: logged before the nap\nprinted after the nap\n"
    );
    let records = runner.records(answer.run_id()).await;
    let span = records
        .iter()
        .find(|r| r["name"] == "gvisor_warning_log")
        .unwrap();
    assert_eq!(span["kind"], "SpanKind.INTERNAL");
    let started = &records[0];
    for (name, value) in [
        ("run_id", json!(answer.run_id())),
        ("deployment_id", json!("deploy-1")),
        ("source", json!("anonymous")),
        ("source_type", json!("API")),
        ("traceparent", started["traceparent"].clone()),
        ("log.trace_id", started["traceparent"].clone()),
        ("log.level", json!("WARNING")),
        ("shop", json!(17)),
        ("tags", json!(["a"])),
        ("odd", json!("1")),
        ("user.run_id", json!("mine")),
    ] {
        assert_eq!(span["attributes"][name], value, "{name}");
    }

    let answer = runner.call("pairs", none()).await;
    assert_eq!(
        answer.body["stdout"],
        "INFO :: same\nINFO :: same\npartERROR :: two\nlines\n and rest\n"
    );
    assert_eq!(
        runner.printed(answer.run_id(), "stdout").await,
        ["INFO :: same", "part and rest"]
    );
    let logged = [pair("INFO", "same"), pair("ERROR", "two\nlines")];
    assert_eq!(runner.logged(Some(answer.run_id())).await, logged);

    let answer = runner.call("bridge", none()).await;
    let logged = [pair("WARNING", "3 left"), pair("INFO", "{ a: 1 }")];
    assert_eq!(runner.logged(Some(answer.run_id())).await, logged);
    assert_eq!(runner.printed(answer.run_id(), "stdout").await, ["printed"]);

    let answer = runner.call("odd", none()).await;
    assert_eq!(answer.result(), true, "import and require give the same package");
    let logged = runner.logged(Some(answer.run_id())).await;
    assert_eq!(
        (logged[0].1.as_str(), logged[2].1.as_str()),
        ("NaN", "half \u{fffd}")
    );
    assert!(logged[3].1.ends_with("[cut]") && logged[3].1.starts_with('\0'));
    assert_eq!(logged.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_and_processes_log_into_their_run() {
    let runner = Runner::start("node_talk", &[]).await;
    let answer = runner.call("many", json!({"promises": 8, "lines": 100})).await;
    let printed = counted(runner.printed(answer.run_id(), "stdout").await);
    assert_eq!((printed.len(), printed.values().sum::<usize>()), (800, 800));
    let logged = counted(runner.logged(Some(answer.run_id())).await);
    assert_eq!((logged.len(), logged.values().sum::<usize>()), (800, 800));
    let stdout = answer.body["stdout"].as_str().unwrap();
    assert_eq!(stdout.matches("INFO :: p").count(), 800);

    let answer = runner.call("children", none()).await;
    assert_eq!(answer.result(), "printed by it\n", "a child's output stays clean");
    let logged = runner.logged(Some(answer.run_id())).await;
    let expected = ["from Python", &"y".repeat(20_000), "from a subprocess"];
    assert_eq!(logged, expected.map(|text| pair("INFO", text)));

    let late = runner.call("late", json!({"word": "afterwards"})).await;
    runner.call("nap", json!({"seconds": 0.1})).await.result();
    assert_eq!(
        runner.logged(Some(late.run_id())).await,
        [pair("INFO", "afterwards")],
        "a line belongs to the run that wrote it, though it comes late"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loading_a_node_script_prints_belongs_to_no_run() {
    let runner = Runner::start("node_talk", &[]).await;
    eventually("loading has printed", || {
        let printed = runner.lines().contains(&"loaded".to_owned());
        (printed && runner.errors().contains(&"loaded, too".to_owned())).then_some(())
    })
    .await;
    assert_eq!(runner.logged(None).await, [pair("INFO", "logged while loading")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_script_that_can_not_be_loaded_ends_the_runner_with_a_reason() {
    for (name, reasons) in [
        (
            "node_syntax_error",
            &["SyntaxError in main.js, line 5: Unexpected token ':': `export function g(: {`"][..],
        ),
        (
            "node_import_error",
            &[
                "TypeError in helper.js, line 2:",
                "'member'",
                "`module.exports = table.missing.member;`",
            ],
        ),
        (
            "node_exits_while_loading",
            &["Loading main.js ended the worker process: it exited with code 9"],
        ),
    ] {
        let (code, stdout, stderr, message) = fails_to_start(&script(name), &[]);
        assert_eq!(code, Some(78), "{name}: {stderr}");
        for reason in reasons {
            assert!(message.contains(reason), "{name}: {message}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
        let printed = if name == "node_import_error" {
            "this far\n"
        } else {
            ""
        };
        assert_eq!(stdout, printed);
    }
    let node = [("SCRIPTSCOPE_RUNTIME", "node")];
    let (_, _, _, message) = fails_to_start(&script("plain"), &node);
    assert!(
        message.contains("main.js is missing in") && message.contains("main.py"),
        "{message}"
    );
    let (_, _, _, message) = fails_to_start(&script("node_plain"), &[("SCRIPTSCOPE_NODE", "no-such-node")]);
    assert!(
        message.contains("no-such-node could not be started") && message.contains("Node 20 or newer"),
        "{message}"
    );
}
