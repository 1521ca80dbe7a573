//! Versions and what made them.

use scriptscope::model::{DeploymentState, ScriptKey};
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
            let spec = r#"{"runtime":"python","source":{"inline":{"main.py":"x"}}}"#;
            site.store
                .keep_spec(&pay, begun.version, spec, Some("kubectl-edit"))
                .await
                .unwrap();
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
        lines[3].contains("Replaced") && lines[3].contains("kubectl-edit"),
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
