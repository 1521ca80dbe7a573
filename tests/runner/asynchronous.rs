//! Calls that are answered before their run has ended, and what can be asked of runs: also of another pod's.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Runner, eventually, none};

/// Waits until a run is in progress.
async fn begun(runner: &Runner, run_id: &str) {
    eventually("the run has begun", || {
        let started = |o: &Value| o["scriptscope"] == "run.started" && o["run_id"] == run_id;
        runner.objects().iter().any(started).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_call_is_answered_at_once_and_its_result_is_kept() {
    let runner = Runner::start("rough", &[]).await;
    let run_id = runner.begin("naps", &json!({"seconds": 0.5})).await;
    let path = format!("/runs/{run_id}");
    let (status, body, _) = runner.ask("GET", &path, &[]).await;
    assert_eq!(
        (status, &body["status"], &body["function"]),
        (200, &json!("In Progress"), &json!("naps"))
    );
    assert_eq!(body["runId"], run_id);
    let (status, body, _) = runner.ask("GET", &format!("{path}?wait=20"), &[]).await;
    assert_eq!((status, &body["status"]), (200, &json!("Success")), "{body}");
    assert_eq!(body["stdout"], "napping\n");
    assert_eq!(
        runner.ask("GET", &path, &[]).await.1,
        body,
        "as often as one likes"
    );
    let records = runner.records(&run_id).await;
    assert_eq!(records.last().unwrap()["output"], body["result"]);

    let failed = runner.begin("fails", &none()).await;
    let (status, body, _) = runner.ask("GET", &format!("/runs/{failed}?wait=20"), &[]).await;
    assert_eq!((status, &body["status"]), (200, &json!("Failed")));
    assert_eq!(body["error"]["reason"], "Exception");

    let (status, body, headers) = runner
        .ask("POST", "/functions/ok", &[("prefer", "respond-async, wait=5")])
        .await;
    assert_eq!(
        (status, &headers["preference-applied"]),
        (202, &"respond-async".parse().unwrap())
    );
    assert!(headers.contains_key("traceparent"));
    runner.records(body["runId"].as_str().unwrap()).await;

    for (path, status, code) in [
        ("/functions/ok?mode=later", 400, "InvalidMode"),
        ("/functions/ok?mode=sync", 200, ""),
    ] {
        let (found, body, _) = runner.ask("POST", path, &[]).await;
        assert_eq!(
            (found, body["error"]["code"].as_str().unwrap_or_default()),
            (status, code)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_says_so() {
    let runner = Runner::start("rough", &[("SCRIPTSCOPE_RESULT_SECONDS", "1")]).await;
    let waited_for = runner.call("ok", none()).await;
    let (status, body, _) = runner
        .ask("GET", &format!("/runs/{}", waited_for.run_id()), &[])
        .await;
    assert_eq!((status, &body["error"]["code"]), (410, &json!("RunGone")));
    assert!(
        body["error"]["message"].as_str().unwrap().contains("dashboard"),
        "{body}"
    );

    let run_id = runner.begin("ok", &none()).await;
    let path = format!("/runs/{run_id}");
    runner.records(&run_id).await;
    // Kept for a second.
    runner.answers(&path, 410).await;
    // Ends in digits of another pod, and there is none.
    let foreign = format!("{}00000000", &run_id[..28]);
    assert_eq!(runner.get(&format!("/runs/{foreign}")).await, 410);
    for (path, status, code) in [
        ("/runs/none", 404, "RunNotFound"),
        ("/runs/none?wait=61", 400, "InvalidWait"),
        ("/runs/none?wait=soon", 400, "InvalidWait"),
    ] {
        let (found, body, _) = runner.ask("GET", path, &[]).await;
        assert_eq!((found, &body["error"]["code"]), (status, &json!(code)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_and_its_process_killed() {
    let runner = Runner::start("rough", &[]).await;
    let before = runner.call("process", none()).await.result().clone();
    let run_id = runner.begin("never", &none()).await;
    begun(&runner, &run_id).await;
    let path = format!("/runs/{run_id}");
    let (status, body, _) = runner.ask("DELETE", &path, &[]).await;
    assert_eq!(
        (status, &body["status"], &body["reason"]),
        (200, &json!("Failed"), &json!("Cancelled"))
    );
    let last = runner.records(&run_id).await.pop().unwrap();
    assert_eq!(
        (&last["status"], &last["error"]["reason"]),
        (&json!("Failed"), &json!("Cancelled"))
    );
    let (_, kept, _) = runner.ask("GET", &path, &[]).await;
    assert_eq!(
        (&kept["error"], &kept["stdout"]),
        (&last["error"], &json!("still here\n"))
    );
    assert_eq!(
        runner.ask("DELETE", &path, &[]).await.0,
        200,
        "it is cancelled, said twice"
    );
    let after = runner.call("process", none()).await.result().clone();
    assert_ne!(before, after, "another process");

    // Also what somebody waits for: the id is in the dashboard.
    let waiting = runner.calls("never", &none());
    let id = eventually("the run has begun", || {
        let objects = runner.objects();
        let last = objects.iter().rfind(|o| o["scriptscope"] == "run.started")?;
        (last["function"] == "never" && last["run_id"] != run_id.as_str())
            .then(|| last["run_id"].as_str().unwrap().to_owned())
    })
    .await;
    assert_eq!(
        runner.ask("POST", &format!("/runs/{id}/cancel"), &[]).await.0,
        200
    );
    let (status, body) = waiting.await.unwrap();
    assert_eq!((status, &body["error"]["reason"]), (409, &json!("Cancelled")));

    let done = runner.begin("ok", &none()).await;
    runner.records(&done).await;
    let (status, body, _) = runner.ask("DELETE", &format!("/runs/{done}"), &[]).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("RunEnded")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_is_cancelled_before_it_begins() {
    let runner = Runner::start("rough", &[]).await;
    let busy = runner.begin("never", &none()).await;
    begun(&runner, &busy).await;
    let waiting = runner.begin("ok", &json!({"word": "never printed"})).await;
    let path = format!("/runs/{waiting}");
    assert_eq!(runner.ask("GET", &path, &[]).await.1["begun"], false);
    assert_eq!(
        runner.ask("GET", &format!("/runs/{busy}"), &[]).await.1["begun"],
        true
    );
    assert_eq!(runner.ask("DELETE", &path, &[]).await.0, 200);
    let records = runner.records(&waiting).await;
    let kinds: Vec<_> = records
        .iter()
        .map(|r| r["scriptscope"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["run.started", "run.finished"]);
    assert_eq!(records[1]["error"]["reason"], "Cancelled");
    assert_eq!(runner.ask("DELETE", &format!("/runs/{busy}"), &[]).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_when_its_caller_has_gone_and_a_waiting_call_does_not_begin() {
    let runner = Runner::start("rough", &[]).await;
    let caller = runner.calls("naps", &json!({"seconds": 0.6}));
    let run_id = eventually("the run has begun", || {
        Some(runner.objects().first()?["run_id"].as_str()?.to_owned())
    })
    .await;
    let gone = runner.calls("ok", &none());
    tokio::time::sleep(Duration::from_millis(100)).await;
    caller.abort();
    gone.abort();
    let records = runner.records(&run_id).await;
    assert_eq!(records.last().unwrap()["status"], "Success");
    runner.call("process", none()).await.result();
    let functions: Vec<_> = runner
        .objects()
        .into_iter()
        .filter(|o| o["scriptscope"] == "run.started")
        .map(|mut o| o["function"].take())
        .collect();
    assert_eq!(functions, ["naps", "process"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_runner_does_what_it_has_promised() {
    // Longer than a Service may go on sending calls, for which they are taken as before.
    let runner = Runner::start("rough", &[("SCRIPTSCOPE_TIMEOUT_SECONDS", "20")]).await;
    let first = runner.begin("naps", &json!({"seconds": 3})).await;
    begun(&runner, &first).await;
    let second = runner.begin("ok", &json!({"word": "late"})).await;
    let waiting = runner.calls("ok", &none());
    runner.signal(Signal::SIGTERM);
    assert_eq!(waiting.await.unwrap().0, 503, "another pod can do it");
    assert_eq!(runner.records(&first).await.last().unwrap()["status"], "Success");
    assert_eq!(runner.printed(&second, "stdout").await, ["ok late"]);
    eventually("the runner says that it stops", || {
        let stopped = |o: &Value| o["scriptscope"] == "runner.stopped";
        runner.objects().iter().any(stopped).then_some(())
    })
    .await;
    runner.signal(Signal::SIGTERM);
    assert_eq!(runner.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promised_run_for_which_no_time_is_left_ends_as_undeployed() {
    let runner = Runner::start(
        "rough",
        &[
            ("SCRIPTSCOPE_GRACE_SECONDS", "0"),
            ("SCRIPTSCOPE_LINGER_SECONDS", "0"),
        ],
    )
    .await;
    let first = runner.begin("never", &none()).await;
    begun(&runner, &first).await;
    let second = runner.begin("ok", &none()).await;
    runner.signal(Signal::SIGTERM);
    for run_id in [&first, &second] {
        let last = runner.records(run_id).await.pop().unwrap();
        assert_eq!(last["error"]["reason"], "Undeployed", "{last}");
    }
    assert_eq!(runner.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_pod_answers_for_the_run_of_another() {
    let peers = "127.0.0.2,127.0.0.3";
    let one = Runner::start(
        "rough",
        &[
            ("SCRIPTSCOPE_LISTEN", "127.0.0.2:0"),
            ("SCRIPTSCOPE_POD_IP", "127.0.0.2"),
            ("SCRIPTSCOPE_PEERS", peers),
        ],
    )
    .await;
    let port = one.address().rsplit(':').next().unwrap();
    let listen = format!("127.0.0.3:{port}");
    let other = Runner::start(
        "rough",
        &[
            ("SCRIPTSCOPE_LISTEN", &listen),
            ("SCRIPTSCOPE_POD_IP", "127.0.0.3"),
            ("SCRIPTSCOPE_PEERS", peers),
        ],
    )
    .await;
    let run_id = one.begin("ok", &json!({"word": "here"})).await;
    one.records(&run_id).await;
    let path = format!("/runs/{run_id}");
    let (status, body, _) = other.ask("GET", &path, &[]).await;
    assert_eq!((status, &body["result"]), (200, &json!("here")));
    assert_eq!(body, one.ask("GET", &path, &[]).await.1);

    let long = one.begin("never", &none()).await;
    begun(&one, &long).await;
    let path = format!("/runs/{long}");
    assert_eq!(other.ask("DELETE", &path, &[]).await.0, 200);
    assert_eq!(
        one.records(&long).await.last().unwrap()["error"]["reason"],
        "Cancelled"
    );
    // A pod that is gone took what it knew with it.
    one.signal(Signal::SIGKILL);
    one.exit().await;
    let (status, body, _) = other.ask("GET", &path, &[]).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (502, &json!("PodNotReachable")),
        "{body}"
    );
}
