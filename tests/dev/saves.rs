//! What a save does.

use std::{
    ffi::OsString,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{Dev, MAIN, PATIENCE, project};

#[tokio::test]
async fn a_save_is_the_next_version_and_a_broken_one_takes_nothing_away() {
    let folder = project(&[("main.py", MAIN)]);
    let dev = Dev::start(folder.path(), &[]).ready().await;
    let main = folder.path().join("main.py");
    fs::write(&main, MAIN.replace("hello, ", "hi, ")).unwrap();
    dev.says("Version 2 is ready").await;
    assert_eq!(
        dev.call("greet", json!({"name": "ada"})).await["result"],
        "hi, ada"
    );

    // In a folder that is new, too.
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(folder.path().join("lib/words.py"), "def oops(:").unwrap();
    fs::write(&main, format!("from lib import words\n{MAIN}")).unwrap();
    dev.says("version 2 still serves").await;
    dev.says("SyntaxError in lib/words.py, line 1").await;
    assert_eq!(
        dev.call("greet", json!({"name": "ada"})).await["result"],
        "hi, ada"
    );

    fs::write(folder.path().join("lib/words.py"), "WORD = 'hey, '").unwrap();
    let served = |versions: &Value| {
        let items = versions["items"].as_array().unwrap().clone();
        items
            .iter()
            .find(|item| item["state"] == "Deployed" && item["version"].as_i64() > Some(2))
            .cloned()
    };
    let limit = Instant::now() + PATIENCE;
    while served(&dev.api("/deployments").await).is_none() {
        assert!(Instant::now() < limit, "{}", dev.said());
        sleep(Duration::from_millis(10)).await;
    }
    let items = dev.api("/deployments").await["items"].as_array().unwrap().clone();
    let failed = items.iter().find(|item| item["state"] == "Failed").unwrap();
    assert!(
        failed["reason"].as_str().unwrap().contains("SyntaxError"),
        "{failed}"
    );
    let numbers: Vec<i64> = items
        .iter()
        .rev()
        .map(|item| item["version"].as_i64().unwrap())
        .collect();
    assert_eq!(
        numbers,
        (1..=i64::try_from(numbers.len()).unwrap()).collect::<Vec<_>>()
    );
    dev.call("greet", json!({"name": "ada"})).await;
    let runs = dev.rows("/runs", 3).await;
    let versions: Vec<&Value> = runs.iter().map(|run| &run["deploymentVersion"]).collect();
    assert!(
        versions[0].as_i64() > Some(2) && versions[1..] == [&json!(2), &json!(2)],
        "{versions:?}"
    );
    // Neither was anything written into the author's folder, nor is it what editors leave there a save.
    let before = dev.api("/deployments").await["items"].as_array().unwrap().len();
    fs::write(folder.path().join(".main.py.swp"), "x").unwrap();
    fs::write(&main, fs::read_to_string(&main).unwrap()).unwrap();
    let names: Vec<OsString> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    dev.call("greet", json!({"name": "ada"})).await;
    assert_eq!(
        dev.api("/deployments").await["items"].as_array().unwrap().len(),
        before
    );
    dev.interrupted();
}

#[tokio::test]
async fn a_script_that_is_broken_from_the_start_is_served_once_it_is_mended() {
    let folder = project(&[("main.js", "exports.greet = (")]);
    let mut dev = Dev::start(folder.path(), &[]);
    dev.says("Version 1 can not be used; it is tried again with the next save.")
        .await;
    fs::write(
        folder.path().join("main.js"),
        "exports.greet = ({ name }) => `hello, ${name}`;",
    )
    .unwrap();
    dev = dev.ready().await;
    assert_eq!(
        dev.call("greet", json!({"name": "ada"})).await["result"],
        "hello, ada"
    );
    dev.interrupted();
}

#[tokio::test]
async fn calls_never_fail_while_versions_change() {
    let folder = project(&[("main.py", MAIN)]);
    let dev = Arc::new(Dev::start(folder.path(), &["--concurrency=2"]).ready().await);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..2)
        .map(|caller| {
            let (dev, stop) = (Arc::clone(&dev), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = dev.try_call("nap", json!({"seconds": 0.02})).await;
                    assert_eq!(status, 200, "{caller}: {body}");
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for version in 2..=4 {
        fs::write(folder.path().join("main.py"), format!("{MAIN}\n# {version}\n")).unwrap();
        dev.says(&format!("Version {version} is ready")).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.unwrap();
    }
    let rows = dev.rows("/runs?limit=1000", calls).await;
    assert_eq!(rows.len(), calls);
    assert!(rows.iter().all(|run| run["status"] == "Success"));
    Arc::into_inner(dev).unwrap().interrupted();
}
