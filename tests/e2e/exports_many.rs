//! Many exports at once.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Script, admin_token, apply, eventually, kubectl, rest_as, try_kubectl};

fn export(script: &Script, name: &str, filters: &Value) -> Value {
    json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExport",
           "metadata": {"name": name, "namespace": script.namespace},
           "spec": {"scriptRef": {"name": script.name}, "data": "Runs", "match": "All", "filters": filters}})
}

/// How many of a namespace's exports are in each phase.
async fn phases(namespace: &str) -> HashMap<String, usize> {
    let columns = "jsonpath={range .items[*]}{.status.phase}{\"\\n\"}{end}";
    let text = kubectl(&["-n", namespace, "get", "scriptexports", "-o", columns]).await;
    let mut phases = HashMap::new();
    for phase in text.lines() {
        *phases.entry(phase.to_owned()).or_default() += 1;
    }
    phases
}

async fn wait_for_all(namespace: &str, count: usize) {
    eventually("all exports are made", Duration::from_secs(240), || async {
        let phases = phases(namespace).await;
        if phases.get("Succeeded") == Some(&count) {
            Ok(())
        } else {
            Err(format!("{phases:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_exports_at_once_are_all_made_and_keep_no_other_namespace_waiting() {
    let script = Script::new("thousand", "busy").await;
    let other = Script::new("single", "quiet").await;
    let main = "def f(n):\n    if n % 2:\n        raise ValueError(n)\n    return n\n";
    script.deploy(main, json!({})).await;
    other.deploy(main, json!({})).await;
    for n in 0..20 {
        script.call("f", json!({"n": n})).await;
    }
    other.call("f", json!({"n": 2})).await;
    script.wait_for_metrics("20 runs", |m| m["totalRuns"] == 20).await;
    other.wait_for_metrics("1 run", |m| m["totalRuns"] == 1).await;

    let failed = json!([{"column": "Status", "operator": "Equals", "values": ["Failed"]}]);
    let all = json!([]);
    let items: Vec<_> = (0..1_000)
        .map(|n| {
            export(
                &script,
                &format!("many-{n}"),
                if n % 2 == 0 { &failed } else { &all },
            )
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    try_kubectl(&["create", "-f", "-"], Some(&list.to_string()))
        .await
        .unwrap();
    apply(&export(&other, "one", &all)).await.unwrap();
    wait_for_all(&other.namespace, 1).await;
    wait_for_all(&script.namespace, 1_000).await;

    for (name, rows) in [("many-0", 10), ("many-1", 20), ("many-500", 10), ("many-999", 20)] {
        let url = kubectl(&[
            "-n",
            &script.namespace,
            "get",
            "scriptexport",
            name,
            "-o",
            "jsonpath={.status.artifact.url}",
        ])
        .await;
        let (code, csv) = rest_as(Some(admin_token().await), &url).await;
        assert_eq!(code, 200, "{csv}");
        assert_eq!(csv.lines().count(), rows + 1, "{name}: {csv}");
    }
}
