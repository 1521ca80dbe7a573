//! Run records: how many a second, and what each takes on disk.

use std::{io::Write, path::Path, time::Instant};

use jiff::Timestamp;
use sqlx::{Connection, Row, Sqlite, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    generate,
    ingest::{FILES, Measured, SCRIPT, runtime, ship},
    report::{Baseline, Report, Scale},
    testbed::Pod,
};

/// What a run's records hold beside what every run has.
#[derive(Clone, Copy)]
pub struct Content {
    payloads: bool,
    lines: bool,
}

/// All that a run can bring, small.
pub const WHOLE: Content = Content {
    payloads: true,
    lines: true,
};
/// Nothing but the runs.
pub const BARE: Content = Content {
    payloads: false,
    lines: false,
};

/// Runs with small payloads and two lines each into SQLite.
pub fn ingest_sqlite(scale: Scale) {
    let runs = scale.of(1_000_000, 50_000);
    let scratch = tempfile::tempdir().unwrap();
    let measured = ingest(scratch.path(), runs, WHOLE);
    eprintln!(
        "  {:.1} CPU ms a thousand runs",
        measured.cpu_seconds * 1e6 / runs as f64
    );
    let baseline = insert_rows(scratch.path(), scale.of(500_000, 50_000));
    Report {
        name: "ingest_runs_sqlite",
        value: runs as f64 / measured.seconds,
        unit: "runs/s",
        baseline: Baseline {
            name: "SQLite multi-row insert of the same rows, with the same indexes",
            value: baseline.rows_per_second,
        },
        ratio: 0.0,
        cpu_seconds: measured.cpu_seconds,
        max_rss_bytes: measured.max_rss_bytes,
        n: runs,
    }
    .print();
}

/// Bytes of the database a run, without payloads and lines.
pub fn bytes_per_run(scale: Scale) {
    let runs = scale.of(500_000, 50_000);
    let size = |content| {
        let scratch = tempfile::tempdir().unwrap();
        let measured = ingest(scratch.path(), runs, content);
        (
            measured,
            database_bytes(&scratch.path().join("store.db")) / runs as f64,
        )
    };
    let (_, whole) = size(WHOLE);
    let (_, payloads) = size(Content {
        payloads: true,
        lines: false,
    });
    let (measured, bare) = size(BARE);
    eprintln!(
        "  {payloads:.1} bytes with input and output, {whole:.1} with two lines as well, not yet merged"
    );
    let scratch = tempfile::tempdir().unwrap();
    Report {
        name: "bytes_per_run",
        value: bare,
        unit: "bytes",
        baseline: Baseline {
            name: "SQLite rows with the same columns and indexes",
            value: insert_rows(scratch.path(), runs).bytes_per_row,
        },
        ratio: 0.0,
        cpu_seconds: measured.cpu_seconds,
        max_rss_bytes: measured.max_rss_bytes,
        n: runs,
    }
    .print();
}

/// So many runs into a new SQLite file of a folder.
pub fn ingest(scratch: &Path, runs: usize, content: Content) -> Measured {
    let logs = scratch.join("pods");
    let pods = generate::pods(FILES, SCRIPT);
    write(&logs, &pods, runs, content);
    let url = format!("sqlite://{}", scratch.join("store.db").display());
    let mut measured = ship(&url, &logs, scratch, pods, |stored| stored.ended as usize >= runs);
    measured.server = None;
    measured
}

/// One run of the many.
pub struct Run {
    pub id: String,
    pub began: i64,
    pub took: i64,
    pub traceparent: String,
    pub function: &'static str,
    pub source: &'static str,
    pub failed: bool,
}

const EVERY_MICROS: i64 = 20_000;

/// The run with this number, of those that began at `first`.
pub fn run(n: usize, first: i64, random: &mut fastrand::Rng) -> Run {
    let began = first + n as i64 * EVERY_MICROS + random.i64(0..EVERY_MICROS);
    Run {
        // As the runner makes them: UUIDs of version 7.
        id: format!(
            "run_{:012x}7{:03x}{:016x}",
            began / 1_000,
            random.u16(..4096),
            random.u64(..) >> 2 | 1 << 63
        ),
        began,
        took: crate::figures::log_normal(random),
        traceparent: format!("00-{:032x}-{:016x}-01", random.u128(..), random.u64(..)),
        function: ["check", "balance", "transfer"][n % 3],
        source: ["billing", "nightly", "support", "anonymous"][random.usize(..4)],
        failed: random.u8(..20) == 0,
    }
}

/// Writes the runs' records as the runner prints them, spread over the pods' files.
pub fn write(logs: &Path, pods: &[Pod], runs: usize, content: Content) {
    let mut random = fastrand::Rng::with_seed(2);
    let first = Timestamp::now().as_microsecond() - runs as i64 * EVERY_MICROS;
    for (n, pod) in pods.iter().enumerate() {
        let mut file = generate::create(logs, pod);
        for k in (n..runs).step_by(pods.len()) {
            let run = run(k, first, &mut random);
            let (began, ended) = (time(run.began), time(run.began + run.took));
            let Run {
                id,
                traceparent,
                function,
                source,
                took,
                ..
            } = &run;
            let input = if content.payloads {
                format!(
                    r#","input":{{"customer":{},"amount":{}}}"#,
                    random.u32(..),
                    random.u16(..)
                )
            } else {
                String::new()
            };
            writeln!(
                file,
                r#"{began}000Z stdout F {{"scriptscope":"run.started","time":"{began}Z","run_id":"{id}","deployment_id":"deploy_0190163d8694739b","version":1,"function":"{function}","source":"{source}","source_type":"Tool","traceparent":"{traceparent}"{input}}}"#
            )
            .unwrap();
            if content.lines {
                writeln!(
                    file,
                    r#"{ended}000Z stdout F {{"scriptscope":"run.output","run_id":"{id}","stream":"stdout","lines":[["{began}Z","checking the balance of customer {}"],["{ended}Z","the answer is {}"]]}}"#,
                    random.u32(..),
                    random.u16(..)
                )
                .unwrap();
            }
            let outcome = match (run.failed, content.payloads) {
                (true, _) => {
                    r#""status":"Failed","error":{"reason":"Exception","message":"no such customer"}"#
                        .to_owned()
                }
                (false, true) => format!(
                    r#""status":"Success","output":{{"balance":{}}},"error":null"#,
                    random.u32(..)
                ),
                (false, false) => r#""status":"Success","error":null"#.to_owned(),
            };
            writeln!(
                file,
                r#"{ended}000Z stdout F {{"scriptscope":"run.finished","time":"{ended}Z","run_id":"{id}","duration_us":{took},{outcome}}}"#
            )
            .unwrap();
        }
        file.flush().unwrap();
    }
}

/// RFC 3339 to the microsecond, without the zone.
fn time(micros: i64) -> String {
    let text = format!("{:.6}", Timestamp::from_microsecond(micros).unwrap());
    text.trim_end_matches('Z').to_owned()
}

/// Size of a database whose process is gone.
fn database_bytes(file: &Path) -> f64 {
    let options = SqliteConnectOptions::new().filename(file);
    runtime().block_on(async {
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut database)
            .await
            .unwrap();
        let pages: i64 = sqlx::query("PRAGMA page_count")
            .fetch_one(&mut database)
            .await
            .unwrap()
            .get(0);
        let free: i64 = sqlx::query("PRAGMA freelist_count")
            .fetch_one(&mut database)
            .await
            .unwrap()
            .get(0);
        let size: i64 = sqlx::query("PRAGMA page_size")
            .fetch_one(&mut database)
            .await
            .unwrap()
            .get(0);
        database.close().await.unwrap();
        ((pages - free) * size) as f64
    })
}

struct Inserted {
    rows_per_second: f64,
    bytes_per_row: f64,
}

/// The same rows by SQLite alone.
fn insert_rows(scratch: &Path, rows: usize) -> Inserted {
    const ROWS_PER_STATEMENT: usize = 500;
    const ROWS_PER_COMMIT: usize = 10_000;
    let path = scratch.join("baseline.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .pragma("journal_mode", "WAL")
        .pragma("synchronous", "FULL");
    let mut random = fastrand::Rng::with_seed(2);
    let runs: Vec<Run> = (0..rows)
        .map(|n| run(n, 1_760_000_000_000_000, &mut random))
        .collect();
    let rows_per_second = runtime().block_on(async {
        let mut file = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(
            "CREATE TABLE runs (script_id INT, executed_at INT, run_id TEXT, status INT, source_type INT, version INT, \
             response_time INT, function TEXT, source TEXT, stream_id INT, payload INT, finished_at INT, reason TEXT, \
             traceparent TEXT, PRIMARY KEY (script_id, executed_at, run_id)) WITHOUT ROWID; \
             CREATE UNIQUE INDEX runs_by_id ON runs (script_id, run_id);",
        )
        .execute(&mut file)
        .await
        .unwrap();
        let began = Instant::now();
        for commit in runs.chunks(ROWS_PER_COMMIT) {
            let mut transaction = file.begin().await.unwrap();
            for chunk in commit.chunks(ROWS_PER_STATEMENT) {
                let mut sql = sqlx::QueryBuilder::<Sqlite>::new("INSERT INTO runs ");
                sql.push_values(chunk, |mut row, run| {
                    row.push_bind(1_i64)
                        .push_bind(run.began)
                        .push_bind(&run.id)
                        .push_bind(if run.failed { 2_i64 } else { 1 })
                        .push_bind(1_i64)
                        .push_bind(1_i64)
                        .push_bind((!run.failed).then_some(run.took))
                        .push_bind(run.function)
                        .push_bind(run.source)
                        .push_bind(7_i64)
                        .push_bind(None::<i64>)
                        .push_bind(run.began + run.took)
                        .push_bind(run.failed.then_some("Exception"))
                        .push_bind(&run.traceparent);
                });
                sql.build().execute(&mut *transaction).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        let seconds = began.elapsed().as_secs_f64();
        file.close().await.unwrap();
        rows as f64 / seconds
    });
    Inserted {
        rows_per_second,
        bytes_per_row: database_bytes(&path) / rows as f64,
    }
}
