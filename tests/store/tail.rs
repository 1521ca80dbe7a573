//! Following a log: what was stored between two positions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fastrand::Rng;
use scriptscope::{
    ingest::{parse::Parser, record::Record},
    model::{Filter, LogLine, TimeRange},
    store::{Append, LogCursor, LogPosition, Store, TailQuery},
};

use crate::support::{Backend, Feed, at, line, position, script};

/// A reader as the web server is one.
struct Reader {
    store: Arc<dyn Store>,
    after: LogPosition,
    skip: BTreeSet<i64>,
    seen: BTreeMap<String, u32>,
    limit: usize,
}

impl Reader {
    async fn new(store: &Arc<dyn Store>, limit: usize) -> Self {
        Self {
            store: Arc::clone(store),
            after: store.log_position(&script("a")).await.unwrap(),
            skip: BTreeSet::new(),
            seen: BTreeMap::new(),
            limit,
        }
    }

    /// Everything that is there by now; the lines.
    async fn read(&mut self) -> Vec<LogLine> {
        let upto = self.store.log_position(&script("a")).await.unwrap();
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let query = TailQuery {
                script: script("a"),
                range: TimeRange::ALL,
                filter: Filter::default(),
                after: self.after.clone(),
                upto: upto.clone(),
                from,
                limit: self.limit,
                skip: Arc::new(self.skip.clone()),
            };
            let tail = self.store.logs_between(&query).await.unwrap();
            assert!(tail.rows.len() <= self.limit);
            all.extend(tail.rows);
            if tail.more {
                from = all.last().map(|line: &LogLine| LogCursor {
                    timestamp: line.timestamp,
                    log_id: line.log_id,
                });
                continue;
            }
            self.skip.extend(tail.complete);
            self.after = upto;
            if let Some(first) = tail.incomplete {
                self.after.segment = self.after.segment.min(first - 1);
            }
            break;
        }
        assert!(all.is_sorted_by_key(|line| (line.timestamp, line.log_id)));
        for line in &all {
            *self.seen.entry(line.message.clone()).or_default() += 1;
        }
        all
    }
}

pub async fn a_follower_gets_each_line_once(backend: &impl Backend) {
    let store = backend.open().await;
    let mut random = Rng::with_seed(7);
    let mut before = Feed::open(&store, &script("a"), "before", 1).await;
    before.send(vec![Record::Line(line(0, 5, "from before"))]).await;
    let mut eager = Reader::new(&store, 3).await;
    let mut lazy = Reader::new(&store, 50).await;
    let mut expected = BTreeMap::new();
    let mut feeds: Vec<Feed> = Vec::new();
    // Enough commits to merge more than once while it is followed.
    for n in 0..120 {
        if n % 40 == 0 {
            feeds.push(Feed::open(&store, &script("a"), &format!("u{n}"), 1).await);
        }
        for (f, feed) in feeds.iter_mut().enumerate() {
            let message = format!("{n} of {f}");
            // Times far out of order.
            let new = line(feed.offset, random.i64(0..1_000_000), &message);
            feed.send(vec![Record::Line(new)]).await;
            expected.insert(message, 1);
        }
        if n % 3 == 0 {
            eager.read().await;
        }
    }
    eager.read().await;
    lazy.read().await;
    assert_eq!(eager.seen, expected);
    assert_eq!(lazy.seen, expected);
    assert!(eager.read().await.is_empty());
}

pub async fn a_record_that_ends_late_is_followed(backend: &impl Backend) {
    let store = backend.open().await;
    let mut feed = Feed::open(&store, &script("a"), "u", 1).await;
    let mut reader = Reader::new(&store, 100).await;
    // The runtime cut a line of standard output in two; one of standard error comes in between.
    let mut carry = Vec::new();
    let mut messages = Vec::new();
    for bytes in [
        "2026-01-01T00:00:00.000000001Z stdout P begun, \n",
        "2026-01-01T00:00:00.000000002Z stderr F in between\n",
        "2026-01-01T00:00:00.000000003Z stdout F ended\n",
    ] {
        let mut parser = Parser::resume(&carry, feed.offset, at(0)).unwrap();
        parser.feed(&bytes.into());
        let parsed = parser.finish();
        let append = Append {
            position: position(parsed.offset),
            carry: parsed.carry.clone(),
            records: parsed.records,
            ..feed.append(Vec::new())
        };
        store.append(vec![append]).await.unwrap();
        (carry, feed.offset) = (parsed.carry, parsed.offset);
        messages.push(
            reader
                .read()
                .await
                .into_iter()
                .map(|l| l.message)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(messages.concat(), ["begun, ended", "in between"]);
    assert!(reader.read().await.is_empty());
}
