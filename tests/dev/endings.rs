//! How the command ends, and what the next one finds.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::sleep;

use crate::harness::{Dev, MAIN, PATIENCE, project, texts};

#[tokio::test]
async fn a_database_goes_on_counting_and_no_run_stays_in_progress() {
    let folder = project(&[("main.py", MAIN)]);
    let kept = tempfile::tempdir().unwrap();
    let database = kept.path().join("runs.db");
    let arguments = ["--db", database.to_str().unwrap()];
    let dev = Dev::start(folder.path(), &arguments).ready().await;
    dev.call("greet", json!({"name": "ada"})).await;
    dev.interrupted();

    let dev = Dev::start(folder.path(), &arguments).ready().await;
    dev.says("Version 2 is ready").await;
    let url = format!("{}/functions/nap?mode=async", dev.functions);
    let body = json!({"seconds": 60});
    assert_eq!(dev.http.post(url).json(&body).send().await.unwrap().status(), 202);
    let limit = Instant::now() + PATIENCE;
    while dev.api("/runs").await["items"].as_array().unwrap().len() < 2 {
        assert!(Instant::now() < limit);
        sleep(Duration::from_millis(5)).await;
    }
    dev.signal(Signal::SIGKILL);
    dev.ended();

    let dev = Dev::start(folder.path(), &arguments).ready().await;
    dev.says("Version 3 is ready").await;
    let runs = dev.rows("/runs", 2).await;
    assert_eq!(texts(&runs, "reason"), ["LostContact", ""]);
    let deployments = dev.api("/deployments").await;
    let states = texts(deployments["items"].as_array().unwrap(), "state");
    assert_eq!(states, ["Deployed", "Undeployed", "Undeployed"]);
    dev.interrupted();
}

#[tokio::test]
async fn ctrl_c_lets_runs_end_and_loses_no_line() {
    let folder = project(&[("main.py", MAIN)]);
    let kept = tempfile::tempdir().unwrap();
    let database = kept.path().join("runs.db");
    let arguments = ["--db", database.to_str().unwrap()];
    let dev = Dev::start(folder.path(), &arguments).ready().await;
    let url = format!("{}/functions/nap", dev.functions);
    let http = dev.http.clone();
    let call = tokio::spawn(async move {
        http.post(url)
            .json(&json!({"seconds": 0.7}))
            .send()
            .await
            .unwrap()
            .status()
    });
    let limit = Instant::now() + PATIENCE;
    while dev.api("/runs").await["items"].as_array().unwrap().is_empty() {
        assert!(Instant::now() < limit);
        sleep(Duration::from_millis(5)).await;
    }
    let said = dev.interrupted();
    assert_eq!(call.await.unwrap(), 200);
    assert!(said.contains("after the nap"), "{said}");

    let dev = Dev::start(folder.path(), &arguments).ready().await;
    assert_eq!(dev.rows("/runs", 1).await[0]["status"], "Success");
    assert_eq!(
        texts(&dev.rows("/logs", 2).await, "message"),
        ["after the nap", "before the nap"]
    );

    // Twice, and what runs is cut with its reason.
    let url = format!("{}/functions/nap?mode=async", dev.functions);
    assert_eq!(
        dev.http
            .post(url)
            .json(&json!({"seconds": 60}))
            .send()
            .await
            .unwrap()
            .status(),
        202
    );
    let limit = Instant::now() + PATIENCE;
    while dev.api("/runs").await["items"].as_array().unwrap().len() < 2 {
        assert!(Instant::now() < limit);
        sleep(Duration::from_millis(5)).await;
    }
    dev.signal(Signal::SIGINT);
    dev.says("Ctrl-C again").await;
    dev.signal(Signal::SIGINT);
    let scratch = dev.scratch.path().to_owned();
    let (status, said) = dev.ended_in(&scratch);
    assert_eq!(status.code(), Some(130), "{said}");
    let dev = Dev::start(folder.path(), &arguments).ready().await;
    let runs = dev.rows("/runs", 2).await;
    assert_eq!(texts(&runs, "reason"), ["Undeployed", ""]);
    dev.interrupted();
}
