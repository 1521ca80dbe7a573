//! Runs as a CSV file.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Script, admin_token, apply, eventually, kubectl, rest_as};

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

    let export = |name: &str, more: Value| {
        let mut spec = json!({"scriptRef": {"name": "till"}, "data": "Runs"});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExport",
               "metadata": {"name": name, "namespace": script.namespace}, "spec": spec})
    };
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

    let finished = |name: &'static str| {
        let namespace = script.namespace.clone();
        async move {
            eventually(
                &format!("export {name} has ended"),
                Duration::from_secs(30),
                || async {
                    let text = kubectl(&["-n", &namespace, "get", "scriptexport", name, "-o", "json"]).await;
                    let status = serde_json::from_str::<Value>(&text).unwrap()["status"].clone();
                    match status["phase"].as_str() {
                        Some("Succeeded" | "Failed") => Ok(status),
                        _ => Err(status.to_string()),
                    }
                },
            )
            .await
        }
    };
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
