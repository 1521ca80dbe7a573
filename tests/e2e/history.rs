//! What the history of a script says, and that its numbers only go up.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Script, apply, eventually, kubectl, rest};

const MAIN: &str = "def f():\n    return 1\n";

/// Waits until the latest version is this one and serves; what the status says of it.
async fn serves(script: &Script, version: i64) -> Value {
    eventually(
        &format!("version {version} serves"),
        Duration::from_secs(90),
        || async {
            let status = script.object().await["status"].clone();
            let latest = &status["deployments"][0];
            if latest["version"] == version && status["phase"] == "Deployed" {
                Ok(latest.clone())
            } else {
                Err(status.to_string())
            }
        },
    )
    .await
}

fn cause(version: &Value) -> &str {
    version["change"]["cause"]
        .as_str()
        .unwrap_or_else(|| panic!("no cause: {version}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_says_what_changed_and_a_deleted_object_s_numbers_go_on() {
    let script = Script::new("history", "told").await;
    script.deploy(MAIN, json!({})).await;
    let first = serves(&script, 1).await;
    assert_eq!(cause(&first), "first deployment");
    assert!(first["durationMicroseconds"].as_i64() > Some(0), "{first}");

    let edited = json!({"env": [{"name": "TOKEN", "value": "s3cret"}], "timeoutSeconds": 9});
    apply(&script.manifest("def f():\n    return 2\n", &edited))
        .await
        .unwrap();
    let second = serves(&script, 2).await;
    let fields = json!(["env.TOKEN", "source.inline.main.py", "timeoutSeconds"]);
    assert_eq!(
        (cause(&second), &second["change"]["fields"]),
        ("spec changed", &fields)
    );
    assert_eq!(second["changedBy"], "kubectl-client-side-apply");
    assert!(!script.object().await["status"].to_string().contains("s3cret"));

    script
        .patch(&json!({"metadata": {"annotations": {"scriptscope.dev/redeploy": "now"}}}))
        .await;
    assert_eq!(cause(&serves(&script, 3).await), "redeploy requested");
    script
        .patch(&json!({"spec": {"desiredState": "Undeployed"}}))
        .await;
    assert_eq!(script.wait_for_phase("ReadyToDeploy").await["version"], 3);
    script.patch(&json!({"spec": {"desiredState": "Deployed"}})).await;
    assert_eq!(cause(&serves(&script, 4).await), "deployed again");

    kubectl(&["-n", &script.namespace, "delete", "customscript", &script.name]).await;
    script.deploy(MAIN, json!({})).await;
    let anew = serves(&script, 5).await;
    assert_eq!(cause(&anew), "created anew");
    let history = rest(&format!("{}/deployments", script.path())).await.unwrap();
    let versions: Vec<i64> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["version"].as_i64().unwrap())
        .collect();
    assert_eq!(versions, [5, 4, 3, 2, 1]);
    assert_eq!(history["items"][0]["change"]["fields"], anew["change"]["fields"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_at_the_same_time_never_share_a_number() {
    let script = Script::new("edits", "edited").await;
    script.deploy(MAIN, json!({})).await;
    join_all((0..6).map(|n| {
        let patch = json!({"spec": {"env": [{"name": "N", "value": n.to_string()}]}});
        let script = &script;
        async move { script.patch(&patch).await }
    }))
    .await;
    let status = script.wait_for_phase("Deployed").await;
    let deployments = status["deployments"].as_array().unwrap();
    let versions: Vec<i64> = deployments
        .iter()
        .map(|d| d["version"].as_i64().unwrap())
        .collect();
    let ids: BTreeSet<&str> = deployments
        .iter()
        .map(|d| d["deploymentId"].as_str().unwrap())
        .collect();
    let count = i64::try_from(versions.len()).unwrap();
    assert_eq!(
        versions,
        (1..=count).rev().collect::<Vec<_>>(),
        "no gap and none twice"
    );
    assert_eq!(ids.len(), versions.len());
    assert!(count >= 2, "{status}");
    assert_eq!(status["version"], versions[0]);
}
