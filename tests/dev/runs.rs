//! Runs and who may start them.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use reqwest::header::HeaderMap;
use serde_json::json;
use tokio::time::sleep;

use crate::harness::{Dev, MAIN, PATIENCE, project, texts};

#[tokio::test]
async fn a_run_is_answered_shown_and_stored() {
    let folder = project(&[("main.py", MAIN)]);
    let dev = Dev::start(folder.path(), &["--env", "PLACE=here"]).ready().await;
    let answer = dev.call("greet", json!({"name": "ada"})).await;
    assert_eq!(
        (&answer["status"], &answer["result"]),
        (&json!("Success"), &json!("hello, ada"))
    );
    let failed = dev.call("fail", json!({})).await;

    let runs = dev.rows("/runs", 2).await;
    assert_eq!(texts(&runs, "function"), ["fail", "greet"]);
    assert_eq!(runs[1]["runId"], answer["runId"]);
    let lines = dev.rows("/logs", 2).await;
    assert_eq!(
        texts(&lines, "message"),
        ["printed\u{1b}[2J for ada", "greeting ada"]
    );
    assert_eq!(texts(&lines, "level"), ["Stdout", "Info"]);
    let figures = dev.api("").await;
    assert_eq!(
        (&figures["phase"], &figures["version"]),
        (&json!("Deployed"), &json!(1))
    );

    let run_id = failed["runId"].as_str().unwrap();
    dev.says(run_id).await;
    let said = dev.interrupted();
    assert!(said.contains("  Info     greeting ada\n"), "{said}");
    assert!(said.contains("  Stdout   printed\\u{1b}[2J for ada\n"), "{said}");
    assert!(said.contains("  Success  greet  v1  "), "{said}");
    let line = said.lines().find(|line| line.contains(run_id)).unwrap();
    assert!(
        line.contains("  Failed   fail  v1  ") && line.ends_with("  ValueError: no such account"),
        "{line}"
    );
    // No terminal, no colours; and what the script prints moves no cursor.
    assert!(!said.contains('\u{1b}'), "{said}");
    assert!(
        said.contains(r#"curl --json '{"name":"name"}' http://127.0.0.1:"#),
        "{said}"
    );
}

#[tokio::test]
async fn other_sites_are_not_let_in() {
    let folder = project(&[("main.py", MAIN)]);
    let dev = Dev::start(folder.path(), &[]).ready().await;
    for (place, path) in [
        (&dev.site, "/api/v1/scripts"),
        (&dev.site, "/"),
        (&dev.functions, "/functions"),
    ] {
        for (name, value) in [
            ("host", "evil.example"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let asked = dev.http.get(format!("{place}{path}")).headers(headers);
            assert_eq!(
                asked.send().await.unwrap().status(),
                403,
                "{place}{path} {name}: {value}"
            );
        }
        assert_eq!(
            dev.http
                .get(format!("{place}{path}"))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
    let internal = dev
        .http
        .post(format!("{}/internal/stored", dev.functions))
        .body("x");
    assert_eq!(internal.send().await.unwrap().status(), 404);
    dev.interrupted();
}

const ENDS: &str = r#"
import os, signal, time

def end(path):
    with open(path + ".pid", "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(path):
        time.sleep(0.01)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)

def greet():
    return "hello"
"#;

#[tokio::test]
async fn a_runner_that_ends_by_itself_is_started_again() {
    let folder = project(&[("main.py", ENDS)]);
    let other = tempfile::tempdir().unwrap();
    let word = other.path().join("now");
    let dev = Dev::start(folder.path(), &[]).ready().await;
    let url = format!("{}/functions/end?mode=async", dev.functions);
    let begun = dev.http.post(url).json(&json!({ "path": word })).send().await;
    assert_eq!(begun.unwrap().status(), 202);
    let limit = Instant::now() + PATIENCE;
    while dev.api("/runs").await["items"].as_array().unwrap().is_empty() {
        assert!(Instant::now() < limit);
        sleep(Duration::from_millis(5)).await;
    }
    let pid = dev
        .until(|_| {
            let pid = fs::read_to_string(other.path().join("now.pid")).ok();
            pid.filter(|pid| !pid.is_empty())
        })
        .await;
    fs::write(&word, "").unwrap();
    dev.says("The runner of version 1 ended by itself").await;
    assert_eq!(dev.call("greet", json!({})).await["result"], "hello");
    let runs = dev.rows("/runs", 2).await;
    assert_eq!(texts(&runs, "reason"), ["", "LostContact"]);
    // What ran is no more, though nobody was left who could end it.
    // An init that is slow to take its leave may still list it, without a command line.
    let command = Path::new("/proc").join(pid).join("cmdline");
    assert_eq!(fs::read(command).unwrap_or_default(), b"");
    dev.interrupted();
}
