//! Runs as a CSV file.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Script, admin_token, apply, eventually, kubectl, rest_as, try_kubectl};

/// An export of a script's runs; `more` is further spec.
fn export(script: &Script, name: &str, more: &Value) -> Value {
    let mut spec = json!({"scriptRef": {"name": script.name}, "data": "Runs"});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExport",
           "metadata": {"name": name, "namespace": script.namespace}, "spec": spec})
}

/// The status of an export that has ended.
async fn finished(script: &Script, name: &str) -> Value {
    eventually(
        &format!("export {name} has ended"),
        Duration::from_secs(30),
        || async {
            let text = kubectl(&["-n", &script.namespace, "get", "scriptexport", name, "-o", "json"]).await;
            let status = serde_json::from_str::<Value>(&text).unwrap()["status"].clone();
            match status["phase"].as_str() {
                Some("Succeeded" | "Failed" | "Cancelled") => Ok(status),
                _ => Err(status.to_string()),
            }
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_export_becomes_a_csv_file_of_the_runs() {
    let script = Script::new("csv", "till").await;
    let main =
        "def pay(amount):\n    if amount < 0:\n        raise ValueError('negative')\n    return amount\n";
    script.deploy(main, json!({})).await;
    for amount in [1, 2, -3] {
        script
            .call_with(
                "pay",
                json!({"amount": amount}),
                &[("x-scriptscope-source", "=cmd|'x'!A1, \"q\"")],
            )
            .await;
    }
    script
        .wait_for_metrics("3 runs", |m| m["succeededRuns"] == 2 && m["failedRuns"] == 1)
        .await;

    let export = |name: &str, more: Value| export(&script, name, &more);
    apply(&export("all", json!({}))).await.unwrap();
    let failed = json!([{"column": "Status", "operator": "Equals", "values": ["Failed"]}]);
    apply(&export(
        "failed",
        json!({"filters": failed, "range": {"last": "1d"}}),
    ))
    .await
    .unwrap();
    apply(&export(
        "wrong",
        json!({"filters": [{"column": "Log Level", "operator": "Equals", "values": ["Info"]}]}),
    ))
    .await
    .unwrap();

    let finished = |name: &'static str| finished(&script, name);
    let status = finished("all").await;
    assert_eq!(status["phase"], "Succeeded", "{status}");
    assert_eq!(status["artifact"]["fileName"], "till_runs_data.csv");
    assert_eq!(status["artifact"]["rows"], 3);
    let url = status["artifact"]["url"].as_str().unwrap().to_owned();
    let (code, file) = rest_as(Some(admin_token().await), &url).await;
    assert_eq!(code, 200, "{file}");
    assert_eq!(status["artifact"]["bytes"], file.len());
    let mut lines = file.lines();
    assert_eq!(
        lines.next(),
        Some("Run ID,Status,Deployment Version,Response Time,Function,Executed On,Source Type,Source")
    );
    let runs = script.items("runs", "").await;
    let rows: Vec<_> = lines.collect();
    assert_eq!(rows.len(), 3);
    for (row, run) in rows.iter().zip(&runs) {
        assert!(
            row.starts_with(run["runId"].as_str().unwrap()),
            "the page's order: {row}"
        );
        assert!(
            row.ends_with(r#","'=cmd|'x'!A1, ""q""""#),
            "quoted, and no formula: {row}"
        );
    }
    assert_eq!(rest_as(None, &url).await.0, 401, "a file is not for everybody");

    let status = finished("failed").await;
    assert_eq!(status["artifact"]["rows"], 1, "{status}");
    let status = finished("wrong").await;
    assert_eq!(status["phase"], "Failed");
    assert!(
        status["message"].as_str().unwrap().contains("Log Level"),
        "{status}"
    );
    let table = kubectl(&["-n", &script.namespace, "get", "sexport"]).await;
    assert!(
        table.contains("till_runs_data.csv") && table.contains("Succeeded"),
        "{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_the_form_asked_for_and_ends_as_told() {
    let script = Script::new("forms", "till").await;
    script
        .deploy("def pay(amount):\n    return amount\n", json!({}))
        .await;
    script.call_with("pay", json!({"amount": 7}), &[]).await;
    script
        .wait_for_metrics("1 run", |m| m["succeededRuns"] == 1)
        .await;
    for (name, more) in [
        (
            "parquet",
            json!({"format": "Parquet", "columns": ["Run ID", "Input", "Output"]}),
        ),
        ("gzip", json!({"compression": "Gzip", "csv": {"bom": true}})),
        ("column", json!({"columns": ["Run ID", "Colour"]})),
        ("never", json!({"cancelled": true})),
    ] {
        apply(&export(&script, name, &more)).await.unwrap();
    }
    let status = finished(&script, "parquet").await;
    assert_eq!(
        status["artifact"]["fileName"], "till_runs_data.parquet",
        "{status}"
    );
    assert_eq!(status["progress"]["rowsEstimated"], 1);
    let url = status["artifact"]["url"].as_str().unwrap();
    let (code, file) = rest_as(Some(admin_token().await), url).await;
    assert!(
        code.is_success() && file.starts_with("PAR1") && file.ends_with("PAR1"),
        "{code}"
    );
    let status = finished(&script, "gzip").await;
    assert_eq!(
        status["artifact"]["fileName"], "till_runs_data.csv.gz",
        "{status}"
    );
    let status = finished(&script, "column").await;
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("\"Colour\"") && message.contains("Finished On"),
        "{message}"
    );
    let status = finished(&script, "never").await;
    assert_eq!(
        (&status["phase"], &status["artifact"]),
        (&json!("Cancelled"), &Value::Null)
    );

    let patch = async |name: &str, spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        let args = [
            "-n",
            &script.namespace,
            "patch",
            "sexport",
            name,
            "--type=merge",
            "-p",
            &patch,
        ];
        try_kubectl(&args, None).await
    };
    for (spec, why) in [
        (json!({"data": "Logs"}), "spec can not be changed"),
        (json!({"format": "Csv"}), "spec can not be changed"),
        (json!({"range": {"last": "1d"}}), "spec can not be changed"),
        (json!({"columns": null}), "spec can not be changed"),
    ] {
        let refused = patch("parquet", spec).await.unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    let refused = patch("never", json!({"cancelled": false})).await.unwrap_err();
    assert!(refused.contains("can not be taken back"), "{refused}");
    patch("gzip", json!({"cancelled": true, "ttlAfterFinished": "1s"}))
        .await
        .unwrap();
    eventually("its time is over", Duration::from_secs(30), || async {
        match kubectl(&[
            "-n",
            &script.namespace,
            "get",
            "sexport",
            "gzip",
            "--ignore-not-found",
        ])
        .await
        {
            text if text.is_empty() => Ok(()),
            text => Err(text),
        }
    })
    .await;
}
