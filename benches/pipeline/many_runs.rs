//! Runs by the million, written straight into the tables: their rows by SQL alone, their rollups as the store writes them.
//! The same runs in either store.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use jiff::Timestamp;
use scriptscope::{
    ingest::wire::StreamKey,
    model::ScriptKey,
    store::{self, PodRecord, Store, digest::Digest},
};
use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

pub const NAMESPACE: &str = "bed";
pub const SCRIPT: &str = "measured";
const DAYS: i64 = 90;
const HOUR: i64 = 3_600_000_000;
/// Versions, one after the other, and one beside them that runs rarely.
const VERSIONS: i64 = 5;
const TOTALS: &str = "version_totals";
/// Rows of one transaction.
const CHUNK: i64 = 500_000;

/// The id of the run that is `n` before the last of so many.
pub fn run_id(end: Timestamp, runs: usize, n: i64) -> String {
    let span = Span::new(runs, end);
    format!("run_{:016x}", span.begin + (span.runs - n) * span.step)
}

/// Where so many runs of one script lie, evenly over 90 days.
#[derive(Clone, Copy)]
struct Span {
    runs: i64,
    /// Microseconds: when the first began, and from one to the next.
    begin: i64,
    step: i64,
}

impl Span {
    fn new(runs: usize, end: Timestamp) -> Self {
        let runs = runs as i64;
        let step = DAYS * 24 * HOUR / runs;
        Self {
            runs,
            begin: end.as_microsecond() - runs * step,
            step,
        }
    }

    fn chunks(self) -> impl Iterator<Item = (i64, i64)> {
        (0..self.runs)
            .step_by(CHUNK as usize)
            .map(move |first| (first, (first + CHUNK).min(self.runs)))
    }
}

async fn prepared(url: &str) {
    let store = store::open(url).await.unwrap();
    for version in 1..=VERSIONS + 1 {
        stream(&store, version).await;
    }
    store.close().await;
}

/// Inserts the runs by `sql`, chunk by chunk. A macro, as what a statement binds to is of another type for each database.
macro_rules! insert_runs {
    ($connection:expr, $span:expr, $sql:expr) => {
        for (first, after) in $span.chunks() {
            let insert = sqlx::query(sqlx::AssertSqlSafe($sql.as_str()))
                .bind(first)
                .bind(after);
            let insert = insert.bind($span.begin).bind($span.step).bind($span.runs);
            insert.execute(&mut $connection).await.unwrap();
        }
    };
}

/// Inserts the rollups of the runs.
macro_rules! insert_rollups {
    ($connection:expr, $span:expr) => {
        for row in rollups($span) {
            let insert = sqlx::query(sqlx::AssertSqlSafe(row.sql()))
                .bind(row.hour)
                .bind(row.version);
            let insert = insert.bind(row.function).bind(row.succeeded).bind(row.failed);
            insert.bind(row.digest).execute(&mut $connection).await.unwrap();
        }
    };
}

/// A SQLite store with so many runs, and the moment after the last.
pub async fn sqlite(path: &Path, runs: usize) -> (Arc<dyn Store>, Timestamp) {
    let url = format!("sqlite://{}", path.display());
    let end = Timestamp::now();
    let span = Span::new(runs, end);
    prepared(&url).await;
    let options = SqliteConnectOptions::new().filename(path);
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    for pragma in [
        "synchronous = OFF",
        "cache_size = -262144",
        "wal_autocheckpoint = 20000",
    ] {
        let sql = sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"));
        sqlx::query(sql).execute(&mut file).await.unwrap();
    }
    let sql = rows_sql(
        "WITH RECURSIVE n(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < $2)",
        "printf('run_%016x', began)",
    );
    insert_runs!(file, span, sql);
    sqlx::query("BEGIN").execute(&mut file).await.unwrap();
    insert_rollups!(file, span);
    sqlx::query("COMMIT").execute(&mut file).await.unwrap();
    file.close().await.unwrap();
    (store::open(&url).await.unwrap(), end)
}

/// As [`sqlite`], in an empty Postgres database.
pub async fn postgres(url: &str, runs: usize) -> (Arc<dyn Store>, Timestamp) {
    let end = Timestamp::now();
    let span = Span::new(runs, end);
    prepared(url).await;
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query("SET synchronous_commit = off")
        .execute(&mut connection)
        .await
        .unwrap();
    let sql = rows_sql(
        "WITH n(n) AS (SELECT generate_series($1::bigint, $2::bigint - 1))",
        "'run_' || lpad(to_hex(began), 16, '0')",
    );
    insert_runs!(connection, span, sql);
    insert_rollups!(connection, span);
    // As autovacuum has it after a while.
    sqlx::query("VACUUM (ANALYZE) runs")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    (store::open(url).await.unwrap(), end)
}

/// Inserts runs `$1` to before `$2` of `$5`, the first at `$3`, each `$4` after the one before. [`Made::of`] says the same
/// of run `n`; `x` scatters.
fn rows_sql(numbers: &str, run_id: &str) -> String {
    format!(
        "{numbers},
x AS (SELECT n, (n * 2654435761) & 4294967295 AS x FROM n),
v AS (SELECT n, x, $3 + n * $4 AS began,
    CASE WHEN n % 40000 = 13 AND n > $5 - $5 / 90 THEN 0 WHEN x % 100 = 0 THEN 2 ELSE 1 END AS status,
    CASE WHEN n % 50000 = 17 THEN 6 ELSE 1 + n * 5 / $5 END AS version,
    1000 + x % 9000 + CASE WHEN n % 45000 = 31 THEN 60000000 ELSE 0 END AS took FROM x)
INSERT INTO runs (script_id, executed_at, run_id, status, source_type, version, response_time, function, source, stream_id,
    finished_at, reason)
SELECT 1, began, {run_id}, status,
    CASE WHEN n % 30000 = 3 THEN 2 ELSE x % 2 END, version, CASE WHEN status = 1 THEN took END,
    CASE WHEN n % 35000 = 5 THEN 'cleanup' WHEN x % 3 = 0 THEN 'check' WHEN x % 3 = 1 THEN 'transfer' ELSE 'report' END,
    CASE WHEN n % 60000 = 29 THEN 'nightly-audit' ELSE 'billing-service-' || (x / 128 % 20) END,
    version, CASE WHEN status <> 0 THEN began + took END, CASE WHEN status = 2 THEN 'Exception' END
FROM v"
    )
}

/// What the rollups need of a run.
struct Made {
    succeeded: bool,
    failed: bool,
    version: i64,
    took: i64,
    function: &'static str,
}

impl Made {
    fn of(n: i64, runs: i64) -> Self {
        let x = n.wrapping_mul(2_654_435_761) & 0xffff_ffff;
        let in_progress = n % 40_000 == 13 && n > runs - runs / 90;
        let failed = !in_progress && x % 100 == 0;
        Self {
            succeeded: !in_progress && !failed,
            failed,
            version: if n % 50_000 == 17 { 6 } else { 1 + n * 5 / runs },
            took: 1_000 + x % 9_000 + if n % 45_000 == 31 { 60_000_000 } else { 0 },
            function: if n % 35_000 == 5 {
                "cleanup"
            } else {
                ["check", "transfer", "report"][(x % 3) as usize]
            },
        }
    }
}

#[derive(Default)]
struct Sum {
    succeeded: i64,
    failed: i64,
    digest: Digest,
}

/// A row of a table of rollups.
struct Rollup {
    table: &'static str,
    /// The first one of its time; in `version_totals`, when the last run began.
    hour: i64,
    version: i64,
    function: &'static str,
    succeeded: i64,
    failed: i64,
    digest: Vec<u8>,
}

impl Rollup {
    fn new(table: &'static str, hour: i64, version: i64, function: &'static str, sum: Sum) -> Self {
        Self {
            table,
            hour,
            version,
            function,
            succeeded: sum.succeeded,
            failed: sum.failed,
            digest: sum.digest.encode(),
        }
    }

    fn sql(&self) -> String {
        if self.table == TOTALS {
            // There are no lines; the empty function stands for their number, so that both statements bind the same.
            return format!(
                "INSERT INTO {TOTALS} (script_id, last_run_at, version, lines, succeeded, failed, digest) \
                 VALUES (1, $1, $2, length($3), $4, $5, $6)"
            );
        }
        format!(
            "INSERT INTO {} (script_id, hour, version, function, succeeded, failed, digest) \
             VALUES (1, $1, $2, $3, $4, $5, $6)",
            self.table
        )
    }
}

fn rollups(span: Span) -> Vec<Rollup> {
    let mut rows = Vec::new();
    let mut totals: BTreeMap<i64, (Sum, i64)> = BTreeMap::new();
    let mut day: (i64, BTreeMap<i64, Sum>) = (i64::MIN, BTreeMap::new());
    let mut hour: (i64, BTreeMap<(i64, &'static str), Sum>) = (i64::MIN, BTreeMap::new());
    for n in 0..=span.runs {
        let at = span.begin + n * span.step;
        let is_last = n == span.runs;
        let this = at.div_euclid(HOUR);
        if this != hour.0 || is_last {
            for ((version, function), sum) in std::mem::take(&mut hour.1) {
                rows.push(Rollup::new("run_rollups", hour.0, version, function, sum));
            }
            hour.0 = this;
        }
        if this / 24 != day.0 || is_last {
            for (version, sum) in std::mem::take(&mut day.1) {
                rows.push(Rollup::new("run_days", day.0 * 24, version, "", sum));
            }
            day.0 = this / 24;
        }
        if is_last {
            break;
        }
        let made = Made::of(n, span.runs);
        let (total, last) = totals.entry(made.version).or_default();
        *last = at;
        let hourly = hour.1.entry((made.version, made.function)).or_default();
        let daily = day.1.entry(made.version).or_default();
        for sum in [total, hourly, daily] {
            sum.failed += i64::from(made.failed);
            if made.succeeded {
                sum.succeeded += 1;
                sum.digest.add(made.took);
            }
        }
    }
    for (version, (sum, last)) in totals {
        rows.push(Rollup::new(TOTALS, last, version, "", sum));
    }
    rows
}

/// A stream of a pod of the version; streams are numbered from 1.
async fn stream(store: &Arc<dyn Store>, version: i64) {
    let pod = PodRecord {
        uid: format!("00000000-0000-4000-8000-{version:012}"),
        name: format!("pod-{version}"),
        container: "script".to_owned(),
        script: ScriptKey::new(NAMESPACE, SCRIPT),
        version,
        deployment_id: format!("deploy_{version}"),
    };
    store.register_pod(&pod).await.unwrap();
    let key = StreamKey {
        namespace: NAMESPACE.to_owned(),
        pod: pod.name,
        pod_uid: pod.uid,
        container: pod.container,
        restart: 0,
    };
    store.open_streams(&[key]).await.unwrap();
}
