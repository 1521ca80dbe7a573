//! What the scripts of the tests have done in the last days. The same each time but for the clock.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    model::{DeploymentState, KeptSpec, ScriptKey},
    store::Store,
};
use serde_json::{Value, json};

use crate::feed::Feed;

const TRACEBACK: &str = "Traceback (most recent call last):\n  File \"/app/main.py\", line 41, in charge\n    \
                         total = amount / rate\nZeroDivisionError: division by zero";

/// Minutes between two runs of shop/pay.
const EVERY: i64 = 3;
/// Runs of shop/pay, all within the last seven days.
const RUNS: i64 = 3_000;

pub async fn fill(store: &Arc<dyn Store>, feed: &Feed) {
    let now = Timestamp::now();
    let pay = ScriptKey::new("shop", "pay");
    deploy_pay(store, &pay, now).await;
    for version in 1..=3 {
        let lines: Vec<Value> = (0..RUNS)
            .rev()
            .filter(|n| version_of(*n) == version)
            .flat_map(|n| run(n, now))
            .collect();
        feed.print(&pay, version, &lines).await;
    }
    let an_hour_ago = now - SignedDuration::from_mins(61);
    let line = format!("{an_hour_ago} stdout F after the gap\n");
    feed.lose(&pay, 3, 4_711, &line).await;
    old_runs(feed, &pay, now).await;
    others(store, feed, now).await;
}

fn version_of(n: i64) -> i64 {
    match n {
        0..700 => 3,
        700..1_900 => 2,
        _ => 1,
    }
}

async fn deploy(
    store: &Arc<dyn Store>,
    script: &ScriptKey,
    at: Timestamp,
    state: DeploymentState,
    reason: Option<&str>,
) -> i64 {
    let deployment = store
        .begin_deployment(script, &at.to_string(), 0, at)
        .await
        .unwrap();
    let done = at + SignedDuration::from_secs(8);
    store
        .set_deployment_state(script, deployment.version, state, reason, done)
        .await
        .unwrap();
    deployment.version
}

async fn deploy_pay(store: &Arc<dyn Store>, pay: &ScriptKey, now: Timestamp) {
    for (version, runs_ago, who) in [
        (1, RUNS, "kubectl-client-side-apply"),
        (2, 1_900, "argocd-controller"),
        (3, 700, "kubectl-edit"),
    ] {
        let at = now - SignedDuration::from_mins(runs_ago * EVERY);
        assert_eq!(
            deploy(store, pay, at, DeploymentState::Deployed, None).await,
            version
        );
        let timeout = if version == 1 { 60 } else { 30 };
        let rate = if version == 3 { "0" } else { "1.0825" };
        let spec = json!({"runtime": "python", "timeoutSeconds": timeout, "env": [{"name": "RATE", "value": rate}],
            "source": {"inline": {"main.py": format!("def charge(amount):\n    return amount * {rate}\n")}}});
        let kept = KeptSpec {
            spec: spec.to_string(),
            changed_by: Some(who.to_owned()),
            ..KeptSpec::default()
        };
        store.keep_spec(pay, version, &kept).await.unwrap();
    }
}

/// Where a run of shop/pay stands; the latest ones have not ended.
fn status(n: i64) -> &'static str {
    let failing = if version_of(n) == 3 { 9 } else { 31 };
    match n {
        0 | 2 => "In Progress",
        n if n % failing == 4 => "Failed",
        _ => "Success",
    }
}

/// What a run prints, `n` runs before the last.
fn run(n: i64, now: Timestamp) -> Vec<Value> {
    let begun = now - SignedDuration::from_mins(n * EVERY + 1);
    let id = format!("run-{:05}", RUNS - n);
    let version = version_of(n);
    let took = SignedDuration::from_micros(micros(n, version));
    let (function, source, kind) = match n % 7 {
        0 | 3 | 5 => ("charge", "checkout", "API"),
        1 | 4 => ("refund", "billing", "Tool"),
        2 => ("quote", "<img src=x onerror=alert(1)>", "API"),
        _ => ("charge", "try it", "Test"),
    };
    let mut lines = vec![json!({
        "scriptscope": "run.started", "time": begun, "run_id": id, "deployment_id": format!("pay-{version}"), "version": version,
        "function": function, "source": source, "source_type": kind,
        "traceparent": format!("00-{:032x}-{:016x}-01", n + 1, n + 1),
        "input": input(n)})];
    // One whose input was too large, and one whose was not captured.
    if let (11 | 12, Some(started)) = (n, lines[0].as_object_mut()) {
        started.remove("input");
        started.insert("input_truncated".to_owned(), (n == 11).into());
    }
    let mut log = |level: &str, message: &str, after: i64| {
        lines.push(span(
            &id,
            level,
            message,
            begun + SignedDuration::from_micros(after),
        ));
    };
    log(
        "INFO",
        &format!("{function} for order {} began", 90_000 + n),
        1_500,
    );
    if n % 5 == 0 {
        log(
            "DEBUG",
            "\u{1b}[36mcache\u{1b}[0m \u{1b}[1mmiss\u{1b}[0m for <b>rate</b>",
            2_500,
        );
    }
    if n % 11 == 0 {
        log("WARNING", "the rate is older than a day", 3_500);
    }
    if n % 97 == 0 {
        let payload = format!("payload {}", "0123456789 abcdefghij ".repeat(60));
        log("INFO", &payload, 4_500);
    }
    let status = status(n);
    if status == "Failed" {
        log("ERROR", "the order can not be charged: division by zero", 5_500);
    }
    if status != "In Progress" {
        let end = begun + took;
        lines.push(json!({"scriptscope": "run.output", "run_id": id, "stream": "stdout", "lines": [[end, format!("total {n}.00 EUR")]]}));
        lines.push(json!({
            "scriptscope": "run.finished", "time": end, "run_id": id, "status": status, "duration_us": took.as_micros(),
            "output": (status == "Success").then(|| json!({"total": n, "currency": "EUR"})),
            "error": (status == "Failed").then(|| failure(n))}));
    }
    lines
}

fn input(n: i64) -> Value {
    // Numbers that JavaScript would change.
    serde_json::from_str(&format!(
        r#"{{"order": {}, "amount": 10.50, "exact": 12345678901234567890, "lines": [{{"sku": "a-{n}", "count": 1.0}}]}}"#,
        90_000 + n
    ))
    .unwrap()
}

fn failure(n: i64) -> Value {
    if n % 2 == 0 {
        json!({"reason": "Exception", "type": "ZeroDivisionError", "message": "division by zero", "traceback": TRACEBACK})
    } else {
        json!({"reason": "Timeout", "message": "the call took longer than 30 s"})
    }
}

fn micros(n: i64, version: i64) -> i64 {
    // Between 20 ms and about 400 ms, with a tail; version 3 is slower.
    let spread = (n * 7_919) % 1_000;
    let base = 20_000 + spread * 180 + if spread > 970 { 900_000 } else { 0 };
    base * if version == 3 { 2 } else { 1 } + n % 1_000
}

fn span(run_id: &str, level: &str, message: &str, time: Timestamp) -> Value {
    json!({"name": format!("gvisor_{}_log", level.to_lowercase()), "start_time": time,
        "attributes": {"run_id": run_id, "log.message": message, "log.level": level, "order.kind": "retail"}})
}

/// Runs from before the last seven days.
async fn old_runs(feed: &Feed, pay: &ScriptKey, now: Timestamp) {
    let lines: Vec<Value> = (0..20)
        .flat_map(|n| {
            let begun = now - SignedDuration::from_hours(24 * 12 + n);
            let id = format!("old-{n:02}");
            [
                json!({"scriptscope": "run.started", "time": begun, "run_id": id, "version": 1,
                    "function": "charge", "source": "migration", "source_type": "Tool"}),
                json!({"scriptscope": "run.finished", "time": begun + SignedDuration::from_millis(50), "run_id": id,
                    "status": "Success", "duration_us": 50_000}),
            ]
        })
        .collect();
    feed.print(pay, 1, &lines).await;
}

async fn others(store: &Arc<dyn Store>, feed: &Feed, now: Timestamp) {
    let quotes = ScriptKey::new("shop", "quotes");
    let yesterday = now - SignedDuration::from_hours(26);
    deploy(store, &quotes, yesterday, DeploymentState::Deployed, None).await;
    let why = Some("ImagePullBackOff: the image can not be pulled");
    deploy(
        store,
        &quotes,
        now - SignedDuration::from_hours(2),
        DeploymentState::Failed,
        why,
    )
    .await;
    let loans = ScriptKey::new("bank", "loans");
    deploy(store, &loans, yesterday, DeploymentState::Undeployed, None).await;
    for (script, function, source, kind, millis) in [
        (&quotes, "quote", "shopfront", "API", 35),
        (&loans, "interest", "teller", "Tool", 1_240),
    ] {
        let lines: Vec<Value> = (0..40)
            .rev()
            .flat_map(|n| {
                let begun = now - SignedDuration::from_mins(n * 17 + 30);
                let id = format!("{}-{n:03}", script.name);
                let took = millis * (10 + n % 4) / 10;
                [
                    json!({"scriptscope": "run.started", "time": begun, "run_id": id, "version": 1,
                        "function": function, "source": source, "source_type": kind}),
                    json!({"scriptscope": "run.finished", "time": begun + SignedDuration::from_millis(took), "run_id": id,
                        "status": "Success", "duration_us": took * 1_000}),
                ]
            })
            .collect();
        feed.print(script, 1, &lines).await;
    }
}
