//! What a stored line takes on disk.

use std::{fs, thread, time::Duration};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    generate,
    ingest::{self, Work},
    report::{Baseline, Report, Scale},
};

/// The number of segments must not change for so long until merging counts as done.
const QUIET: Duration = Duration::from_secs(1);

/// Bytes of the SQLite file a plain line, once segments are merged.
pub fn per_line(scale: Scale) {
    let lines = scale.of(10_000_000, 300_000);
    let work = Work::new(|logs, pods| generate::plain(logs, pods, lines));
    let measured = work.ship(lines);
    let options = SqliteConnectOptions::new()
        .filename(work.database())
        .disable_statement_logging();
    let (segments, bodies) = ingest::runtime().block_on(async {
        let mut file = options.clone().read_only(true).connect().await.unwrap();
        let mut segments = segments(&mut file).await;
        loop {
            thread::sleep(QUIET);
            let now = self::segments(&mut file).await;
            if now == segments {
                break;
            }
            segments = now;
        }
        file.close().await.unwrap();
        segments
    });
    let (cpu_seconds, max_rss_bytes) = (measured.cpu_seconds, measured.max_rss_bytes);
    // Nobody else may have the file open when the log is written back.
    measured.stop();
    ingest::runtime().block_on(async {
        let mut file = options.connect().await.unwrap();
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut file)
            .await
            .unwrap();
        file.close().await.unwrap();
    });
    let bytes = fs::metadata(work.database()).unwrap().len();
    eprintln!(
        "  {segments} segments of {} lines and {:.1} bytes a line; the file: {:.1} MiB",
        lines as i64 / segments,
        bodies as f64 / lines as f64,
        bytes as f64 / f64::from(1 << 20),
    );
    Report {
        name: "bytes_per_line",
        value: bytes as f64 / lines as f64,
        unit: "bytes",
        baseline: Baseline {
            name: "the message as text",
            value: generate::PLAIN_MESSAGE as f64,
        },
        ratio: 0.0,
        cpu_seconds,
        max_rss_bytes,
        n: lines,
    }
    .print();
}

/// Number of segments, and bytes in their bodies.
async fn segments(file: &mut SqliteConnection) -> (i64, i64) {
    sqlx::query_as("SELECT count(*), coalesce(sum(length(body)), 0) FROM log_segments")
        .fetch_one(file)
        .await
        .unwrap()
}
