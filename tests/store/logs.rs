//! Log lines: segments that overlap, merging, the lines of one run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use scriptscope::{
    ingest::record::Record,
    model::{Column, Filter, LogLine, Operator},
    store::Store,
};

use crate::support::{Backend, Feed, all_lines, filter, line, log_query, script};

/// Stores lines of several streams with times far out of order, many of them equal.
async fn store_shuffled(store: &Arc<dyn Store>, commits: u32, lines: u64) -> usize {
    let mut random = Rng::with_seed(5);
    let a = script("a");
    let mut feeds = Vec::new();
    for uid in ["u1", "u2", "u3"] {
        feeds.push(Feed::open(store, &a, uid, 1).await);
    }
    let mut total = 0;
    for n in 0..commits {
        for feed in &mut feeds {
            let offset = feed.offset;
            let records = (0..lines)
                .map(|k| {
                    total += 1;
                    let mut new = line(
                        offset + k,
                        i64::from(n) * 10 + random.i64(0..200),
                        &format!("{n} {k}"),
                    );
                    new.run_id = Some(format!("run_{n}"));
                    Record::Line(new)
                })
                .collect();
            feed.send(records).await;
        }
    }
    total
}

fn assert_ordered(lines: &[LogLine]) {
    let ordered = lines
        .windows(2)
        .all(|w| (w[0].timestamp, w[0].log_id) > (w[1].timestamp, w[1].log_id));
    assert!(ordered, "out of order or twice");
}

pub async fn pages_across_overlapping_segments_give_each_line_once(backend: &impl Backend) {
    let store = backend.open().await;
    let total = store_shuffled(&store, 6, 9).await;
    let mut whole = None;
    for limit in [1, 13, total, total + 1] {
        let mut query = log_query(&script("a"), Filter::default());
        query.limit = limit;
        let lines = all_lines(&store, query).await;
        assert_eq!(lines.len(), total);
        assert_ordered(&lines);
        assert_eq!(whole.get_or_insert_with(|| lines.clone()), &lines);
    }
}

pub async fn lines_of_one_moment_are_ordered_by_their_ids(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut lower = Feed::open(&store, &a, "u1", 1).await;
    let mut higher = Feed::open(&store, &a, "u2", 1).await;
    let two = |text: &str| vec![Record::Line(line(0, 5, text)), Record::Line(line(1, 5, text))];
    // The segment stored last is read first and fills the page, yet the other one's lines come before it.
    higher.send(two("higher")).await;
    lower.send(two("lower")).await;
    let mut query = log_query(&a, Filter::default());
    query.limit = 1;
    let lines = all_lines(&store, query).await;
    assert_eq!(
        lines.iter().map(|l| l.message.as_str()).collect::<Vec<_>>(),
        ["higher", "higher", "lower", "lower"]
    );
}

pub async fn merging_keeps_every_line(backend: &impl Backend) {
    let store = backend.open().await;
    // More than enough commits to merge twice; the store merges while it is read.
    let mut reader = log_query(&script("a"), Filter::default());
    reader.limit = 500;
    let total = store_shuffled(&store, 100, 2).await;
    for _ in 0..3 {
        let lines = all_lines(&store, reader.clone()).await;
        assert_eq!(lines.len(), total);
        assert_ordered(&lines);
    }
    store.close().await;
    drop(store);
    let store = backend.open().await;
    assert_eq!(all_lines(&store, reader).await.len(), total);
    assert_eq!(
        usize::try_from(store.figures(&script("a")).await.unwrap().total_logs).unwrap(),
        total
    );
}

pub async fn lines_of_one_run_are_found(backend: &impl Backend) {
    let store = backend.open().await;
    store_shuffled(&store, 30, 2).await;
    for n in [0, 17, 29] {
        let of_run = filter(Column::RunId, Operator::Equals, &[&format!("run_{n}")]);
        let lines = all_lines(&store, log_query(&script("a"), of_run)).await;
        assert_eq!(lines.len(), 6);
        assert!(lines.iter().all(|l| l.message.starts_with(&format!("{n} "))));
    }
    let none = filter(Column::RunId, Operator::Equals, &["run_99"]);
    assert!(all_lines(&store, log_query(&script("a"), none)).await.is_empty());
}

/// `indexed` says of how many segments it is written down which texts they may have.
pub async fn texts_are_found_before_and_after_they_are_indexed(
    backend: &impl Backend,
    indexed: impl AsyncFn() -> i64,
) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let offset = feed.offset;
    let lines = (0..20_000).map(|n| {
        let text = format!("Order {n:07} of customer {} was shipped", n % 100);
        Record::Line(line(offset + n, 0, &text))
    });
    feed.send(lines.collect()).await;
    let found = async |text: &str| {
        let contains = filter(Column::LogMessage, Operator::Contains, &[text]);
        all_lines(&store, log_query(&a, contains)).await.len()
    };
    let texts = [
        ("0012345 OF", 1),
        ("customer 42 ", 200),
        ("refused by peer", 0),
        ("der 00000", 100),
    ];
    for (text, expected) in texts {
        assert_eq!(found(text).await, expected, "{text:?}, not indexed");
    }
    let deadline = Instant::now() + Duration::from_mins(1);
    while indexed().await == 0 {
        assert!(Instant::now() < deadline, "no segment was indexed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (text, expected) in texts {
        assert_eq!(found(text).await, expected, "{text:?}, indexed");
    }
}
