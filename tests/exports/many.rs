//! Twenty users at once, each with another question.

use std::time::Instant;

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use futures::future;
use http_body_util::BodyExt;
use scriptscope::export::csv::milliseconds;
use serde_json::{Value, json};

use crate::{
    ROWS,
    bed::{Controller, folder, log_store, logs},
    cluster::{Cluster, EVERYWHERE, export},
    operator::start,
    site::{PAY, Site},
    store,
};

const USERS: i64 = 20;
/// Downloads straight from the store that there can be at once.
const DOWNLOADS: usize = 24;

/// What the user asks for: runs that took at least so many microseconds. Those of the store took 0, 1, 2 and so on.
fn least(user: i64) -> i64 {
    user * 61
}

/// The file has each run of the question once, and no other.
fn assert_right(user: i64, csv: &[u8]) {
    let mut reader = csv::Reader::from_reader(csv);
    let mut found: Vec<i64> = reader
        .records()
        .map(|record| record.unwrap()[0].strip_prefix("run-").unwrap().parse().unwrap())
        .collect();
    found.sort_unstable();
    let expected: Vec<i64> = (least(user)..ROWS).collect();
    assert_eq!(found, expected, "user {user}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_users_get_each_their_own_rows() {
    let data = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(EVERYWHERE, Vec::new());
    let store = store(&data).await;
    let site = Site::new(store.clone(), data.path());
    let controller = Controller::start(&cluster, store, &data);
    let question = |user| {
        let least = milliseconds(least(user));
        json!([{"column": "Response Time", "operator": "AtLeast", "values": [least]}])
    };
    for user in 0..USERS {
        let mut spec = logs(&json!({"filters": question(user)}));
        spec["data"] = json!("Runs");
        cluster.create(&export(&format!("user-{user}"), &spec, Value::Null));
    }
    let downloads = (0..USERS).map(|user| {
        let site = &site;
        async move {
            let filter = json!({"match": "All", "conditions": question(user)}).to_string();
            let base = format!("http://site{PAY}/runs.csv");
            let url = reqwest::Url::parse_with_params(&base, [("filter", filter)]).unwrap();
            let path = format!("{}?{}", url.path(), url.query().unwrap());
            assert_right(user, &site.body(&path).await);
        }
    });
    future::join_all(downloads).await;
    for user in 0..USERS {
        let name = format!("user-{user}");
        cluster.until(&name, |c| c.has_ended(&name)).await;
        let status = cluster.status(&name);
        assert_eq!(status["phase"], "Succeeded", "{status}");
        let file = folder(data.path(), &name).join("pay_runs_data.csv");
        assert_right(user, &std::fs::read(file).unwrap());
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_nobody_reads_keep_no_other_waiting_until_there_are_too_many() {
    let data = tempfile::tempdir().unwrap();
    let store = log_store(6_000, &data).await;
    let site = Site::new(store, data.path());
    let path = format!("{PAY}/logs.csv?last=1d");
    let mut unread: Vec<Response<Body>> = Vec::new();
    for _ in 1..DOWNLOADS {
        let answer = site.ask(&path).await;
        assert_eq!(answer.status(), StatusCode::OK);
        unread.push(answer);
    }
    // The last one is read to its end though the others stand.
    let whole = site.body(&path).await;
    assert_eq!(csv::Reader::from_reader(&*whole).records().count(), 6_000);
    unread.push(site.ask(&path).await);
    let refused = site.ask(&path).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(
        text.starts_with(b"{\"error\":{\"code\":\"TooManyDownloads\""),
        "{text:?}"
    );
    // One that began is read on, whole, and the same.
    let first = unread.swap_remove(0).into_body().collect().await.unwrap();
    assert!(first.to_bytes() == whole);
}

/// The largest resident memory of a process so far, bytes.
fn max_rss_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn nineteen_large_exports_get_on_alike_and_keep_no_small_one_waiting() {
    const LARGE: usize = 19;
    const LINES: i64 = 8_000;
    const MOST_MEMORY: u64 = 640 << 20; // of a build without optimisation, that gives nothing back
    let data = tempfile::tempdir().unwrap();
    log_store(LINES, &data).await.close().await;
    let large = |n: usize| format!("large-{n}");
    let zstd = logs(&json!({"compression": "Zstd"}));
    let objects = (0..LARGE).map(|n| export(&large(n), &zstd, Value::Null));
    let cluster = Cluster::new(EVERYWHERE, objects.collect());
    let began = Instant::now();
    let operator = start(cluster.serve().await, data.path());
    let ended = |c: &Cluster| (0..LARGE).filter(|n| c.has_ended(&large(*n))).count();
    cluster
        .until("all have begun", |c| {
            (0..LARGE).all(|n| c.status(&large(n))["phase"] == "Running" || c.has_ended(&large(n)))
        })
        .await;
    assert!(ended(&cluster) < LARGE / 2, "they take turns");
    let none = json!({"filters": [{"column": "Run ID", "operator": "Equals", "values": ["nobody"]}]});
    cluster.create(&export("small", &logs(&none), Value::Null));
    cluster.until("the small one", |c| c.has_ended("small")).await;
    assert!(ended(&cluster) < LARGE, "it has not waited for them all");
    cluster.until("the first large one", |c| ended(c) > 0).await;
    let first = began.elapsed();
    cluster.until("all", |c| ended(c) == LARGE).await;
    let last = began.elapsed();
    for n in 0..LARGE {
        assert_eq!(cluster.status(&large(n))["artifact"]["rows"], LINES);
    }
    let memory = max_rss_bytes(operator.0.id());
    println!("first {first:?}, last {last:?}, {} MiB", memory >> 20);
    assert!(last < first * 3, "{first:?} and {last:?}");
    assert!(memory < MOST_MEMORY, "{} MiB", memory >> 20);
}
