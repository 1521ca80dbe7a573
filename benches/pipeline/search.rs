//! Looking for text in many log lines.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use memchr::memmem::Finder;
use scriptscope::{
    model::{Column, Condition, Filter, LogLevel, Match, Operator, ScriptKey, TimeRange},
    store::{self, RowQuery, Store},
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    generate, many_lines,
    report::{Baseline, Report, Scale},
    usage,
};

/// Lines of the plain text that the baseline looks through, again and again.
const PLAIN: usize = 100_000;

/// Many lines in a SQLite file, made once for all benchmarks that read them.
struct Lines {
    _folder: TempDir,
    store: Arc<dyn Store>,
    runtime: Runtime,
    count: usize,
    /// Ids that stand in one line each, from old to new.
    ids: Vec<String>,
}

fn lines(scale: Scale) -> &'static Lines {
    static MADE: OnceLock<Lines> = OnceLock::new();
    MADE.get_or_init(|| {
        let (runtime, folder) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
        let lines = scale.of(10_000_000, 300_000);
        let began = Instant::now();
        let path = folder.path().join("store.db");
        let (store, ids) = runtime.block_on(fill(&format!("sqlite://{}", path.display()), lines));
        eprintln!("  stored after {:.0} s", began.elapsed().as_secs_f64());
        runtime.block_on(indexed(&path));
        let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        eprintln!(
            "  {lines} lines made in {:.0} s, {:.1} bytes each",
            began.elapsed().as_secs_f64(),
            bytes as f64 / lines as f64
        );
        Lines {
            _folder: folder,
            store,
            runtime,
            count: lines,
            ids,
        }
    })
}

async fn fill(url: &str, count: usize) -> (Arc<dyn Store>, Vec<String>) {
    let store = store::open(url).await.unwrap();
    let lines = many_lines::Lines {
        script: script(),
        version: 1,
        count,
        step: 1_000,
        level: |_| LogLevel::Stdout,
    };
    let ids = many_lines::fill(&store, &lines).await;
    (store, ids)
}

/// Waits until it is written down which texts the segments may have.
async fn indexed(path: &Path) {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    let waiting = "SELECT count(*) FROM log_segments_to_index";
    while sqlx::query_scalar::<_, i64>(waiting)
        .fetch_one(&mut file)
        .await
        .unwrap()
        > 0
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    file.close().await.unwrap();
}

fn script() -> ScriptKey {
    ScriptKey::new("bed", "measured")
}

impl Lines {
    fn find(&self, text: &str) -> (Duration, usize) {
        let query = RowQuery {
            script: script(),
            range: TimeRange::ALL,
            filter: Filter {
                matching: Match::All,
                conditions: vec![Condition {
                    column: Column::LogMessage,
                    operator: Operator::Contains,
                    values: vec![text.to_owned()],
                }],
            },
            after: None,
            limit: 50,
        };
        let began = Instant::now();
        let page = self.runtime.block_on(self.store.logs(&query)).unwrap();
        (began.elapsed(), page.rows.len())
    }

    /// Milliseconds in which one core finds that a text is in none of as many lines that lie in memory.
    fn memmem(&self) -> f64 {
        let mut random = fastrand::Rng::with_seed(2);
        let text: String = (0..PLAIN)
            .map(|n| generate::plain_message(n, random.u64(..)) + "\n")
            .collect();
        let finder = Finder::new("there is no such text");
        let began = Instant::now();
        for _ in 0..self.count.div_ceil(PLAIN) {
            assert!(finder.find(text.as_bytes()).is_none());
        }
        began.elapsed().as_secs_f64() * 1e3
    }

    fn report(&self, name: &'static str, mut took: Vec<Duration>) {
        took.sort_unstable();
        let process = std::process::id();
        eprintln!(
            "  p50 {:.1} ms, max {:.1} ms",
            took[took.len() / 2].as_secs_f64() * 1e3,
            took[took.len() - 1].as_secs_f64() * 1e3
        );
        Report {
            name,
            value: took[(took.len() * 99).div_ceil(100) - 1].as_secs_f64() * 1e3,
            unit: "ms",
            baseline: Baseline {
                name: "memmem over the plain text in memory, one core",
                value: self.memmem(),
            },
            ratio: 0.0,
            cpu_seconds: usage::cpu_seconds(process),
            max_rss_bytes: usage::max_rss_bytes(process),
            n: took.len(),
        }
        .print();
    }
}

/// Texts that are in no line: the slowest of them is one too short for the filters of segments to tell.
pub fn miss(scale: Scale) {
    let lines = lines(scale);
    let mut took = Vec::new();
    for text in ["zzqx", "OutOfMemory", "connection refused", "customer 1000 "] {
        for _ in 0..scale.of(10, 3) {
            let (time, found) = lines.find(text);
            assert_eq!(found, 0);
            took.push(time);
        }
        eprintln!("  {text:?}: {:.1} ms", took[took.len() - 1].as_secs_f64() * 1e3);
    }
    lines.report("search_miss", took);
}

/// An id that stands in one line of all.
pub fn token(scale: Scale) {
    let lines = lines(scale);
    let step = (lines.ids.len() / scale.of(100, 10)).max(1);
    let mut took = Vec::new();
    for id in lines.ids.iter().step_by(step) {
        let (time, found) = lines.find(id);
        assert_eq!(found, 1, "{id}");
        took.push(time);
    }
    lines.report("search_token", took);
}
