//! Calls: what becomes a run, what does not, and what is recorded of the caller.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Runner, eventually, none};

#[tokio::test(flavor = "multi_thread")]
async fn public_functions_of_main_py_are_listed_and_called() {
    let runner = Runner::start("plain", &[]).await;
    let listed = runner.functions().await;
    let functions = listed["functions"].as_array().unwrap();
    let names: Vec<_> = functions.iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["check", "anything", "later", "logged", "decorated", "cached"]
    );
    assert_eq!(
        functions[0]["doc"],
        "Checks an account.\n\nSays whether it is within its limit."
    );
    assert_eq!(
        functions[0]["parameters"],
        json!([
            {"name": "account", "required": true, "annotation": "str"},
            {"name": "limit", "required": false, "default": 10, "annotation": "int"},
            {"name": "strict", "required": false, "default": false},
        ])
    );
    for (function, arguments, result) in [
        (
            "check",
            json!({"account": "\u{e9}", "strict": true}),
            json!({"account": "\u{e9}", "limit": 10, "strict": true}),
        ),
        (
            "anything",
            json!({"first": 1, "other": [2]}),
            json!([1, 2, {"other": [2]}]),
        ),
        ("later", json!({"value": {"a": null}}), json!({"a": null})),
        ("decorated", json!({"x": 1.5}), json!(1.5)),
        ("cached", json!({"x": "y"}), json!("y")),
    ] {
        let answer = runner.call(function, arguments.clone()).await;
        assert_eq!(answer.result(), &result, "{function}");
        let records = runner.records(answer.run_id()).await;
        assert_eq!(records[0]["scriptscope"], "run.started");
        assert_eq!(records[0]["input"], arguments);
        assert_eq!(records[0]["function"], function);
        assert_eq!(
            (&records[0]["version"], &records[0]["deployment_id"]),
            (&json!(3), &json!("deploy-1"))
        );
        assert_eq!(records[1]["output"], result);
        assert_eq!(records[1]["error"], Value::Null);
        assert!(
            records[1]["duration_us"]
                .as_u64()
                .is_some_and(|us| us < 10_000_000)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_call_is_answered_and_never_becomes_a_run() {
    let runner = Runner::start("plain", &[]).await;
    let large = format!("{{\"account\": \"{}\"}}", "x".repeat(7 << 20));
    let deep = format!("{{\"account\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (function, body, status, code, text) in [
        ("check", "{".to_owned(), 400, "NotJson", "JSON"),
        ("check", "[1]".into(), 400, "NotAnObject", "object"),
        (
            "check",
            r#"{"acount": 1}"#.into(),
            400,
            "UnknownArgument",
            "acount",
        ),
        (
            "check",
            String::new(),
            400,
            "MissingArgument",
            "check(account, limit=10, strict=false)",
        ),
        ("check", deep, 400, "NotJson", "nested"),
        ("check", large, 413, "BodyTooLarge", "6 MiB"),
        ("nothing", "{}".into(), 404, "FunctionNotFound", "check, anything"),
        ("dumps", "{}".into(), 404, "FunctionNotFound", "dumps"),
        ("_hidden", "{}".into(), 404, "FunctionNotFound", "_hidden"),
        ("Thing", "{}".into(), 404, "FunctionNotFound", "Thing"),
    ] {
        let answer = runner.call_with(function, body, &[]).await;
        assert_eq!(answer.status, status, "{function}: {answer:?}");
        assert_eq!(answer.body["error"]["code"], code, "{answer:?}");
        assert!(answer.message().contains(text), "{answer:?}");
    }
    assert_eq!(runner.get("/nothing").await, 404);
    assert_eq!(runner.get("/functions/check").await, 405);
    assert_eq!(runner.get("/livez").await, 200);
    let spaced = runner.call_with("later", "{\n \"value\":\n 1 }", &[]).await;
    assert_eq!(spaced.result(), 1, "a record is one line whatever the body");
    runner.records(spaced.run_id()).await;
    assert_eq!(runner.objects().len(), 2, "no run but the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_recorded() {
    let runner = Runner::start("plain", &[("SCRIPTSCOPE_CAPTURE_INPUT", "false")]).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let named = [("x-scriptscope-source", "billing"), ("traceparent", parent)];
    for (headers, source, source_type) in [
        (&named[..], "billing", "Tool"),
        (&[], "anonymous", "API"),
        (&[("x-scriptscope-source-type", "Test")], "anonymous", "Test"),
    ] {
        let answer = runner.call_with("later", r#"{"value": 1}"#, headers).await;
        let started = &runner.records(answer.run_id()).await[0];
        assert_eq!(
            (&started["source"], &started["source_type"]),
            (&json!(source), &json!(source_type))
        );
        assert_eq!(started["traceparent"] == parent, source == "billing", "{started}");
        assert!(started.get("input").is_none(), "inputs are not to be recorded");
        assert!(started.get("input_truncated").is_none(), "it is not for its size");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_the_run() {
    for name in ["talk", "node_talk"] {
        let runner = Runner::start(name, &[]).await;
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [("traceparent", parent), ("tracestate", "vendor=1, other=2")];
        let (status, body, answered) = runner.ask("POST", "/functions/trace", &headers).await;
        assert_eq!((status, answered["traceparent"].to_str().unwrap()), (200, parent));
        let state = "vendor=1,other=2";
        assert_eq!(
            body["result"],
            json!([parent, state, format!("{parent} {state}")]),
            "{name}"
        );
        // A run without one begins a trace of its own, and nothing is left of the one before.
        let (_, body, answered) = runner.ask("POST", "/functions/trace", &[]).await;
        let own = answered["traceparent"].to_str().unwrap();
        assert_ne!(own, parent);
        assert_eq!(body["result"], json!([own, "", format!("{own} ")]), "{name}");
        let started = &runner.records(body["runId"].as_str().unwrap()).await[0];
        assert_eq!(started["traceparent"], own);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_bounded() {
    let runner = Runner::start("rough", &[("SCRIPTSCOPE_QUEUE_SECONDS", "2")]).await;
    let sleeping = runner.calls("naps", &json!({"seconds": 5}));
    eventually("the run has begun", || {
        (!runner.objects().is_empty()).then_some(())
    })
    .await;
    // Two more than the queue has places.
    let answers = join_all((0..6).map(|_| runner.call("ok", none()))).await;
    let mut codes: Vec<_> = answers
        .iter()
        .map(|answer| {
            assert!(answer.status == 429 && answer.retry_after, "{answer:?}");
            answer.body["error"]["code"].as_str().unwrap()
        })
        .collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [["QueueFull"; 2].as_slice(), &["QueueTimeout"; 4]].concat()
    );
    let (status, body) = sleeping.await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        body["result"],
        json!(["SCRIPTSCOPE_RUN_CONTEXT", "SCRIPTSCOPE_RUN_WORKER"]),
        "the runner's variables stay its own"
    );
    let answer = runner.call("ok", none()).await;
    answer.result();
    runner.records(answer.run_id()).await;
    let started = runner
        .objects()
        .into_iter()
        .filter(|o| o["scriptscope"] == "run.started")
        .count();
    assert_eq!(started, 2, "what was refused never ran");
}
