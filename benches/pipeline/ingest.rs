//! From files on disk to committed in the store: agent, HTTP, parsing, segments, fsync.

use std::{
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    generate,
    report::{Baseline, Report, Scale},
    testbed::{self, Config, Pod, Stored},
    usage,
};

pub const FILES: usize = 20;
pub const SCRIPT: &str = "measured";

/// Plain lines into SQLite.
pub fn plain_sqlite(scale: Scale) {
    let lines = scale.of(10_000_000, 300_000);
    let scratch = tempfile::tempdir().unwrap();
    let logs = scratch.path().join("pods");
    let pods = generate::pods(FILES, SCRIPT);
    generate::plain(&logs, &pods, lines);
    let url = format!("sqlite://{}", scratch.path().join("store.db").display());
    let measured = ship(&url, &logs, scratch.path(), pods, |stored| {
        stored.lines as usize >= lines
    });
    Report {
        name: "ingest_plain_sqlite",
        value: lines as f64 / measured.seconds,
        unit: "lines/s",
        baseline: Baseline {
            name: "SQLite multi-row insert",
            value: sqlite_rows_per_second(scratch.path(), scale.of(1_000_000, 100_000)),
        },
        ratio: 0.0,
        cpu_seconds: measured.cpu_seconds,
        max_rss_bytes: measured.max_rss_bytes,
        n: lines,
    }
    .print();
}

pub struct Measured {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub max_rss_bytes: u64,
}

/// Runs server and agent on the files until everything is stored.
pub fn ship(
    url: &str,
    logs: &Path,
    scratch: &Path,
    pods: Vec<Pod>,
    done: impl Fn(Stored) -> bool,
) -> Measured {
    let config = Config {
        store: url.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        pods,
    };
    let (server, address) = testbed::start_server(&config);
    let began = Instant::now();
    let agent = testbed::start_agent(address, logs, scratch);
    while !done(stored(address)) {
        thread::sleep(Duration::from_millis(5));
    }
    let seconds = began.elapsed().as_secs_f64();
    let processes = [server.0.id(), agent.0.id()];
    eprintln!(
        "  agent: {:.2} CPU s, {} MiB; server: {:.2} CPU s, {} MiB",
        usage::cpu_seconds(processes[1]),
        usage::max_rss_bytes(processes[1]) >> 20,
        usage::cpu_seconds(processes[0]),
        usage::max_rss_bytes(processes[0]) >> 20,
    );
    Measured {
        seconds,
        cpu_seconds: processes.map(usage::cpu_seconds).iter().sum(),
        max_rss_bytes: usage::max_rss_bytes(processes[0]),
    }
}

fn stored(server: SocketAddr) -> Stored {
    runtime().block_on(async {
        let answer = reqwest::get(format!("http://{server}/stored/{SCRIPT}"))
            .await
            .unwrap();
        answer.json().await.unwrap()
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Rows a second of the same lines as rows, without an index.
fn sqlite_rows_per_second(scratch: &Path, rows: usize) -> f64 {
    const ROWS_PER_STATEMENT: usize = 1_000;
    const ROWS_PER_COMMIT: usize = 20_000;
    let options = SqliteConnectOptions::new()
        .filename(scratch.join("baseline.db"))
        .create_if_missing(true)
        .pragma("journal_mode", "WAL")
        .pragma("synchronous", "FULL");
    runtime().block_on(async {
        let mut file = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query("CREATE TABLE lines (stream INT, offset INT, time INT, level INT, message TEXT)")
            .execute(&mut file)
            .await
            .unwrap();
        let message = "x".repeat(generate::PLAIN_MESSAGE);
        let began = Instant::now();
        let mut written = 0;
        while written < rows {
            let mut transaction = file.begin().await.unwrap();
            for _ in 0..ROWS_PER_COMMIT / ROWS_PER_STATEMENT {
                let mut sql = sqlx::QueryBuilder::<sqlx::Sqlite>::new("INSERT INTO lines ");
                sql.push_values(written..written + ROWS_PER_STATEMENT, |mut row, n| {
                    let n = n as i64;
                    row.push_bind(1_i64)
                        .push_bind(n * 170)
                        .push_bind(n)
                        .push_bind(0_i64)
                        .push_bind(&message);
                });
                sql.build().execute(&mut *transaction).await.unwrap();
                written += ROWS_PER_STATEMENT;
            }
            transaction.commit().await.unwrap();
        }
        let seconds = began.elapsed().as_secs_f64();
        file.close().await.unwrap();
        written as f64 / seconds
    })
}
