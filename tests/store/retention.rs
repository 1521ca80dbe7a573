//! Retention: what goes, what stays, and what comes late.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    ingest::record::Record,
    model::{DeploymentState, Filter, RunStatus, ScriptKey},
    store::{AppendOutcome, Budget, Cutoffs, Gap, Keep, OnDelete, Policy, Retained, SeenObject, Store, Wish},
};

use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{
    Backend, Feed, Postgres, Sqlite, all_lines, all_runs, at, finished, line, log_query, pod, run, run_query,
    script, stream_key,
};

const HOUR: i64 = 3_600_000_000;
const SMALL: Budget = Budget { rows: 7, bytes: 1 };

fn days(count: i64) -> Keep {
    Keep::For(SignedDuration::from_hours(24 * count))
}

/// 90 days of runs, 180 of failed ones, 30 of logs.
fn policy() -> Policy {
    Policy {
        runs: days(90),
        failed_runs: days(180),
        logs: days(30),
        max_bytes: None,
    }
}

/// So many days before noon of the tests' day, microseconds.
fn ago(days: i64) -> i64 {
    -24 * HOUR * days
}

/// Retains, step by step, until there is no more.
async fn retain(store: &Arc<dyn Store>, script: &ScriptKey, cutoffs: &Cutoffs) -> Retained {
    retain_by(store, script, cutoffs, SMALL).await
}

async fn retain_by(
    store: &Arc<dyn Store>,
    script: &ScriptKey,
    cutoffs: &Cutoffs,
    budget: Budget,
) -> Retained {
    let mut all = Retained::default();
    loop {
        let step = store.retain(script, cutoffs, budget).await.unwrap();
        all.add(&step);
        if !step.more {
            return all;
        }
    }
}

async fn purge(store: &Arc<dyn Store>, script: &ScriptKey, before: Timestamp) {
    while store.purge(script, before, SMALL).await.unwrap().more {}
}

async fn run_ids(store: &Arc<dyn Store>, script: &ScriptKey) -> Vec<String> {
    let runs = all_runs(store, run_query(script, Filter::default())).await;
    runs.into_iter().map(|run| run.run_id).collect()
}

async fn messages(store: &Arc<dyn Store>, script: &ScriptKey) -> Vec<String> {
    let lines = all_lines(store, log_query(script, Filter::default())).await;
    lines.into_iter().map(|line| line.message).collect()
}

fn text(offset: u64, micros: i64, message: &str) -> Record {
    Record::Line(line(offset, micros, message))
}

pub async fn ended_runs_go_by_age_and_status(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    for n in 0..20 {
        feed.send(run(&format!("old_{n}"), ago(100) + n, 5, RunStatus::Success).into())
            .await;
        feed.send(run(&format!("failed_{n}"), ago(100) + n, 5, RunStatus::Failed).into())
            .await;
        feed.send(run(&format!("ancient_{n}"), ago(200) + n, 5, RunStatus::Failed).into())
            .await;
    }
    feed.send(run("young", ago(1), 5, RunStatus::Success).into())
        .await;
    let [begun, _] = run("open", ago(300), 5, RunStatus::Success);
    feed.send(vec![begun]).await;
    let before = store.figures(&a).await.unwrap();

    let gone = retain(&store, &a, &policy().cutoffs(at(0))).await;

    assert_eq!((gone.runs, gone.more), (40, false));
    let left = run_ids(&store, &a).await;
    assert_eq!(left.len(), 22);
    assert!(
        left.iter()
            .all(|id| id.starts_with("failed_") || id == "young" || id == "open")
    );
    assert!(store.run(&a, "old_1").await.unwrap().is_none());
    assert!(store.run(&a, "failed_1").await.unwrap().unwrap().error.is_some());
    // Lifetime figures are of the whole life.
    let after = store.figures(&a).await.unwrap();
    assert_eq!(
        (after.total_runs, after.succeeded_runs, after.failed_runs),
        (before.total_runs, before.succeeded_runs, before.failed_runs)
    );
    // What was in progress goes once it has ended.
    feed.send(vec![Record::RunFinished(finished(
        "open",
        at(0),
        9,
        RunStatus::Success,
    ))])
    .await;
    assert_eq!(retain(&store, &a, &policy().cutoffs(at(25 * HOUR))).await.runs, 1);
    assert_eq!(run_ids(&store, &a).await.len(), 21);
}

pub async fn a_late_end_does_not_bring_a_deleted_run_back(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    feed.send(run("r", ago(100), 5, RunStatus::Failed).into()).await;
    feed.send(run("s", ago(99), 5, RunStatus::Success).into()).await;
    retain(&store, &a, &Cutoffs::all_before(at(ago(1)), at(0))).await;
    let figures = store.figures(&a).await.unwrap();
    assert_eq!(figures.total_runs, 2);

    let again = finished("r", at(ago(100) + 8), 8, RunStatus::Success);
    feed.send(vec![Record::RunFinished(again)]).await;
    assert!(run_ids(&store, &a).await.is_empty());
    assert_eq!(store.figures(&a).await.unwrap(), figures);

    // A run that is only told of late is a run: counted, and deleted when its turn comes.
    feed.send(run("late", ago(100), 5, RunStatus::Success).into())
        .await;
    assert_eq!(store.figures(&a).await.unwrap().total_runs, 3);
    retain(&store, &a, &policy().cutoffs(at(25 * HOUR))).await;
    assert!(run_ids(&store, &a).await.is_empty());
    assert_eq!(store.figures(&a).await.unwrap().total_runs, 3);
}

pub async fn lines_past_their_limit_are_not_shown_and_soon_gone(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    feed.send(vec![text(0, ago(40), "gone"), text(1, ago(35), "gone too")])
        .await;
    feed.send(vec![text(2, ago(29), "stays"), text(3, ago(30) - HOUR, "hidden")])
        .await;
    feed.send(vec![text(4, ago(1), "young")]).await;

    let gone = retain(&store, &a, &policy().cutoffs(at(0))).await;
    assert_eq!((gone.segments, gone.lines), (1, 2));
    assert_eq!(messages(&store, &a).await, ["young", "stays"]);
    assert_eq!(
        store
            .window_figures(&a, scriptscope::model::TimeRange::ALL, &Filter::default())
            .await
            .unwrap()
            .total_logs,
        2
    );
    assert_eq!(store.figures(&a).await.unwrap().total_logs, 5);

    // A late line from before the limit is counted and not shown.
    feed.send(vec![text(5, ago(31), "late")]).await;
    assert_eq!(messages(&store, &a).await, ["young", "stays"]);
    assert_eq!(store.figures(&a).await.unwrap().total_logs, 6);

    // A day later at the latest a hidden line is written away; what shares its segment stays.
    let before = store.storage(&a).await.unwrap().logs;
    let gone = retain(&store, &a, &policy().cutoffs(at(24 * HOUR - 1))).await;
    assert_eq!((gone.segments, gone.lines), (1, 2));
    assert!(store.storage(&a).await.unwrap().logs < before);
    assert_eq!(messages(&store, &a).await, ["young", "stays"]);
    // A longer limit does not bring back what was hidden.
    let longer = policy().with(&Wish {
        logs: Some(days(300)),
        ..Wish::default()
    });
    retain(&store, &a, &longer.cutoffs(at(24 * HOUR))).await;
    assert_eq!(messages(&store, &a).await, ["young", "stays"]);
}

pub async fn by_bytes_logs_go_first_and_the_oldest_of_each(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let mut random = fastrand::Rng::with_seed(3);
    let mut noise = || (0..3_000).map(|_| random.alphanumeric()).collect::<String>();
    for n in 0..10 {
        feed.send(vec![text(
            n,
            i64::try_from(n).unwrap(),
            &format!("{n} {}", noise()),
        )])
        .await;
    }
    for n in 0..10 {
        let [begun, mut ended] = run(&format!("run_{n}"), n, 5, RunStatus::Success);
        if let Record::RunFinished(ended) = &mut ended {
            ended.output = Some(serde_json::value::to_raw_value(&noise()).unwrap());
        }
        feed.send(vec![begun, ended]).await;
    }
    let whole = store.storage(&a).await.unwrap();
    assert!(
        whole.logs > 20_000 && whole.payloads > 20_000 && whole.runs == 2_000,
        "{whole:?}"
    );
    let to = |max_bytes| Cutoffs {
        max_bytes: Some(max_bytes),
        ..Policy {
            runs: Keep::Forever,
            failed_runs: Keep::Forever,
            logs: Keep::Forever,
            max_bytes: None,
        }
        .cutoffs(at(HOUR))
    };
    assert!(retain(&store, &a, &to(whole.total())).await.is_nothing());

    let gone = retain(&store, &a, &to(whole.total() - 6_000)).await;
    assert!(gone.segments > 0 && gone.runs == 0, "{gone:?}");
    let left = messages(&store, &a).await;
    assert!(
        left.len() < 10
            && left[0].starts_with("9 ")
            && left.last().unwrap().starts_with(&format!("{} ", 10 - left.len()))
    );

    let limit = whole.total() / 3;
    let gone = retain(&store, &a, &to(limit)).await;
    assert!(gone.runs > 0, "{gone:?}");
    let now = store.storage(&a).await.unwrap();
    // Neither crowds the other out.
    assert!(
        now.total() <= limit && now.total() > limit - 8_000 && now.runs > 0,
        "{now:?} of {limit}"
    );
    assert_eq!(run_ids(&store, &a).await[0], "run_9");
    assert!(!messages(&store, &a).await.is_empty());
}

pub async fn a_forgotten_stream_never_begins_anew(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut idle = Feed::open(&store, &a, "idle", 1).await;
    idle.send(vec![text(0, ago(1), "x")]).await;
    let mut busy = Feed::open(&store, &a, "busy", 1).await;
    busy.send(run("r", ago(1), 5, RunStatus::Failed).into()).await;
    let here = Feed::open(&store, &a, "here", 1).await;
    let forget = async |present: &[&str], hours: i64| {
        let present: Vec<String> = present.iter().map(|&uid| uid.to_owned()).collect();
        let budget = Budget { rows: 100, bytes: 0 };
        store
            .forget_pods(&a, &present, at(hours * HOUR), budget)
            .await
            .unwrap()
            .other
    };
    assert_eq!(forget(&["here"], 0).await, 0);
    assert_eq!(forget(&["here"], 7 * 24 - 1).await, 0);
    // One that comes back begins its time anew.
    assert_eq!(forget(&["here", "idle"], 7 * 24).await, 0);
    assert_eq!(forget(&["here"], 7 * 24 + 1).await, 0);
    assert_eq!(forget(&["here"], 14 * 24).await, 0);
    assert_eq!(forget(&["here"], 14 * 24 + 2).await, 2, "a pod and its stream");
    let append = idle.append(vec![text(1, 0, "again")]);
    assert_eq!(
        store.append(vec![append]).await.unwrap(),
        [AppendOutcome::Unknown]
    );
    assert_eq!(
        store
            .open_streams(&[stream_key(&pod(&a, "idle", 1))])
            .await
            .unwrap(),
        [None]
    );
    assert_eq!(store.figures(&a).await.unwrap().total_logs, 1);
    // That of a run stays as long as the run.
    assert_eq!(run_ids(&store, &a).await, ["r"]);
    retain(&store, &a, &Cutoffs::all_before(at(0), at(0))).await;
    assert_eq!(forget(&["here"], 14 * 24 + 3).await, 2);
    assert!(
        store
            .open_streams(&[stream_key(&pod(&a, "here", 1))])
            .await
            .unwrap()[0]
            .is_some()
    );
    drop(here);
}

pub async fn a_purged_script_leaves_its_highest_version(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let object = |uid: &str, on_delete| SeenObject {
        uid: uid.to_owned(),
        on_delete,
    };
    store
        .note_object(&a, &object("o1", OnDelete::Purge))
        .await
        .unwrap();
    for (fingerprint, hours) in [("f1", -50), ("f2", -49)] {
        store
            .begin_deployment(&a, fingerprint, 0, at(hours * HOUR))
            .await
            .unwrap();
    }
    let mut feed = Feed::open(&store, &a, "u", 2).await;
    feed.send(run("r", ago(1), 5, RunStatus::Success).into()).await;
    feed.send(vec![text(0, ago(1), "x")]).await;
    let mut other = Feed::open(&store, &script("b"), "v", 1).await;
    other.send(vec![text(0, ago(1), "y")]).await;

    purge(&store, &a, at(0)).await;
    assert_eq!(store.scripts(None).await.unwrap(), [script("b")]);
    assert_eq!(
        store.figures(&a).await.unwrap(),
        scriptscope::model::Figures::default()
    );
    assert!(run_ids(&store, &a).await.is_empty() && messages(&store, &a).await.is_empty());
    assert_eq!(store.storage(&a).await.unwrap().total(), 0);
    assert_eq!(messages(&store, &script("b")).await, ["y"]);

    // Another object of the name: numbers go on, its own data stays, a purge taken up again takes the old alone.
    store
        .note_object(&a, &object("o2", OnDelete::Retain))
        .await
        .unwrap();
    assert_eq!(
        store.seen_objects().await.unwrap(),
        [(a.clone(), object("o2", OnDelete::Retain))]
    );
    assert_eq!(store.scripts(None).await.unwrap().len(), 2);
    let next = store.begin_deployment(&a, "f1", 0, at(HOUR)).await.unwrap();
    assert_eq!((next.version, next.state), (3, DeploymentState::Deploying));
    let mut feed = Feed::open(&store, &a, "w", 3).await;
    feed.send(run("r", HOUR, 5, RunStatus::Success).into()).await;
    purge(&store, &a, at(0)).await;
    assert_eq!(run_ids(&store, &a).await, ["r"]);
    assert_eq!(store.figures(&a).await.unwrap().total_runs, 1);
}

pub async fn pages_go_on_while_rows_are_deleted(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    for n in 0..40 {
        let [begun, ended] = run(&format!("run_{n:02}"), ago(n), 5, RunStatus::Success);
        feed.send(vec![
            begun,
            ended,
            text(u64::try_from(n).unwrap(), ago(n), &n.to_string()),
        ])
        .await;
    }
    let mut runs = run_query(&a, Filter::default());
    let mut lines = log_query(&a, Filter::default());
    (runs.limit, lines.limit) = (15, 15);
    let (first_runs, first_lines) = (
        store.runs(&runs).await.unwrap(),
        store.logs(&lines).await.unwrap(),
    );
    (runs.after, lines.after) = (first_runs.next, first_lines.next);
    retain(&store, &a, &Cutoffs::all_before(at(ago(19) - 1), at(0))).await;
    // The rest, once, and a clear end.
    let (rest, rest_lines) = (
        store.runs(&runs).await.unwrap(),
        store.logs(&lines).await.unwrap(),
    );
    assert!(rest.next.is_none() && rest_lines.next.is_none());
    let ids: Vec<&str> = rest.rows.iter().map(|run| run.run_id.as_str()).collect();
    assert_eq!(ids, ["run_15", "run_16", "run_17", "run_18", "run_19"]);
    let numbers: Vec<&str> = rest_lines.rows.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(numbers, ["15", "16", "17", "18", "19"]);
    // A page that begins in what is gone is empty.
    retain(&store, &a, &Cutoffs::all_before(at(ago(3)), at(0))).await;
    assert!(store.runs(&runs).await.unwrap().rows.is_empty());
    assert!(store.logs(&lines).await.unwrap().rows.is_empty());
}

/// Rows of every table of a SQLite file.
async fn sqlite_rows(path: &std::path::Path) -> BTreeMap<String, i64> {
    // Writing: on its end SQLite moves the write-ahead log into the file.
    let options = SqliteConnectOptions::new().filename(path);
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '\\_sqlx%' ESCAPE '\\'",
    )
    .fetch_all(&mut file)
    .await
    .unwrap();
    let mut rows = BTreeMap::new();
    for table in tables {
        let count = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
        rows.insert(table, count.fetch_one(&mut file).await.unwrap());
    }
    let kind: i64 = sqlx::query_scalar("PRAGMA auto_vacuum")
        .fetch_one(&mut file)
        .await
        .unwrap();
    assert_eq!(kind, 2, "the file was not made to give pages back");
    file.close().await.unwrap();
    rows
}

/// Rows of every table of a Postgres database.
async fn postgres_rows(url: &str) -> BTreeMap<String, i64> {
    let mut database = PgConnection::connect(url).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace \
         AND relname NOT LIKE '\\_sqlx%'",
    )
    .fetch_all(&mut database)
    .await
    .unwrap();
    let mut rows = BTreeMap::new();
    for table in tables {
        let count = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
        rows.insert(table, count.fetch_one(&mut database).await.unwrap());
    }
    rows
}

/// The rows of all tables when the texts of all segments are indexed.
async fn indexed(rows: impl AsyncFn() -> BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let rows = rows().await;
        // The tables are counted one after the other, so none alone says it.
        if rows["log_segments_to_index"] == 0 && rows["log_segment_grams"] > 0 {
            return rows;
        }
        assert!(Instant::now() < deadline, "segments are not indexed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Data of two years ago, in every table.
async fn store_old_data(store: &Arc<dyn Store>, a: &ScriptKey) {
    let mut random = fastrand::Rng::with_seed(9);
    for n in 0..30 {
        let version = n + 1;
        let begun = ago(700) + n * HOUR;
        store
            .begin_deployment(a, &n.to_string(), 0, at(begun))
            .await
            .unwrap();
        store
            .set_deployment_state(a, version, DeploymentState::Deployed, None, at(begun + 1))
            .await
            .unwrap();
        let feed = Feed::open(store, a, &format!("u{n}"), version).await;
        let mut records = Vec::new();
        for k in 0..200 {
            let [started, mut ended] = run(&format!("run_{n}_{k}"), begun + k, 5, RunStatus::Success);
            let noise: String = (0..1_500).map(|_| random.alphanumeric()).collect();
            if let Record::RunFinished(ended) = &mut ended {
                ended.output = Some(serde_json::value::to_raw_value(&noise).unwrap());
            }
            records.extend([started, ended, text(u64::try_from(k).unwrap(), begun + k, &noise)]);
        }
        let mut append = feed.append(records);
        append.gap = Some(Gap {
            reason: "NodeLost".into(),
            bytes: 1,
        });
        store.append(vec![append]).await.unwrap();
    }
}

/// So many lines that their segment tells which texts it may have.
async fn store_many_lines(store: &Arc<dyn Store>, a: &ScriptKey) {
    let mut random = fastrand::Rng::with_seed(11);
    let mut feed = Feed::open(store, a, "many", 1).await;
    let mut word = || (0..12).map(|_| random.alphanumeric()).collect::<String>();
    feed.send((0..20_000).map(|n| text(n, ago(700), &word())).collect())
        .await;
}

/// Deletes all that is past its time, of every kind.
async fn retain_everything(store: &Arc<dyn Store>, a: &ScriptKey) {
    store.forget_pods(a, &[], at(ago(8)), SMALL).await.unwrap();
    let budget = Budget {
        rows: 1_000,
        bytes: 1 << 20,
    };
    retain_by(store, a, &policy().cutoffs(at(0)), budget).await;
    while store.forget_pods(a, &[], at(0), SMALL).await.unwrap().more {}
    while store.give_back_space().await.unwrap() {}
}

fn assert_shrunk(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) {
    for (table, rows) in before {
        let left = after[table];
        match table.as_str() {
            // Names and lifetime figures stay; the others have one row a script.
            "scripts" | "version_totals" | "retention" | "script_usage" | "seen_objects" | "health" => {}
            "log_segments_to_index" => assert_eq!((*rows, left), (0, 0)),
            "deployments" => assert_eq!((*rows, left), (30, 10)),
            _ => assert!(
                *rows > 0 && left == 0,
                "{table}: {rows} rows before, {left} after"
            ),
        }
    }
}

pub async fn every_table_and_the_file_shrink(backend: &Sqlite) {
    let a = script("a");
    let store = backend.open().await;
    store_old_data(&store, &a).await;
    store_many_lines(&store, &a).await;
    let before = indexed(async || sqlite_rows(&backend.path).await).await;
    store.close().await;
    drop(store);
    let size = std::fs::metadata(&backend.path).unwrap().len();

    let store = backend.open().await;
    retain_everything(&store, &a).await;
    store.close().await;
    drop(store);
    assert_shrunk(&before, &sqlite_rows(&backend.path).await);
    let now = std::fs::metadata(&backend.path).unwrap().len();
    assert!(
        size > 8 << 20 && now < size / 2,
        "{size} bytes before, {now} after"
    );
}

pub async fn every_table_of_postgres_shrinks(backend: &Postgres) {
    let a = script("a");
    let store = backend.open().await;
    store_old_data(&store, &a).await;
    store_many_lines(&store, &a).await;
    let before = indexed(async || postgres_rows(&backend.url).await).await;
    retain_everything(&store, &a).await;
    assert_shrunk(&before, &postgres_rows(&backend.url).await);
}
