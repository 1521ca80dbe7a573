//! The command of users, with the cluster's kubeconfig, through the API server's port-forward.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::harness::{SYSTEM, Script, apply, eventually, kubectl};

const MAIN: &str = r"
import korelogger

def greet(name):
    korelogger.info('greeting', who=name)
    print('hello', name)
    return {'greeting': 'hello ' + name}

def fails():
    raise ValueError('no luck')
";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scriptscope"));
    command
        .args(arguments)
        .args(["--system-namespace", SYSTEM])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn try_run(arguments: &[&str]) -> Result<String, String> {
    let output = command(arguments).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{:?}: {}", output.status.code(), text(&output.stderr)))
    }
}

async fn run(arguments: &[&str]) -> String {
    try_run(arguments)
        .await
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// With the kubeconfig of the cluster's administrator, whose user has a client certificate.
#[tokio::test(flavor = "multi_thread")]
async fn runs_logs_and_figures_are_read_through_the_tunnel() {
    let script = Script::new("cli", "greeter").await;
    script.deploy(MAIN, json!({})).await;
    let at = ["-n", &script.namespace];
    let with = |arguments: &[&'static str]| -> Vec<String> {
        arguments.iter().copied().chain(at).map(str::to_owned).collect()
    };
    let say = async |arguments: &[&'static str]| {
        let all = with(arguments);
        run(&all.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let mut follow = command(&["logs", "greeter", "-f", "-o", "json", "-n", &script.namespace])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();

    let result: Value =
        serde_json::from_str(&say(&["invoke", "greeter", "greet", "--arg", "name=Ada"]).await).unwrap();
    assert_eq!(result, json!({"greeting": "hello Ada"}));
    let failed = try_run(&["invoke", "greeter", "fails", "-n", &script.namespace])
        .await
        .unwrap_err();
    assert!(
        failed.starts_with("Some(1)") && failed.contains("ValueError: no luck"),
        "{failed}"
    );

    let live = timeout(Duration::from_secs(30), async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it goes on");
            if line.contains("greeting") {
                return line;
            }
        }
    });
    let live: Value = serde_json::from_str(&live.await.expect("a line comes live")).unwrap();
    assert_eq!(live["level"], "Info");
    follow.kill().await.unwrap();

    let ran = eventually("both runs are stored", Duration::from_secs(30), || async {
        let text = say(&["runs", "greeter", "-o", "json"]).await;
        let json: Value = serde_json::from_str(&text).unwrap();
        let ended = |run: &&Value| run["status"] != "In Progress";
        match json["items"].as_array().unwrap().iter().filter(ended).count() {
            2 => Ok(json),
            _ => Err(text),
        }
    })
    .await;
    assert_eq!(ran["items"][0]["sourceType"], "Test");
    let id = ran["items"][1]["runId"].as_str().unwrap();
    let shown = run(&["run", "greeter", id, "-n", &script.namespace]).await;
    assert!(
        shown.contains("\"greeting\": \"hello Ada\"") && shown.contains("hello Ada"),
        "{shown}"
    );
    assert!(say(&["stats", "greeter"]).await.contains("50.00%"));
    assert!(
        say(&["logs", "greeter", "--level", "stdout"])
            .await
            .contains("hello Ada")
    );
    assert!(
        say(&["export", "greeter", "runs"])
            .await
            .starts_with("Run ID,Status,")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_a_new_version_with_the_old_source() {
    let script = Script::new("rollback", "pay").await;
    script
        .deploy("def f():\n    return 'old'\n", json!({"timeoutSeconds": 7}))
        .await;
    script
        .deploy("def f():\n    return 'new'\n", json!({"timeoutSeconds": 9}))
        .await;
    let namespace = script.namespace.as_str();
    let refused = try_run(&["rollback", "pay", "--to", "2", "-n", namespace])
        .await
        .unwrap_err();
    assert!(refused.contains("this is the current version"), "{refused}");
    let refused = try_run(&["rollback", "pay", "--to", "9", "-n", namespace])
        .await
        .unwrap_err();
    assert!(refused.contains("never existed; the latest is 2"), "{refused}");
    run(&["rollback", "pay", "--to", "1", "-n", namespace]).await;
    eventually("version 3 serves", Duration::from_secs(90), || async {
        let status = script.object().await["status"].clone();
        if status["version"] == 3 && status["phase"] == "Deployed" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    assert_eq!(script.object().await["spec"]["timeoutSeconds"], 7);
    assert_eq!(
        run(&["invoke", "pay", "f", "-n", namespace]).await.trim(),
        "\"old\""
    );
    let versions = run(&["versions", "pay", "-n", namespace]).await;
    let third = versions.lines().nth(1).unwrap();
    assert!(
        third.contains("(claimed, by scriptscope-rollback)")
            && third.contains("rollback to 1: source.inline.main.py, timeoutSeconds"),
        "{versions}"
    );
    assert!(
        versions.lines().nth(3).unwrap().contains("first deployment"),
        "{versions}"
    );
    let shown = run(&["versions", "pay", "3", "-n", namespace]).await;
    assert!(
        shown.contains("-    return 'new'\n+    return 'old'\n"),
        "{shown}"
    );
    // What somebody changes later is not said to be this user's.
    script.patch(&json!({"spec": {"timeoutSeconds": 8}})).await;
    let later = eventually("version 4 begins", Duration::from_secs(60), || async {
        let status = script.object().await["status"].clone();
        match status["deployments"][0].clone() {
            latest if latest["version"] == 4 && !latest["change"].is_null() => Ok(latest),
            latest => Err(latest.to_string()),
        }
    })
    .await;
    assert_eq!(
        later["change"],
        json!({"cause": "spec changed", "fields": ["timeoutSeconds"]})
    );
    assert_eq!(later["changedBy"], "kubectl-patch");
}

/// With the token of a service account that may read one namespace and use the tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_sees_its_namespace_as_itself() {
    let mine = Script::new("climine", "open").await;
    let name = mine.namespace.clone();
    mine.deploy(MAIN, json!({})).await;
    mine.call("greet", json!({"name": "x"})).await;
    let binding = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": name}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader", "namespace": name},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scriptscope-viewer"},
         "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": name}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name, "namespace": SYSTEM},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "scriptscope-cli"},
         "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": name}]}]});
    apply(&binding).await.unwrap();
    let token = kubectl(&["-n", &name, "create", "token", "reader"]).await;
    let config = kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]).await;
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("config");
    std::fs::write(&file, config.to_string()).unwrap();
    let file = file.to_str().unwrap();
    eventually("its run is seen", Duration::from_secs(30), || async {
        let text = try_run(&["runs", "open", "-n", &name, "--kubeconfig", file]).await?;
        if text.contains("greet") { Ok(()) } else { Err(text) }
    })
    .await;
    let refused = try_run(&["runs", "open", "-n", "default", "--kubeconfig", file])
        .await
        .unwrap_err();
    assert!(
        refused.contains(&format!(
            "system:serviceaccount:{name}:reader needs get on customscripts/runs"
        )),
        "{refused}"
    );
    kubectl(&["-n", SYSTEM, "delete", "rolebinding", &name]).await;
}
