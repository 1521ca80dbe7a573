//! The paths of [`crate::ingest`] and [`crate::runs`] into Postgres, which shares the processors with agent and server.

use std::{fs, io, path::Path, thread, time::Duration, time::Instant};

use sqlx::{Connection, PgConnection};

use crate::{
    cluster::Cluster,
    generate,
    ingest::{FILES, Measured, SCRIPT, runtime, ship},
    report::{Baseline, Report, Scale},
    runs::{self, Run},
    testbed::{Pod, Stored},
    usage,
};

/// Between two looks at what is stored: each costs the database some work.
const LOOK: Duration = Duration::from_millis(25);
const ROWS_PER_COMMIT: usize = 20_000;

/// Plain lines into Postgres.
pub fn ingest_plain(scale: Scale) {
    let lines = scale.of(10_000_000, 300_000);
    let measured = measure(
        |logs, pods| generate::plain(logs, pods, lines),
        |stored| stored.lines as usize >= lines,
    );
    Report {
        name: "ingest_plain_postgres",
        value: lines as f64 / measured.seconds,
        unit: "lines/s",
        baseline: Baseline {
            name: "Postgres COPY BINARY of the same lines as rows, without an index",
            value: copy_lines(scale.of(1_000_000, 100_000)),
        },
        ratio: 0.0,
        cpu_seconds: measured.cpu_seconds,
        max_rss_bytes: measured.max_rss_bytes,
        n: lines,
    }
    .print();
}

/// Runs with small payloads and two lines each into Postgres.
pub fn ingest_runs(scale: Scale) {
    let runs = scale.of(500_000, 50_000);
    let measured = measure(
        |logs, pods| runs::write(logs, pods, runs, runs::WHOLE),
        |stored| stored.ended as usize >= runs,
    );
    Report {
        name: "ingest_runs_postgres",
        value: runs as f64 / measured.seconds,
        unit: "runs/s",
        baseline: Baseline {
            name: "Postgres COPY BINARY of the same rows, with an index by time and one by id",
            value: copy_runs(scale.of(500_000, 50_000)),
        },
        ratio: 0.0,
        cpu_seconds: measured.cpu_seconds,
        max_rss_bytes: measured.max_rss_bytes,
        n: runs,
    }
    .print();
}

/// Ships what `write` writes until it is `done`; the processor time is that of the database as well.
fn measure(write: impl FnOnce(&Path, &[Pod]), done: impl Fn(Stored) -> bool) -> Measured {
    let scratch = tempfile::tempdir().unwrap();
    let logs = scratch.path().join("pods");
    let pods = generate::pods(FILES, SCRIPT);
    write(&logs, &pods);
    let cluster = Cluster::shared();
    let url = cluster.new_database();
    let servers = children(cluster.pid().unwrap()).len();
    let before = cluster_cpu_seconds(cluster.pid().unwrap());
    let mut measured = ship(&url, &logs, scratch.path(), pods, |stored| {
        let done = done(stored);
        if !done {
            thread::sleep(LOOK);
        }
        done
    });
    // Those that served the connections end with them.
    measured.server = None;
    while children(cluster.pid().unwrap()).len() > servers {
        thread::sleep(LOOK);
    }
    let of_cluster = cluster_cpu_seconds(cluster.pid().unwrap()) - before;
    eprintln!(
        "  Postgres: {of_cluster:.2} CPU s; {:.2} s in all",
        measured.seconds
    );
    measured.cpu_seconds += of_cluster;
    measured
}

/// What a server and its children have used, those that ended among them.
fn cluster_cpu_seconds(server: u32) -> f64 {
    let running: f64 = children(server).into_iter().map(usage::cpu_seconds).sum();
    running + usage::cpu_seconds(server) + usage::ended_children_cpu_seconds(server)
}

fn children(server: u32) -> Vec<u32> {
    let server = server.to_string();
    let processes = fs::read_dir("/proc").unwrap();
    let child = |entry: io::Result<fs::DirEntry>| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        (parent == server).then_some(pid)
    };
    processes.filter_map(child).collect()
}

/// A table of rows in COPY's binary format.
struct Rows(Vec<u8>);

impl Rows {
    fn new() -> Self {
        // Signature, flags, length of the header's extension.
        Self(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec())
    }

    fn row(&mut self, columns: i16) {
        self.0.extend(columns.to_be_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0.extend((bytes.len() as i32).to_be_bytes());
        self.0.extend(bytes);
    }

    fn number(&mut self, number: i64) {
        self.field(&number.to_be_bytes());
    }

    fn optional(&mut self, number: Option<i64>) {
        match number {
            Some(number) => self.number(number),
            None => self.0.extend((-1_i32).to_be_bytes()),
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend((-1_i16).to_be_bytes());
        self.0
    }
}

/// Rows a second of a table by COPY alone; `fill` adds so many rows from the one with this number on.
fn copy(table: &str, copy: &str, rows: usize, fill: impl Fn(&mut Rows, usize, usize)) -> f64 {
    let url = Cluster::shared().new_database();
    runtime().block_on(async {
        let mut database = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(table.to_owned()))
            .execute(&mut database)
            .await
            .unwrap();
        let began = Instant::now();
        let mut written = 0;
        while written < rows {
            let count = ROWS_PER_COMMIT.min(rows - written);
            let mut batch = Rows::new();
            fill(&mut batch, written, count);
            let mut sink = database.copy_in_raw(copy).await.unwrap();
            sink.send(batch.end()).await.unwrap();
            sink.finish().await.unwrap();
            written += count;
        }
        let seconds = began.elapsed().as_secs_f64();
        database.close().await.unwrap();
        rows as f64 / seconds
    })
}

fn copy_lines(rows: usize) -> f64 {
    let message = "x".repeat(generate::PLAIN_MESSAGE);
    copy(
        "CREATE TABLE lines (stream BIGINT, at BIGINT, time BIGINT, level BIGINT, message TEXT)",
        "COPY lines FROM STDIN (FORMAT binary)",
        rows,
        |batch, first, count| {
            for n in first..first + count {
                batch.row(5);
                batch.number(1);
                batch.number(n as i64 * 170);
                batch.number(n as i64);
                batch.number(0);
                batch.field(message.as_bytes());
            }
        },
    )
}

fn copy_runs(rows: usize) -> f64 {
    let mut random = fastrand::Rng::with_seed(2);
    let runs: Vec<Run> = (0..rows)
        .map(|n| runs::run(n, 1_760_000_000_000_000, &mut random))
        .collect();
    copy(
        "CREATE TABLE runs (script_id BIGINT, executed_at BIGINT, run_id TEXT COLLATE \"C\", status BIGINT, \
         source_type BIGINT, version BIGINT, response_time BIGINT, function TEXT, source TEXT, stream_id BIGINT, \
         finished_at BIGINT, traceparent TEXT, PRIMARY KEY (script_id, executed_at, run_id), \
         UNIQUE (script_id, run_id))",
        "COPY runs FROM STDIN (FORMAT binary)",
        rows,
        |batch, first, count| {
            for run in &runs[first..first + count] {
                batch.row(12);
                batch.number(1);
                batch.number(run.began);
                batch.field(run.id.as_bytes());
                batch.number(if run.failed { 2 } else { 1 });
                batch.number(1);
                batch.number(1);
                batch.optional((!run.failed).then_some(run.took));
                batch.field(run.function.as_bytes());
                batch.field(run.source.as_bytes());
                batch.number(7);
                batch.number(run.began + run.took);
                batch.field(run.traceparent.as_bytes());
            }
        },
    )
}
