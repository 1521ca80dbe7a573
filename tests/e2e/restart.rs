//! The operator or the agent killed in the middle: nothing lost, nothing twice.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::harness::{SYSTEM, Script, eventually, kubectl, rest};

const COUNTER: &str = r#"
import korelogger

def count(start, lines):
    for i in range(start, start + lines):
        print(f"print {i}")
        korelogger.info(f"log {i}")
    return start
"#;

/// Ends the pods of a component at once, as a crash does.
async fn kill(component: &str) {
    let label = format!("app.kubernetes.io/component={component}");
    kubectl(&[
        "-n",
        SYSTEM,
        "delete",
        "pods",
        "-l",
        &label,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ])
    .await;
}

// One test for both parts: they would get into each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn killing_operator_and_agent_in_the_middle_loses_and_doubles_nothing() {
    let script = Script::new("kill", "counter").await;
    script.deploy(COUNTER, json!({})).await;
    let before = script.object().await["status"]["deployments"].clone();

    const RUNS: usize = 60;
    const LINES: usize = 50;
    let mut ids = Vec::new();
    for run in 0..RUNS {
        match run {
            10 | 35 => kill("operator").await,
            20 => kill("agent").await,
            45 => {
                kill("agent").await;
                kill("operator").await;
            }
            _ => {}
        }
        // The script's endpoint does not depend on the operator.
        let answer = script
            .call("count", json!({"start": run * LINES, "lines": LINES}))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        ids.push(answer.run_id().to_owned());
        tokio::time::sleep(Duration::from_millis(150)).await;
    }

    eventually("everything is stored", Duration::from_secs(90), || async {
        let figures = rest(&script.path()).await?;
        let lifetime = &figures["figures"];
        let wanted = 2 * RUNS * LINES;
        if lifetime["succeededRuns"] == RUNS && lifetime["totalLogs"].as_u64() >= Some(wanted as u64) {
            Ok(())
        } else {
            Err(figures.to_string())
        }
    })
    .await;

    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in script.items("logs", "last=1d").await {
        let message = line["message"].as_str().unwrap();
        let number: usize = message.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(line["runId"], ids[number / LINES].as_str(), "{line}");
        *seen.entry(message.to_owned()).or_default() += 1;
    }
    let expected: BTreeMap<String, usize> = (0..RUNS * LINES)
        .flat_map(|i| [(format!("print {i}"), 1), (format!("log {i}"), 1)])
        .collect();
    let lost: Vec<_> = expected
        .keys()
        .filter(|k| !seen.contains_key(*k))
        .take(5)
        .collect();
    let doubled: Vec<_> = seen.iter().filter(|(_, n)| **n > 1).take(5).collect();
    assert!(
        lost.is_empty() && doubled.is_empty() && seen == expected,
        "lost {lost:?}, doubled {doubled:?}"
    );

    let mut stored: Vec<_> = script
        .items("runs", "")
        .await
        .iter()
        .map(|r| r["runId"].as_str().unwrap().to_owned())
        .collect();
    stored.reverse();
    assert_eq!(stored, ids, "each run once, in order");
    let status = script.wait_for_phase("Deployed").await;
    assert_eq!(status["version"], 1);
    assert_eq!(status["deployments"], before, "a restart is no deployment");
    let status = script
        .wait_for_metrics("figures go on", |m| m["totalRuns"] == RUNS)
        .await;
    assert_eq!(status["metrics"]["totalLogs"], 2 * RUNS * LINES);
}
