//! What is true of Postgres alone: several replicas at once, and a server that goes away.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use scriptscope::{
    ingest::record::Record,
    model::{Filter, RunStatus},
    store::{AppendOutcome, Store, StoreError, postgres::PostgresStore},
};
use tokio::time::{Instant, sleep};

use crate::{
    pg::{Cluster, Stop},
    support::{
        Backend, Feed, all_lines, all_runs, at, line, log_query, position, postgres, run, run_query, script,
    },
};

/// The same chunks are offered to two replicas at once, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_replicas_are_offered_is_stored_once() {
    let backend = postgres();
    let replicas = [backend.open().await, backend.open().await];
    let a = script("a");
    let offers: Vec<_> = (0..4)
        .flat_map(|_| replicas.clone())
        .enumerate()
        .map(|(n, store)| {
            tokio::spawn(async move {
                let mut feeds = Vec::new();
                for uid in ["u1", "u2", "u3"] {
                    feeds.push(Feed::open(&store, &script("a"), uid, 1).await);
                }
                if n % 2 == 1 {
                    feeds.reverse();
                }
                for chunk in 0..15 {
                    let appends = feeds.iter().map(|feed| chunk_of(feed, chunk)).collect();
                    for outcome in store.append(appends).await.unwrap() {
                        let (AppendOutcome::Committed(at) | AppendOutcome::Conflict(at)) = outcome else {
                            panic!("{outcome:?}");
                        };
                        assert!(at.offset >= (chunk + 1) * 1_000, "{at:?} after chunk {chunk}");
                    }
                }
            })
        })
        .collect();
    for offer in offers {
        offer.await.unwrap();
    }
    for store in &replicas {
        let figures = store.figures(&a).await.unwrap();
        assert_eq!(
            (figures.succeeded_runs, figures.total_runs, figures.total_logs),
            (45, 45, 45)
        );
        assert_eq!(all_runs(store, run_query(&a, Filter::default())).await.len(), 45);
        let lines = all_lines(store, log_query(&a, Filter::default())).await;
        let messages: BTreeSet<&str> = lines.iter().map(|l| l.message.as_str()).collect();
        assert_eq!((lines.len(), messages.len()), (45, 45));
    }
}

/// Chunk `n` of a stream: a run and a line.
fn chunk_of(feed: &Feed, n: u64) -> scriptscope::store::Append {
    let stream = feed.checkpoint.id;
    let micros = i64::try_from(n).unwrap();
    let mut records: Vec<Record> = run(&format!("r{stream}-{n}"), micros, 5, RunStatus::Success).into();
    records.push(Record::Line(line(n * 1_000, micros, &format!("{stream} {n}"))));
    scriptscope::store::Append {
        expected_offset: n * 1_000,
        position: position((n + 1) * 1_000),
        ..feed.append(records)
    }
}

/// The two records of a run come through two replicas, as do another run's of the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_two_replicas_tell_of_is_counted_once() {
    let backend = postgres();
    let replicas = [backend.open().await, backend.open().await];
    let tasks: Vec<_> = (0..6)
        .map(|n| {
            let store = Arc::clone(&replicas[n % 2]);
            tokio::spawn(async move {
                let mut feed = Feed::open(&store, &script("a"), &format!("u{n}"), 1).await;
                for round in 0..10 {
                    let records =
                        (0..20).flat_map(|k| run(&format!("r{round}-{k}"), k, 5, RunStatus::Success));
                    feed.send(records.collect()).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let figures = replicas[0].figures(&script("a")).await.unwrap();
    assert_eq!((figures.total_runs, figures.succeeded_runs), (200, 200));
    assert_eq!(figures.p99_microseconds, Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_never_give_the_same_version() {
    let backend = postgres();
    let replicas = [backend.open().await, backend.open().await];
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let store = Arc::clone(&replicas[n % 2]);
            tokio::spawn(async move {
                let begun = store
                    .begin_deployment(&script("a"), &n.to_string(), 0, at(0))
                    .await;
                begun.unwrap().version
            })
        })
        .collect();
    let mut versions = BTreeSet::new();
    for task in tasks {
        versions.insert(task.await.unwrap());
    }
    assert_eq!(versions, (1..=20).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_hears_of_what_another_stored() {
    let backend = postgres();
    let (one, two) = (backend.open().await, backend.open().await);
    let (before, mut next) = two.changed_scripts(0);
    assert_eq!(before, []);
    let mut feed = Feed::open(&one, &script("a"), "u", 1).await;
    feed.send(vec![Record::Line(line(0, 1, "x"))]).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (changed, at) = two.changed_scripts(next);
        next = at;
        if changed == [script("a")] {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was heard");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The server is stopped in both ways while batches are on their way, at many moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_neither_loses_nor_doubles_anything() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(&[])));
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(&cluster.new_database()).await.unwrap());
    let tasks: Vec<_> = (0..3)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let feed = Feed::open(&store, &script("a"), &format!("u{n}"), 1).await;
                let mut chunk = 0;
                while chunk < 150 {
                    // What is not answered is sent again from the committed offset, as by an agent.
                    if let Ok(outcomes) = store.append(vec![chunk_of(&feed, chunk)]).await {
                        let (AppendOutcome::Committed(at) | AppendOutcome::Conflict(at)) = &outcomes[0]
                        else {
                            panic!("{outcomes:?}");
                        };
                        chunk = at.offset / 1_000;
                    }
                    sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    for how in [Stop::Fast, Stop::Immediate, Stop::Immediate] {
        sleep(Duration::from_millis(300)).await;
        tokio::task::spawn_blocking(move || {
            cluster.stop(how);
            cluster.resume();
        })
        .await
        .unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    let figures = store.figures(&script("a")).await.unwrap();
    assert_eq!(
        (figures.total_runs, figures.succeeded_runs, figures.total_logs),
        (450, 450, 450)
    );
    assert_eq!(
        all_lines(&store, log_query(&script("a"), Filter::default()))
            .await
            .len(),
        450
    );
}

#[tokio::test]
async fn what_can_not_be_used_says_why() {
    let refused = async |url: &str| {
        let Err(StoreError::Unusable(text)) = PostgresStore::open_within(url, Duration::ZERO).await else {
            panic!("{url} was opened");
        };
        assert!(!text.contains("secret"), "{text}");
        text
    };
    let text = refused("postgres://user:secret@127.0.0.1:1/runs").await;
    assert!(
        text.contains("the database at 127.0.0.1:1/runs can not be reached"),
        "{text}"
    );
    let url = postgres().url;
    let text = refused(&format!("{url}_gone")).await;
    assert!(text.contains("does not exist"), "{text}");
    PostgresStore::open(&url).await.unwrap().close().await;
    let name = url.rsplit_once('/').unwrap().1;
    let newer = "INSERT INTO _sqlx_migrations SELECT 9999, 'x', now(), true, '', 1";
    Cluster::shared().sql(name, newer);
    let text = refused(&url).await;
    assert!(text.contains("a newer version of ScriptScope"), "{text}");
}
