//! Snapshots: what is read at length is of one moment.

use std::sync::Arc;

use scriptscope::{
    ingest::record::Record,
    model::{Filter, LogLine, RunDetail, RunStatus},
    store::{Budget, LogQuery, RunParts, RunQuery, StoreSnapshot},
};

use crate::support::{
    Backend, Feed, all_lines, all_runs, at, finished, line, log_query, run, run_query, script,
};

const RUNS: i64 = 20;

/// Every run of a snapshot, page by page, newest first.
async fn runs_of(snapshot: &mut dyn StoreSnapshot, mut query: RunQuery) -> Vec<RunDetail> {
    let mut all = Vec::new();
    loop {
        let page = snapshot.runs(&query, RunParts::WithPayloads).await.unwrap();
        all.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}

/// Every line that a query finds, page by page, each read on where the one before ended.
pub async fn lines_of(snapshot: &mut dyn StoreSnapshot, mut query: LogQuery) -> Vec<LogLine> {
    let mut all = Vec::new();
    loop {
        let page = snapshot.logs(&query).await.unwrap();
        all.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}

pub async fn a_snapshot_stays_what_it_was_while_everything_changes(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    for n in 0..RUNS {
        let mut records: Vec<Record> = run(&format!("run_{n:02}"), n * 10, 5, RunStatus::Failed).into();
        if n == 3 {
            // Still in progress.
            records.truncate(1);
        }
        let offset = feed.offset;
        records.push(Record::Line(line(offset, n * 10, &format!("line {n:02}"))));
        feed.send(records).await;
    }
    let mut snapshot = store.snapshot(&a).await.unwrap();
    let (mut runs, mut lines) = (run_query(&a, Filter::default()), log_query(&a, Filter::default()));
    (runs.limit, lines.limit) = (4, 4);
    let first = snapshot.runs(&runs, RunParts::All).await.unwrap();
    assert_eq!(first.rows.len(), 4);

    // One ends, one comes late, amid the others, and then all goes.
    feed.send(vec![
        Record::RunFinished(finished("run_03", at(500), 470, RunStatus::Success)),
        Record::Line(line(feed.offset, 15, "late")),
    ])
    .await;
    feed.send(run("late", 15, 5, RunStatus::Success).into()).await;
    let now = all_runs(&store, runs.clone()).await;
    assert_eq!(now.len(), 21);
    while store
        .purge(&a, at(1_000_000), Budget { rows: 7, bytes: 1 })
        .await
        .unwrap()
        .more
    {}
    assert!(all_runs(&store, runs.clone()).await.is_empty());
    assert!(all_lines(&store, lines.clone()).await.is_empty());

    let found = runs_of(&mut *snapshot, runs.clone()).await;
    let ids: Vec<&str> = found.iter().map(|r| r.run.run_id.as_str()).collect();
    let expected: Vec<String> = (0..RUNS).rev().map(|n| format!("run_{n:02}")).collect();
    assert_eq!(ids, expected);
    for detail in &found {
        let is_open = detail.run.run_id == "run_03";
        assert_eq!(detail.run.status == RunStatus::InProgress, is_open);
        assert_eq!(
            detail.error.is_none(),
            is_open,
            "what is kept apart is of the same moment"
        );
    }
    let texts: Vec<String> = lines_of(&mut *snapshot, lines.clone())
        .await
        .into_iter()
        .map(|l| l.message)
        .collect();
    let expected: Vec<String> = (0..RUNS).rev().map(|n| format!("line {n:02}")).collect();
    assert_eq!(texts, expected);
    drop(snapshot);
    let mut later = store.snapshot(&a).await.unwrap();
    assert!(runs_of(&mut *later, runs).await.is_empty());
    let mut of_nobody = store.snapshot(&script("nobody")).await.unwrap();
    assert!(lines_of(&mut *of_nobody, lines).await.is_empty());
}

pub async fn pages_of_long_rows_end_early(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let long: Arc<str> = "x".repeat(1 << 20).into();
    for n in 0..20 {
        let offset = feed.offset;
        feed.send(vec![Record::Line(line(offset, n, &format!("{n:02}{long}")))])
            .await;
    }
    let mut query = log_query(&a, Filter::default());
    let page = store.logs(&query).await.unwrap();
    assert!((1..20).contains(&page.rows.len()), "{} lines", page.rows.len());
    query.limit = 1_000;
    let mut snapshot = store.snapshot(&a).await.unwrap();
    let found: Vec<String> = lines_of(&mut *snapshot, query)
        .await
        .into_iter()
        .map(|l| l.message[..2].to_owned())
        .collect();
    let expected: Vec<String> = (0..20).rev().map(|n| format!("{n:02}")).collect();
    assert_eq!(found, expected);
}
