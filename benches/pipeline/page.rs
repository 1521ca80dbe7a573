//! Reading runs: the first page with filters of every kind, and the tiles, over the runs of one script in 90 days.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use fastrand::Rng;
use jiff::Timestamp;
use scriptscope::{
    model::{Column, Condition, Filter, Match, Operator, ScriptKey, TimeRange},
    store::{RowQuery, Store},
};
use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    cluster::Cluster,
    many_runs,
    report::{Baseline, Report, Scale},
    usage,
};

const NEWEST: &str = "SELECT * FROM runs WHERE script_id = 1 ORDER BY executed_at DESC, run_id DESC LIMIT 50";
/// Rows of a page.
const PAGE: usize = 50;

/// Many runs in a store, made once for all benchmarks that read them.
struct Measured {
    folder: TempDir,
    store: Arc<dyn Store>,
    /// Of the Postgres database.
    url: String,
    runtime: Runtime,
    runs: usize,
    end: Timestamp,
}

fn make(scale: Scale, postgres: bool) -> Measured {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let runs = scale.of(10_000_000, 200_000);
    let began = Instant::now();
    let url = if postgres {
        Cluster::shared().new_database()
    } else {
        String::new()
    };
    let (store, end) = if postgres {
        runtime.block_on(many_runs::postgres(&url, runs))
    } else {
        runtime.block_on(many_runs::sqlite(&file(&folder), runs))
    };
    eprintln!("  {runs} runs made in {:.0} s", began.elapsed().as_secs_f64());
    Measured {
        folder,
        store,
        url,
        runtime,
        runs,
        end,
    }
}

fn measured(scale: Scale) -> &'static Measured {
    static MEASURED: OnceLock<Measured> = OnceLock::new();
    MEASURED.get_or_init(|| make(scale, false))
}

fn file(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("store.db")
}

fn script() -> ScriptKey {
    ScriptKey::new(many_runs::NAMESPACE, many_runs::SCRIPT)
}

/// Filters of every kind; each finds something in the last day, most of them little.
fn filters(measured: &Measured) -> Vec<(&'static str, Filter)> {
    let run_id = many_runs::run_id(measured.end, measured.runs, 1_000);
    let one = |column, operator, values: &[&str]| Condition {
        column,
        operator,
        values: values.iter().map(|&value| value.to_owned()).collect(),
    };
    let all = |conditions| Filter {
        matching: Match::All,
        conditions,
    };
    let any = |conditions| Filter {
        matching: Match::Any,
        conditions,
    };
    vec![
        ("none", Filter::default()),
        (
            "failed",
            all(vec![one(Column::Status, Operator::Equals, &["Failed"])]),
        ),
        (
            "in progress",
            all(vec![one(Column::Status, Operator::Equals, &["In Progress"])]),
        ),
        (
            "rare version",
            all(vec![one(Column::DeploymentVersion, Operator::Equals, &["6"])]),
        ),
        (
            "rare function",
            all(vec![one(Column::Function, Operator::Equals, &["cleanup"])]),
        ),
        (
            "function contains",
            all(vec![one(Column::Function, Operator::Contains, &["LEAN"])]),
        ),
        (
            "rare source",
            all(vec![one(Column::Source, Operator::Equals, &["nightly-audit"])]),
        ),
        (
            "source contains",
            all(vec![one(Column::Source, Operator::Contains, &["Audit"])]),
        ),
        (
            "rare source type",
            all(vec![one(Column::SourceType, Operator::Equals, &["Test"])]),
        ),
        (
            "slow",
            all(vec![one(Column::ResponseTime, Operator::AtLeast, &["30000"])]),
        ),
        (
            "run id contains",
            all(vec![one(Column::RunId, Operator::Contains, &[&run_id[8..]])]),
        ),
        (
            "failed and slow source",
            all(vec![
                one(Column::Status, Operator::Equals, &["Failed"]),
                one(Column::Source, Operator::Contains, &["service-7", "service-11"]),
            ]),
        ),
        (
            "any of three",
            any(vec![
                one(Column::Source, Operator::Equals, &["nightly-audit"]),
                one(Column::DeploymentVersion, Operator::Equals, &["6"]),
                one(Column::ResponseTime, Operator::AtLeast, &["30000"]),
            ]),
        ),
        (
            "not equals",
            all(vec![one(
                Column::Source,
                Operator::NotEquals,
                &["billing-service-1"],
            )]),
        ),
    ]
}

/// The first page of runs in SQLite.
pub fn runs_p99_sqlite(scale: Scale) {
    let measured = measured(scale);
    let (value, n) = first_pages(measured, scale);
    let raw = raw_page(measured, scale);
    report("page_runs_p99_sqlite", "SQLite by primary key", value, n, raw);
}

/// The first page of runs in Postgres.
pub fn runs_p99_postgres(scale: Scale) {
    let measured = make(scale, true);
    let (value, n) = first_pages(&measured, scale);
    let raw = raw_page_postgres(&measured, scale);
    report("page_runs_p99_postgres", "Postgres by primary key", value, n, raw);
}

fn first_pages(measured: &Measured, scale: Scale) -> (f64, usize) {
    let found = pages(measured, Duration::from_hours(24), scale.of(3_000, 150));
    // For information: what a filter costs that finds little in a week and in all of the 90 days.
    for days in [7, 90] {
        pages(measured, Duration::from_hours(24 * days), scale.of(140, 14));
    }
    found
}

/// P99 of first pages over the last so long, in milliseconds, and how many there were.
fn pages(measured: &Measured, age: Duration, count: usize) -> (f64, usize) {
    let filters = filters(measured);
    let mut all = Vec::new();
    for (kind, filter) in &filters {
        let mut took = Vec::new();
        let mut found = 0;
        for _ in 0..count / filters.len() {
            let query = RowQuery {
                script: script(),
                range: TimeRange {
                    from: Some(measured.end - age),
                    to: None,
                },
                filter: filter.clone(),
                after: None,
                limit: PAGE,
            };
            let began = Instant::now();
            let page = measured.runtime.block_on(measured.store.runs(&query)).unwrap();
            took.push(began.elapsed());
            found = page.rows.len();
        }
        assert!(found > 0, "{kind} finds nothing");
        all.extend(took.iter().copied());
        eprintln!(
            "  {} days, {kind}: p99 {:.1} ms, {found} rows",
            age.as_secs() / 86_400,
            p99(&mut took)
        );
    }
    (p99(&mut all), all.len())
}

/// P99 in milliseconds.
fn p99(took: &mut [Duration]) -> f64 {
    took.sort_unstable();
    took[(took.len() * 99).div_ceil(100) - 1].as_secs_f64() * 1e3
}

/// P99 of the newest rows by the primary key, by bare SQLite.
fn raw_page(measured: &Measured, scale: Scale) -> f64 {
    raw(
        &file(&measured.folder),
        NEWEST,
        &measured.runtime,
        scale.of(1_000, 100),
    )
}

/// As [`raw_page`], by bare Postgres.
fn raw_page_postgres(measured: &Measured, scale: Scale) -> f64 {
    measured.runtime.block_on(async {
        let mut connection = PgConnection::connect(&measured.url).await.unwrap();
        let mut took = Vec::new();
        for _ in 0..scale.of(1_000, 100) {
            let began = Instant::now();
            sqlx::query(NEWEST).fetch_all(&mut connection).await.unwrap();
            took.push(began.elapsed());
        }
        p99(&mut took)
    })
}

fn raw(path: &Path, sql: &'static str, runtime: &Runtime, count: usize) -> f64 {
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let mut file = SqliteConnection::connect_with(&options).await.unwrap();
        let mut took = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            sqlx::query(sql).fetch_all(&mut file).await.unwrap();
            took.push(began.elapsed());
        }
        file.close().await.unwrap();
        p99(&mut took)
    })
}

/// The tiles without a filter, over the last days or all time.
pub fn tiles_p99(scale: Scale) {
    let measured = measured(scale);
    let mut random = Rng::with_seed(4);
    let mut all = Vec::new();
    for days in [1, 7, 30, 90, 0] {
        let mut took = Vec::new();
        for _ in 0..scale.of(100, 20) {
            let age = Duration::from_secs(days * 86_400 + random.u64(..3_600));
            let range = TimeRange {
                from: (days > 0).then(|| measured.end - age),
                to: None,
            };
            let began = Instant::now();
            let (script, all) = (script(), Filter::default());
            let figures = measured.store.window_figures(&script, range, &all);
            let figures = measured.runtime.block_on(figures).unwrap();
            took.push(began.elapsed());
            assert!(figures.total_runs > 0);
        }
        all.extend(took.iter().copied());
        eprintln!("  {days} days: p99 {:.1} ms", p99(&mut took));
    }
    let sql = "SELECT status, count(*), max(executed_at) FROM runs WHERE script_id = 1 GROUP BY status";
    let baseline = raw(&file(&measured.folder), sql, &measured.runtime, 2);
    report(
        "tiles_p99",
        "SQLite count of all rows",
        p99(&mut all),
        all.len(),
        baseline,
    );
    eprintln!("  over {} runs", measured.runs);
}

fn report(name: &'static str, baseline: &'static str, value: f64, n: usize, raw: f64) {
    let process = std::process::id();
    Report {
        name,
        value,
        unit: "ms",
        baseline: Baseline {
            name: baseline,
            value: raw,
        },
        ratio: 0.0,
        cpu_seconds: usage::cpu_seconds(process),
        max_rss_bytes: usage::max_rss_bytes(process),
        n,
    }
    .print();
}
