//! Versions and what made them.

use scriptscope::model::{Change, DeploymentState, KeptSpec, ScriptKey};
use serde_json::Value;

use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_listed_and_an_impossible_rollback_says_why() {
    let site = Site::new().await;
    let (pay, now) = (ScriptKey::new("shop", "pay"), jiff::Timestamp::now());
    for n in 0..3 {
        let begun = site
            .store
            .begin_deployment(&pay, &n.to_string(), 0, now)
            .await
            .unwrap();
        let state = if n == 1 {
            DeploymentState::Failed
        } else {
            DeploymentState::Deployed
        };
        let reason = (n == 1).then_some("ImagePullFailed: no such image");
        site.store
            .set_deployment_state(&pay, begun.version, state, reason, now)
            .await
            .unwrap();
        if n == 0 {
            let kept = KeptSpec {
                spec: r#"{"runtime":"python","source":{"inline":{"main.py":"x"}}}"#.into(),
                changed_by: Some("kubectl-edit".into()),
                change: Change {
                    cause: "first deployment".into(),
                    ..Change::default()
                },
                ..KeptSpec::default()
            };
            site.store.keep_spec(&pay, begun.version, &kept).await.unwrap();
        }
    }
    let table = site.says("shop", &["versions", "pay"]).await.works();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(
        lines[2].contains("Failed") && lines[2].contains("ImagePullFailed: no such image"),
        "{table}"
    );
    assert!(
        lines[3].contains("Replaced")
            && lines[3].contains("kubectl-edit")
            && lines[3].contains("first deployment"),
        "{table}"
    );
    let json = site
        .says("shop", &["versions", "pay", "-o", "json", "--limit", "1"])
        .await
        .works();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["items"][0]["version"],
        json["items"][0]["version"].as_i64().unwrap()
    );
    let latest = json["items"][0]["version"].as_i64().unwrap();
    for (to, code, why) in [
        (latest, 1, "this is the current version".to_owned()),
        (
            latest + 5,
            1,
            format!("version {} never existed; the latest is {latest}", latest + 5),
        ),
        (latest - 1, 1, "was not kept".to_owned()),
        (0, 2, "--to".to_owned()),
    ] {
        let said = site
            .says("shop", &["rollback", "pay", &format!("--to={to}")])
            .await;
        said.fails(code, &why);
    }
    // The source is in it: reading runs is not enough.
    let said = site
        .says(
            "runs-only",
            &["rollback", "pay", "--to", &(latest - 2).to_string()],
        )
        .await;
    said.fails(1, "needs get on customscripts in namespace shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_shows_the_lines_of_the_source_that_it_changed() {
    let site = Site::new().await;
    let (pay, now) = (ScriptKey::new("shop", "pay"), jiff::Timestamp::now());
    let mut latest = 0;
    for rate in [1, 2] {
        let begun = site
            .store
            .begin_deployment(&pay, &format!("rate {rate}"), 0, now)
            .await
            .unwrap();
        latest = begun.version;
        let main = format!("import os\n\ndef rate():\n    return {rate}  # \u{1b}[2J\n");
        let kept = KeptSpec {
            spec: serde_json::json!({"source": {"inline": {"main.py": main, "same.py": "x"}}}).to_string(),
            changed_by: Some("scriptscope-rollback".into()),
            change: Change {
                cause: "rollback to 3".into(),
                fields: vec!["source.inline.main.py".into()],
                more_fields: 0,
                claimed_by: Some("alice".into()),
            },
            ..KeptSpec::default()
        };
        site.store.keep_spec(&pay, begun.version, &kept).await.unwrap();
    }
    let number = latest.to_string();
    let text = site.says("shop", &["versions", "pay", &number]).await.works();
    for part in [
        "alice (claimed, by scriptscope-rollback)",
        "rollback to 3: source.inline.main.py",
        &format!(
            "--- version {}: main.py\n+++ version {latest}: main.py\n",
            latest - 1
        ),
        "\n-    return 1",
        "\n+    return 2  # \\u{1b}[2J\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("same.py") && !text.contains('\u{1b}'), "{text}");
    let json = site
        .says("shop", &["versions", "pay", &number, "-o", "json"])
        .await
        .works();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["previousVersion"], latest - 1);
    assert_eq!(json["change"]["claimedBy"], "alice");
    // The source is more than who may read runs may see; which fields changed is not.
    let said = site.says("runs-only", &["versions", "pay", &number]).await;
    said.fails(1, "needs get on customscripts in namespace shop");
    let table = site.says("runs-only", &["versions", "pay"]).await.works();
    assert!(table.contains("rollback to 3: source.inline.main.py"), "{table}");
}
