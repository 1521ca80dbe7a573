//! Files of everything: rows a second, beside what writes the same rows elsewhere.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use scriptscope::{
    export::{
        Plan, Table,
        file::{ExportFolder, ExportKey},
        format::Format,
    },
    model::{Filter, ScriptKey, TimeRange},
    store::{self, Store},
};

use crate::{
    cluster::Cluster,
    generate,
    ingest::{FILES, SCRIPT, Work, runtime, ship},
    report::{Baseline, Report, Scale},
    runs::{self, BARE, ingest},
    testbed::NAMESPACE,
    usage,
};

/// `COPY` of `DuckDB` of the same rows from a Parquet file of ours; prints how long it took.
const DUCKDB: &str = "
import sys, time, duckdb
duckdb.sql(\"SET enable_progress_bar = false\")
began = time.monotonic()
duckdb.sql(f\"COPY (FROM '{sys.argv[1]}') TO '{sys.argv[2]}' (HEADER)\")
print(time.monotonic() - began)
";

/// The rows that a file of runs has, as SQLite's own shell writes them.
const RUNS: &str = "SELECT run_id, status, version, response_time / 1000.0, function, \
    strftime('%Y-%m-%dT%H:%M:%fZ', executed_at / 1e6, 'unixepoch'), source_type, source \
    FROM runs ORDER BY executed_at DESC, run_id DESC";

/// The same rows as Postgres's shell writes them.
const RUNS_OF_POSTGRES: &str = "SELECT run_id, status, version, response_time / 1000.0, function, \
    to_char(to_timestamp(executed_at / 1e6) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), source_type, source \
    FROM runs ORDER BY executed_at DESC, run_id DESC";

/// Log lines to a CSV file.
pub fn logs_csv(scale: Scale) {
    let lines = scale.of(10_000_000, 300_000);
    let work = Work::new(|logs, pods| generate::plain(logs, pods, lines));
    work.ship(lines).stop();
    let scratch = tempfile::tempdir().unwrap();
    let database = url_of(&work.database());
    let measured = write(&database, scratch.path(), Table::Logs, Format::default());
    assert_eq!(measured.rows as usize, lines);
    let parquet = write(&database, scratch.path(), Table::Logs, Format::Parquet);
    eprintln!("  Parquet: {:.0} rows/s", parquet.rows as f64 / parquet.seconds);
    let output = Command::new("python3")
        .args(["-c", DUCKDB])
        .arg(&parquet.file)
        .arg(scratch.path().join("duckdb.csv"))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    // A bar of progress may stand before it.
    let printed = String::from_utf8_lossy(&output.stdout);
    let seconds = printed
        .split_whitespace()
        .last()
        .and_then(|text| text.parse().ok());
    measured.report(
        "export_logs_csv",
        "DuckDB's COPY of the same rows (0: the Python package duckdb is not there)",
        seconds,
    );
}

/// Runs to a CSV file.
pub fn runs_csv(scale: Scale) {
    let runs = scale.of(1_000_000, 50_000);
    let scratch = tempfile::tempdir().unwrap();
    ingest(scratch.path(), runs, BARE);
    let database = scratch.path().join("store.db");
    let measured = write(&url_of(&database), scratch.path(), Table::Runs, Format::default());
    assert_eq!(measured.rows as usize, runs);
    let began = Instant::now();
    let status = Command::new("sqlite3")
        .args(["-csv", "-header", "-readonly"])
        .arg(&database)
        .arg(RUNS)
        .stdout(File::create(scratch.path().join("sqlite.csv")).unwrap())
        .status();
    let seconds = began.elapsed().as_secs_f64();
    measured.report(
        "export_runs_csv",
        "sqlite3 -csv of the same rows (0: sqlite3 is not there)",
        status
            .ok()
            .filter(std::process::ExitStatus::success)
            .map(|_| seconds),
    );
}

/// The same out of Postgres, which shares the processors with who reads.
pub fn runs_csv_postgres(scale: Scale) {
    let runs = scale.of(1_000_000, 50_000);
    let scratch = tempfile::tempdir().unwrap();
    let logs = scratch.path().join("pods");
    let pods = generate::pods(FILES, SCRIPT);
    runs::write(&logs, &pods, runs, BARE);
    let url = Cluster::shared().new_database();
    drop(ship(&url, &logs, scratch.path(), pods, |stored| {
        stored.ended as usize >= runs
    }));
    let measured = write(&url, scratch.path(), Table::Runs, Format::default());
    assert_eq!(measured.rows as usize, runs);
    let file = scratch.path().join("psql.csv");
    let began = Instant::now();
    let status = Command::new("psql")
        .args([&url, "--quiet", "--command"])
        .arg(format!(
            "\\copy ({RUNS_OF_POSTGRES}) TO '{}' WITH (FORMAT csv, HEADER)",
            file.display()
        ))
        .status();
    let seconds = began.elapsed().as_secs_f64();
    measured.report(
        "export_runs_csv_postgres",
        "psql's \\copy of the same rows (0: psql is not there)",
        status
            .ok()
            .filter(std::process::ExitStatus::success)
            .map(|_| seconds),
    );
}

fn url_of(database: &Path) -> String {
    format!("sqlite://{}", database.display())
}

/// A file, and what it took.
struct Measured {
    file: PathBuf,
    rows: u64,
    seconds: f64,
    cpu_seconds: f64,
}

fn write(url: &str, scratch: &Path, table: Table, format: Format) -> Measured {
    runtime().block_on(async {
        let store: Arc<dyn Store> = store::open(url).await.unwrap();
        let folder = ExportFolder::new(scratch);
        let key = ExportKey {
            namespace: NAMESPACE.to_owned(),
            name: format.extension().to_owned(),
        };
        let plan = Plan::new(
            ScriptKey::new(NAMESPACE, SCRIPT),
            table,
            TimeRange::ALL,
            Filter::default(),
        );
        let process = std::process::id();
        let (began, before) = (Instant::now(), usage::cpu_seconds(process));
        let written = folder
            .write(&key, "uid", plan, format, store.clone(), &|_| {})
            .await
            .unwrap();
        let measured = Measured {
            rows: written.rows,
            seconds: began.elapsed().as_secs_f64(),
            cpu_seconds: usage::cpu_seconds(process) - before,
            file: folder.find(&key).await.unwrap().unwrap().1,
        };
        store.close().await;
        measured
    })
}

impl Measured {
    /// Prints it beside a baseline that took so many seconds for the same rows.
    fn report(&self, name: &'static str, baseline: &'static str, seconds: Option<f64>) {
        Report {
            name,
            value: self.rows as f64 / self.seconds,
            unit: "rows/s",
            baseline: Baseline {
                name: baseline,
                value: seconds.map_or(0.0, |seconds| self.rows as f64 / seconds),
            },
            ratio: 0.0,
            cpu_seconds: self.cpu_seconds,
            max_rss_bytes: usage::max_rss_bytes(std::process::id()),
            n: self.rows as usize,
        }
        .print();
    }
}
