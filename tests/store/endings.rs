//! How streams end, and what could not be read of them.

use std::sync::Arc;

use scriptscope::{
    ingest::record::Record,
    model::{LogGap, ScriptKey, TimeRange},
    store::{Append, AppendOutcome, Gap, LastWord, POD_ENDED_UNREAD, SettlePod, Store, StreamProgress},
};

use crate::support::{Backend, Feed, at, line, pod, position, script, stream_key};

async fn commit(feed: &mut Feed, append: Append) {
    let outcome = feed.store.append(vec![append]).await.unwrap();
    feed.offset += 1_000;
    assert_eq!(outcome, [AppendOutcome::Committed(position(feed.offset))]);
}

async fn say(feed: &mut Feed, word: LastWord) {
    let mut append = feed.append(vec![]);
    append.last_word = Some(word);
    commit(feed, append).await;
}

async fn streams(store: &Arc<dyn Store>, uid: &str) -> Vec<StreamProgress> {
    let mut found = store.pod_streams(&[uid.to_owned()]).await.unwrap();
    found.remove(uid).unwrap_or_default()
}

async fn unsettled(store: &Arc<dyn Store>) -> Vec<String> {
    let pods = store.unsettled_pods().await.unwrap();
    let mut uids: Vec<String> = pods.into_iter().map(|pod| pod.uid).collect();
    uids.sort();
    uids
}

async fn gaps(store: &Arc<dyn Store>, script: &ScriptKey) -> Vec<LogGap> {
    store.gaps(script, TimeRange::ALL, 10).await.unwrap()
}

fn settle(uid: &str, unread: &[u32]) -> SettlePod {
    SettlePod {
        uid: uid.into(),
        unread: unread.to_vec(),
        time: at(50),
    }
}

pub async fn the_last_word_of_a_stream_is_kept(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    feed.send(vec![Record::Line(line(0, 1, "x"))]).await;
    let said = LastWord::RunnerStopped { token: "t".into() };
    // In one commit with what comes after it.
    let mut first = feed.append(vec![]);
    first.last_word = Some(said.clone());
    let mut second = feed.append(vec![]);
    second.expected_offset += 1_000;
    second.position = position(feed.offset + 2_000);
    let outcomes = store.append(vec![first.clone(), second]).await.unwrap();
    assert_eq!(outcomes[1], AppendOutcome::Committed(position(3_000)));
    feed.offset += 2_000;
    // The answer was lost, and it comes again.
    let again = store.append(vec![first]).await.unwrap();
    assert_eq!(again, [AppendOutcome::Conflict(position(3_000))]);
    let mut expected = StreamProgress {
        restart: 0,
        offset: 3_000,
        last_word: Some(said),
    };
    assert_eq!(streams(&store, "u").await, [expected.clone()]);
    drop(feed);
    drop(store);
    let store = backend.open().await;
    assert_eq!(streams(&store, "u").await, [expected.clone()]);
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    say(&mut feed, LastWord::EndOfFiles).await;
    (expected.offset, expected.last_word) = (4_000, Some(LastWord::EndOfFiles));
    let mut next = stream_key(&pod(&a, "u", 1));
    next.restart = 1;
    store.open_streams(&[next]).await.unwrap();
    let restarted = StreamProgress {
        restart: 1,
        offset: 0,
        last_word: None,
    };
    assert_eq!(streams(&store, "u").await, [expected, restarted]);
    assert_eq!(streams(&store, "unknown").await, []);
}

pub async fn a_pod_whose_log_was_not_read_has_a_gap(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut read = Feed::open(&store, &a, "read", 1).await;
    let mut cut = Feed::open(&store, &a, "cut", 2).await;
    store.register_pod(&pod(&a, "unseen", 3)).await.unwrap();
    store.register_pod(&pod(&a, "idle", 3)).await.unwrap();
    assert_eq!(unsettled(&store).await, ["cut", "idle", "read", "unseen"]);
    say(&mut read, LastWord::EndOfFiles).await;
    cut.send(vec![Record::Line(line(0, 1, "x"))]).await;
    // The last word came while somebody decided that it would not.
    assert_eq!(store.settle_pod(&settle("read", &[0])).await.unwrap(), []);
    assert_eq!(store.settle_pod(&settle("idle", &[])).await.unwrap(), []);
    let expected = LogGap {
        time: at(50),
        pod: "pod-cut".into(),
        restart: 0,
        version: 2,
        reason: POD_ENDED_UNREAD.into(),
        bytes: 0,
        offset: 1_000,
    };
    let found = store.settle_pod(&settle("cut", &[0])).await.unwrap();
    assert_eq!(found, std::slice::from_ref(&expected));
    // Twice, as by two replicas.
    assert_eq!(store.settle_pod(&settle("cut", &[0])).await.unwrap(), []);
    let unseen = store.settle_pod(&settle("unseen", &[2])).await.unwrap();
    assert_eq!((unseen.len(), unseen[0].restart, unseen[0].offset), (1, 2, 0));
    assert_eq!(unsettled(&store).await, [] as [&str; 0]);
    assert_eq!(gaps(&store, &a).await, [unseen[0].clone(), expected]);
    assert_eq!(store.settle_pod(&settle("never", &[0])).await.unwrap(), []);
    assert_eq!(gaps(&store, &script("other")).await, []);
}

pub async fn a_late_end_takes_the_gap_away(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let mut other = feed.append(vec![]);
    other.gap = Some(Gap {
        reason: "FileTruncated".into(),
        bytes: 0,
    });
    commit(&mut feed, other).await;
    store.settle_pod(&settle("u", &[0])).await.unwrap();
    assert_eq!(gaps(&store, &a).await.len(), 2);
    // A node that was cut off comes back, with the log.
    feed.send(vec![Record::Line(line(0, 1, "x"))]).await;
    assert_eq!(gaps(&store, &a).await.len(), 2, "more may come");
    say(&mut feed, LastWord::EndOfFiles).await;
    let left = gaps(&store, &a).await;
    assert_eq!((left.len(), &*left[0].reason), (1, "FileTruncated"));
}

pub async fn gaps_are_listed_by_time(backend: &impl Backend) {
    let store = backend.open().await;
    let (a, b) = (script("a"), script("b"));
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let mut foreign = Feed::open(&store, &b, "v", 1).await;
    for n in [30, 10, 20] {
        for feed in [&mut feed, &mut foreign] {
            let mut append = feed.append(vec![Record::Line(line(feed.offset, n, "x"))]);
            append.gap = Some(Gap {
                reason: "FileRotatedAway".into(),
                bytes: u64::try_from(n).unwrap(),
            });
            commit(feed, append).await;
        }
    }
    let found = |from: Option<i64>, to: Option<i64>, limit| {
        let range = TimeRange {
            from: from.map(at),
            to: to.map(at),
        };
        let (store, a) = (Arc::clone(&store), a.clone());
        async move {
            let gaps = store.gaps(&a, range, limit).await.unwrap();
            gaps.iter().map(|gap| (gap.bytes, gap.offset)).collect::<Vec<_>>()
        }
    };
    let (first, second, third) = ((30, 0), (20, 2_000), (10, 1_000));
    assert_eq!(found(None, None, 10).await, [first, second, third]);
    assert_eq!(found(None, None, 2).await, [first, second]);
    assert_eq!(found(Some(10), Some(20), 10).await, [third]);
    assert_eq!(found(Some(20), None, 10).await, [first, second]);
}
