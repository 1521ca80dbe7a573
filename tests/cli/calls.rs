//! Calling functions of a real runner.

use serde_json::Value;

use crate::{
    harness::Runner,
    site::{Said, bare},
};

async fn invoke(runner: &Runner, arguments: &[&str]) -> Said {
    let url = runner.url();
    let output = bare()
        .arg("invoke")
        .args(arguments)
        .args(["--url", url])
        .output()
        .await
        .unwrap();
    Said::from(output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_prints_its_result_and_names_itself_a_test() {
    let runner = Runner::start("plain", &[]).await;
    for arguments in [
        &["plain", "check", r#"{"account": "A-1", "limit": 12}"#][..],
        &["plain", "check", "--arg", "account=A-1", "--arg", "limit=12"],
    ] {
        let result: Value = serde_json::from_str(&invoke(&runner, arguments).await.works()).unwrap();
        assert_eq!(
            result,
            serde_json::json!({"account": "A-1", "limit": 12, "strict": false})
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("arguments.json");
    std::fs::write(&file, r#"{"account": "from a file"}"#).unwrap();
    let said = invoke(
        &runner,
        &["plain", "check", &format!("@{}", file.display()), "-o", "json"],
    )
    .await;
    let answer: Value = serde_json::from_str(&said.works()).unwrap();
    assert_eq!(answer["result"]["account"], "from a file");
    let started = &runner.records(answer["runId"].as_str().unwrap()).await[0];
    assert_eq!(started["source_type"], "Test");
    let tool = invoke(
        &runner,
        &[
            "plain", "later", "--arg", "value=1", "--source", "billing", "-o", "json",
        ],
    )
    .await;
    let answer: Value = serde_json::from_str(&tool.works()).unwrap();
    let started = &runner.records(answer["runId"].as_str().unwrap()).await[0];
    assert_eq!(
        (&started["source_type"], &started["source"]),
        (&"Tool".into(), &"billing".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prints_go_to_standard_error_and_failures_fail() {
    let runner = Runner::start("rough", &[]).await;
    let said = invoke(&runner, &["rough", "fails"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("about to fail")
            && said.err.contains("Failed (Exception)")
            && said.err.contains("; run run_"),
        "{}",
        said.err
    );
    assert_eq!(said.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_can_not_be_made_says_why() {
    let runner = Runner::start("plain", &[]).await;
    for (arguments, code, why) in [
        (&["plain", "nothing"][..], 1, "there are: check"),
        (&["plain", "check"], 2, "account"),
        (&["plain", "check", "{"], 2, "--arg account=17"),
        (&["plain", "check", "[1]"], 2, "JSON object"),
        (&["plain", "check", "--arg", "x"], 2, "NAME=VALUE"),
        (&["plain", "check", "@/nonexistent"], 1, "/nonexistent"),
    ] {
        invoke(&runner, arguments).await.fails(code, why);
    }
    let gone = bare()
        .args(["invoke", "plain", "check", "--url", "http://127.0.0.1:1"])
        .output()
        .await
        .unwrap();
    Said::from(gone).fails(1, "can not be reached");
}
