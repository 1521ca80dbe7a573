//! Node scripts on the real cluster: as an ES module and as CommonJS, in gVisor.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Script, apply, eventually};

/// Spec members of a Node script with these files.
fn node(files: &Value) -> Value {
    json!({"runtime": "node", "source": {"inline": files}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_script_is_deployed_called_and_recorded() {
    let script = Script::new("node", "chatty-node").await;
    let main = r"
import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import korelogger from 'korelogger';
import { greeting } from './words.js';

/** Greets somebody. */
export async function greet({ name, pause = 5 }) {
  console.log('greeting', name);
  korelogger.info('greeted %s', name, { shop: 17 });
  await sleep(pause);
  execFileSync('sh', ['-c', `echo child of ${name}; echo error of ${name} >&2`], { stdio: 'inherit' });
  return `${greeting}, ${name}`;
}

export async function fails() {
  await sleep(1);
  throw new RangeError('out of stock');
}

export const kernel = () => execFileSync('cat', ['/proc/version'], { encoding: 'utf8' });
";
    let files = json!({"main.js": main, "package.json": r#"{"type": "module"}"#,
                       "words.js": "export const greeting = 'Hello';"});
    let mut spec = node(&files);
    spec["concurrency"] = json!(2);
    script.deploy("", spec).await;

    let kernel = script.call("kernel", json!({})).await;
    assert!(
        kernel.body["result"]
            .as_str()
            .is_some_and(|v| v.to_lowercase().contains("gvisor")),
        "{kernel:?}"
    );
    // Two at once: what they print stays apart.
    let (a, b) = tokio::join!(
        script.call("greet", json!({"name": "alice", "pause": 100})),
        script.call("greet", json!({"name": "bob", "pause": 100}))
    );
    for (answer, name) in [(a, "alice"), (b, "bob")] {
        assert_eq!(answer.body["result"], format!("Hello, {name}"), "{answer:?}");
        assert_eq!(
            answer.body["stdout"],
            format!("greeting {name}\nINFO :: greeted {name}\nchild of {name}\n")
        );
        let run = script.ended_run(answer.run_id()).await;
        assert_eq!(
            (&run["status"], &run["function"]),
            (&json!("Success"), &json!("greet"))
        );
        for (level, lines) in [
            (
                "Stdout",
                vec![format!("greeting {name}"), format!("child of {name}")],
            ),
            ("Stderr", vec![format!("error of {name}")]),
            ("Info", vec![format!("greeted {name}")]),
        ] {
            assert_eq!(script.messages(answer.run_id(), level).await, lines, "{level}");
        }
    }

    let failed = script.call("fails", json!({})).await;
    assert_eq!(failed.status, 500, "{failed:?}");
    let run = script.ended_run(failed.run_id()).await;
    assert_eq!(run["status"], "Failed");
    let error = run["error"].to_string();
    assert!(
        error.contains("RangeError") && error.contains("/app/main.js:"),
        "{error}"
    );
    let wrong = script.call("greet", json!({"name": "x", "nmae": 1})).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(wrong.body["error"]["code"], "UnknownArgument", "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_script_that_can_not_be_loaded_says_why() {
    let script = Script::new("node-broken", "broken-node").await;
    let files = json!({"main.js": "const table = {};\nexports.f = () => table.missing.member(;\n"});
    apply(&script.manifest("", &node(&files))).await.unwrap();
    let status = script.wait_for_phase("DeploymentFailed").await;
    let text = status.to_string();
    assert!(
        text.contains("SyntaxError in main.js, line 2") && text.contains("table.missing.member(;"),
        "{text}"
    );
    let none = script.manifest("", &node(&json!({"main.py": "def f(): pass"})));
    let refused = apply(&none).await.unwrap_err();
    assert!(
        refused.contains("spec.source.inline needs a file main.js"),
        "{refused}"
    );

    // A new version with the error mended, and with no trace of the old one.
    let files = json!({"main.js": "exports.f = () => 'mended';"});
    script.deploy("", node(&files)).await;
    eventually("it answers", Duration::from_secs(20), || async {
        let answer = script.call("f", json!({})).await;
        (answer.body["result"] == "mended")
            .then_some(())
            .ok_or_else(|| format!("{answer:?}"))
    })
    .await;
}
