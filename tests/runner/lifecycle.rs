//! How the runner begins and ends.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Runner, eventually, fails_to_start, none, script, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_can_not_be_loaded_ends_the_runner_with_a_reason() {
    for (name, reasons) in [
        (
            "syntax_error",
            &["SyntaxError in main.py, line 4: invalid syntax: `def g(:`"][..],
        ),
        (
            "import_error",
            &["KeyError in helper.py, line 2: 'missing'", "TABLE[\"missing\"]"],
        ),
        (
            "exits_while_loading",
            &["Loading main.py ended the worker process: it exited with code 9"],
        ),
        ("../../fixtures", &["main.py is missing in", "scripts"]),
    ] {
        let (code, stdout, stderr, message) = fails_to_start(&script(name), &[]);
        assert_eq!(code, Some(78), "{name}: {stderr}");
        for reason in reasons {
            assert!(message.contains(reason), "{name}: {message}");
            assert!(stderr.contains(reason), "{name}: {stderr}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
        assert_eq!(stdout, if name == "import_error" { "this far\n" } else { "" });
    }
    let (code, _, stderr, message) =
        fails_to_start(&script("plain"), &[("SCRIPTSCOPE_PYTHON", "no-such-python")]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(
        message.contains("no-such-python could not be started"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_runner_lets_runs_end() {
    let runner = Runner::start("rough", &[]).await;
    let call = runner.calls("naps", &json!({"seconds": 4}));
    eventually("the run has begun", || {
        (!runner.objects().is_empty()).then_some(())
    })
    .await;
    let waiting = runner.calls("ok", &none());
    runner.signal(Signal::SIGTERM);
    runner.answers("/readyz", 503).await;
    assert_eq!(waiting.await.unwrap().0, 503);
    let refused = runner.call("ok", none()).await;
    assert_eq!(
        (refused.status, &refused.body["error"]["code"]),
        (503, &json!("Stopping"))
    );
    assert!(!call.is_finished(), "the run goes on");
    let (status, body) = call.await.unwrap();
    assert_eq!((status, &body["status"]), (200, &json!("Success")));
    let last = eventually("the runner says that it stops", || {
        runner
            .objects()
            .into_iter()
            .find(|o| o["scriptscope"] == "runner.stopped")
    })
    .await;
    assert_eq!(runner.objects().last(), Some(&last));
    assert_eq!(runner.tell_stored(&text(&last["token"])).await, 204);
    assert_eq!(runner.exit().await.code(), Some(0));
}

/// The token of the runner's last record.
async fn last_token(runner: &Runner) -> String {
    eventually("the runner says that it stops", || {
        let objects = runner.objects();
        let last = objects.iter().find(|o| o["scriptscope"] == "runner.stopped")?;
        Some(text(&last["token"]))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_runner_ends_as_soon_as_its_last_record_is_stored() {
    let runner = Runner::start("plain", &[]).await;
    let began = Instant::now();
    runner.signal(Signal::SIGTERM);
    let token = last_token(&runner).await;
    assert!(token.len() >= 32, "{token}");
    for wrong in ["", "guess", &token[1..], &format!("{token}0"), &"x".repeat(300)] {
        let status = runner.tell_stored(wrong).await;
        assert!(status == 403 || status == 413, "{wrong}: {status}");
    }
    assert_eq!(runner.get("/livez").await, 200, "nobody has confirmed its record");
    assert_eq!(runner.call("ok", none()).await.status, 503);
    assert_eq!(runner.tell_stored(&token).await, 204);
    assert_eq!(runner.exit().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_still_come_when_a_runner_is_asked_to_stop_are_taken() {
    let runner = Runner::start("rough", &[]).await;
    let began = Instant::now();
    runner.signal(Signal::SIGTERM);
    runner.answers("/readyz", 503).await;
    // A Service may send calls here for two seconds.
    while began.elapsed() < Duration::from_millis(1_500) {
        let answer = runner.call("ok", none()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let token = last_token(&runner).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(runner.tell_stored(&token).await, 204);
    assert_eq!(runner.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_nobody_answers_ends_in_time_for_its_pod() {
    let runner = Runner::start("plain", &[("SCRIPTSCOPE_LINGER_SECONDS", "1")]).await;
    let began = Instant::now();
    runner.signal(Signal::SIGTERM);
    last_token(&runner).await;
    assert_eq!(runner.exit().await.code(), Some(0));
    let took = began.elapsed().as_secs_f64();
    assert!((1.0..4.0).contains(&took), "{took}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_runner_that_waits() {
    let runner = Runner::start("plain", &[]).await;
    runner.signal(Signal::SIGTERM);
    last_token(&runner).await;
    runner.signal(Signal::SIGTERM);
    assert_eq!(runner.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_end_in_time_is_undeployed() {
    let environment = [
        ("SCRIPTSCOPE_GRACE_SECONDS", "0"),
        ("SCRIPTSCOPE_LINGER_SECONDS", "0"),
    ];
    let runner = Runner::start("rough", &environment).await;
    let call = runner.calls("never", &none());
    eventually("the run has begun", || {
        (!runner.objects().is_empty()).then_some(())
    })
    .await;
    runner.signal(Signal::SIGINT);
    let (status, body) = call.await.unwrap();
    assert_eq!((status, &body["error"]["reason"]), (500, &json!("Undeployed")));
    let records = runner.records(body["runId"].as_str().unwrap()).await;
    assert_eq!(records.last().unwrap()["error"]["reason"], "Undeployed");
    assert_eq!(runner.exit().await.code(), Some(0));
}
