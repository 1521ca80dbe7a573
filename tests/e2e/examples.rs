//! Every example, deployed as its README says and called.

use std::{fs, path::Path};

use serde_json::Value;

use crate::harness::{Script, kubectl};

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_deployed_and_called() {
    let mut script = Script::new("examples", "").await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for example in fs::read_dir(folder).unwrap() {
        let example = example.unwrap().path();
        let manifest = example.join("customscript.yaml");
        let applied = kubectl(&[
            "-n",
            &script.namespace,
            "apply",
            "-f",
            manifest.to_str().unwrap(),
            "-o",
            "name",
        ])
        .await;
        let name = applied
            .lines()
            .find_map(|line| line.strip_prefix("customscript.scriptscope.dev/"));
        script.name = name.unwrap_or_else(|| panic!("{applied}")).to_owned();
        script.wait_for_phase("Deployed").await;
        let calls = fs::read_to_string(example.join("calls.json")).unwrap();
        let calls: Vec<Value> = serde_json::from_str(&calls).unwrap();
        for call in calls {
            let answer = script
                .call(call["function"].as_str().unwrap(), call["arguments"].clone())
                .await;
            let expected = if call["error"].is_null() {
                "Success"
            } else {
                "Failed"
            };
            assert_eq!(
                answer.body["status"], expected,
                "{}: {call}: {answer:?}",
                script.name
            );
            let run = script.ended_run(answer.run_id()).await;
            assert_eq!(run["status"], expected, "{run}");
        }
        // One after the other, so that they need not all fit.
        kubectl(&["-n", &script.namespace, "delete", "customscript", &script.name]).await;
    }
}
