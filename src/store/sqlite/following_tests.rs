//! Pages of log lines that are read on, with whatever memory there is: the lines are those of pages by themselves.

use std::sync::Arc;

use jiff::Timestamp;

use super::SqliteStore;
use crate::{
    ingest::{
        record::{NewLine, Record},
        wire::{Position, StreamKey},
    },
    model::{Filter, LogLevel, LogLine, ScriptKey, TimeRange},
    store::{Append, LogQuery, PodRecord, Store, StoreSnapshot, read::OfScript},
};

const STREAMS: usize = 3;
const BATCHES: usize = 12;
const LINES: usize = 40;

/// Batches of several streams whose times overlap, each a segment of its own.
async fn fill(store: &Arc<dyn Store>, script: &ScriptKey) {
    let mut random = fastrand::Rng::with_seed(11);
    for stream in 0..STREAMS {
        let pod = PodRecord {
            uid: format!("u{stream}"),
            name: format!("pod-{stream}"),
            container: "script".into(),
            script: script.clone(),
            version: 1,
            deployment_id: "d".into(),
        };
        store.register_pod(&pod).await.unwrap();
        let key = StreamKey {
            namespace: script.namespace.clone(),
            pod: pod.name,
            pod_uid: pod.uid,
            container: pod.container,
            restart: 0,
        };
        let id = store.open_streams(&[key]).await.unwrap()[0].as_ref().unwrap().id;
        for batch in 0..BATCHES {
            let from = batch * LINES;
            let records = (0..LINES).map(|n| {
                // Many at one moment, and some long before or after their batch.
                let micros = (from + n) / 5 + random.usize(0..60);
                Record::Line(NewLine {
                    offset: (from + n) as u64,
                    index: 0,
                    time: Timestamp::from_microsecond(1_700_000_000_000_000).unwrap()
                        + jiff::SignedDuration::from_micros(i64::try_from(micros).unwrap()),
                    level: LogLevel::Stdout,
                    run_id: None,
                    message: format!("{stream} {batch} {n} {}", "x".repeat(random.usize(0..300))),
                    attributes: None,
                })
            });
            let records: Vec<Record> = records.collect();
            let append = Append {
                stream: id,
                expected_offset: from as u64,
                position: Position {
                    offset: (from + LINES) as u64,
                    file: "f".into(),
                    file_start: 0,
                },
                carry: vec![],
                records: records.into(),
                gap: None,
                last_word: None,
            };
            store.append(vec![append]).await.unwrap();
        }
    }
}

async fn all(snapshot: &mut dyn StoreSnapshot, mut query: LogQuery) -> Vec<LogLine> {
    let mut lines = Vec::new();
    loop {
        let page = snapshot.logs(&query).await.unwrap();
        lines.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return lines,
        }
    }
}

#[tokio::test]
async fn lines_are_the_same_with_any_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let sqlite = SqliteStore::open(&path).await.unwrap();
    let inner = Arc::clone(&sqlite.0);
    let store: Arc<dyn Store> = Arc::new(sqlite);
    let script = ScriptKey::new("shop", "pay");
    fill(&store, &script).await;
    let query = |limit| LogQuery {
        script: script.clone(),
        range: TimeRange::ALL,
        filter: Filter::default(),
        after: None,
        limit,
    };
    // The naive way: all at once, in one order.
    let mut expected = store.logs(&query(10_000)).await.unwrap().rows;
    assert_eq!(expected.len(), STREAMS * BATCHES * LINES);
    expected.sort_by_key(|line| std::cmp::Reverse((line.timestamp, line.log_id)));
    // From nothing over one segment and several to all of them: pages apart from the first on, later on, and never.
    for memory in [0, 10 << 10, 60 << 10, 200 << 10, 1 << 20, 96 << 20] {
        for limit in [1, 7, 100, 10_000] {
            if limit == 1 && memory > 0 && memory < 1 << 20 {
                continue;
            }
            let snapshot = inner.snapshot().await.unwrap();
            let mut of_script = OfScript::new(snapshot, Some(1)).with_memory(memory);
            let found = all(&mut of_script, query(limit)).await;
            assert!(
                found == expected,
                "{memory} bytes, pages of {limit}: {} lines",
                found.len()
            );
        }
    }
    store.close().await;
}
