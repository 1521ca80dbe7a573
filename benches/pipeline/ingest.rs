//! From files on disk to committed in the store: agent, HTTP, parsing, segments, fsync.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    generate,
    report::{Baseline, Report, Scale},
    testbed::{self, Config, Pod, Process, Stored},
    usage,
};

pub const FILES: usize = 20;
pub const SCRIPT: &str = "measured";

/// Plain lines into SQLite.
pub fn plain_sqlite(scale: Scale) {
    let lines = scale.of(30_000_000, 300_000);
    let work = Work::new(|logs, pods| generate::plain(logs, pods, lines));
    work.print_wc();
    let measured = work.ship(lines);
    Report {
        name: "ingest_plain_sqlite",
        value: lines as f64 / measured.seconds,
        unit: "lines/s",
        baseline: work.sqlite_rows(scale),
        ratio: 0.0,
        cpu_seconds: measured.cpu_seconds,
        max_rss_bytes: measured.max_rss_bytes,
        n: lines,
    }
    .print();
}

/// Spans of korelogger into SQLite.
pub fn spans_sqlite(scale: Scale) {
    let spans = scale.of(1_500_000, 60_000);
    let work = Work::new(|logs, pods| generate::spans(logs, pods, spans));
    work.print_wc();
    let measured = work.ship(spans);
    Report {
        name: "ingest_spans_sqlite",
        value: spans as f64 / measured.seconds,
        unit: "spans/s",
        baseline: work.sqlite_rows(scale),
        ratio: 0.0,
        cpu_seconds: measured.cpu_seconds,
        max_rss_bytes: measured.max_rss_bytes,
        n: spans,
    }
    .print();
}

/// Memory of the operator while plain lines come in as fast as they can, beside what it takes when idle.
pub fn rss(scale: Scale) {
    let lines = scale.of(5_000_000, 300_000);
    let work = Work::new(|logs, pods| generate::plain(logs, pods, lines));
    let measured = work.ship(lines);
    Report {
        name: "rss_ingest",
        value: measured.max_rss_bytes as f64,
        unit: "bytes",
        baseline: Baseline {
            name: "the same process before",
            value: measured.idle_rss_bytes as f64,
        },
        ratio: 0.0,
        cpu_seconds: measured.cpu_seconds,
        max_rss_bytes: measured.max_rss_bytes,
        n: lines,
    }
    .print();
}

/// Files of pods, and a place for the store.
pub struct Work {
    scratch: tempfile::TempDir,
    logs: PathBuf,
    pods: Vec<Pod>,
}

/// What shipping cost.
pub struct Measured {
    /// From the agent's start to the last commit.
    pub seconds: f64,
    /// Of server and agent.
    pub cpu_seconds: f64,
    /// Of the server.
    pub max_rss_bytes: u64,
    /// Of the server, before the agent was started.
    pub idle_rss_bytes: u64,
    pub server: Option<Process>,
}

impl Measured {
    /// Ends the server; until then it goes on, with merging for one.
    pub fn stop(self) {
        drop(self.server);
    }
}

impl Work {
    /// Files of 20 pods of one script, written by `write`.
    pub fn new(write: impl FnOnce(&Path, &[Pod])) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let logs = scratch.path().join("pods");
        let pods = generate::pods(FILES, SCRIPT);
        write(&logs, &pods);
        Self { scratch, logs, pods }
    }

    /// The SQLite file.
    pub fn database(&self) -> PathBuf {
        self.scratch.path().join("store.db")
    }

    /// Runs server and agent on the files until `lines` lines are stored.
    pub fn ship(&self, lines: usize) -> Measured {
        let url = format!("sqlite://{}", self.database().display());
        let (logs, scratch) = (&self.logs, self.scratch.path());
        ship(&url, logs, scratch, self.pods.clone(), |stored| {
            stored.lines as usize >= lines
        })
    }

    /// How fast the files' lines can be counted at all.
    fn print_wc(&self) {
        let files = self
            .pods
            .iter()
            .map(|pod| self.logs.join(pod.folder()).join("0.log"));
        let began = Instant::now();
        let output = Command::new("wc").arg("-l").args(files).output().unwrap();
        let seconds = began.elapsed().as_secs_f64();
        let text = String::from_utf8(output.stdout).unwrap();
        let total = text.lines().last().unwrap().split_whitespace().next().unwrap();
        let lines: f64 = total.parse().unwrap();
        eprintln!("  wc -l: {:.0} lines/s", lines / seconds);
    }

    /// Rows a second of lines as rows, without an index.
    fn sqlite_rows(&self, scale: Scale) -> Baseline {
        Baseline {
            name: "SQLite multi-row insert",
            value: sqlite_rows_per_second(self.scratch.path(), scale.of(1_000_000, 100_000)),
        }
    }
}

/// Runs server and agent on the files until all is done.
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
    let idle_rss_bytes = usage::max_rss_bytes(server.0.id());
    let began = Instant::now();
    let agent = testbed::start_agent(address, logs, scratch);
    let all = loop {
        let stored = stored(address, SCRIPT);
        if done(stored) {
            break stored;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let seconds = began.elapsed().as_secs_f64();
    let [of_agent, of_server] = [agent.0.id(), server.0.id()].map(usage::cpu_seconds);
    eprintln!(
        "  agent: {of_agent:.2} CPU s, {} MiB; server: {of_server:.2} CPU s, {} MiB; {:.2} CPU s a million lines",
        usage::max_rss_bytes(agent.0.id()) >> 20,
        usage::max_rss_bytes(server.0.id()) >> 20,
        (of_agent + of_server) * 1e6 / all.lines.max(1) as f64,
    );
    Measured {
        seconds,
        cpu_seconds: of_agent + of_server,
        max_rss_bytes: usage::max_rss_bytes(server.0.id()),
        idle_rss_bytes,
        server: Some(server),
    }
}

/// What a script has stored.
pub fn stored(server: SocketAddr, script: &str) -> Stored {
    static CLIENT: LazyLock<(tokio::runtime::Runtime, reqwest::Client)> =
        LazyLock::new(|| (runtime(), reqwest::Client::new()));
    let (runtime, client) = &*CLIENT;
    runtime.block_on(async {
        let url = format!("http://{server}/stored/{script}");
        client.get(url).send().await.unwrap().json().await.unwrap()
    })
}

/// For a few requests and statements.
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
