//! Runs by the million, written straight into the tables: their rows by SQL alone, their rollups as the store writes them.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use jiff::Timestamp;
use scriptscope::{
    ingest::wire::StreamKey,
    model::ScriptKey,
    store::{self, PodRecord, Store},
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

pub const NAMESPACE: &str = "bed";
pub const SCRIPT: &str = "measured";
const DAYS: i64 = 90;
const HOUR: i64 = 3_600_000_000;
/// Versions, one after the other, and one beside them that runs rarely.
const VERSIONS: i64 = 5;
const CENTROIDS: usize = 500;
/// Values that a digest keeps as such.
const EXACT: usize = 10_000;
/// Rows of one transaction.
const CHUNK: i64 = 500_000;

/// A store with so many runs of one script, evenly over 90 days, and the moment after the last.
pub async fn sqlite(path: &Path, runs: usize) -> (Arc<dyn Store>, Timestamp) {
    let url = format!("sqlite://{}", path.display());
    let runs = runs as i64;
    let step = DAYS * 24 * HOUR / runs;
    let end = Timestamp::now();
    let begin = end.as_microsecond() - runs * step;
    let store = store::open(&url).await.unwrap();
    for version in 1..=VERSIONS + 1 {
        stream(&store, version).await;
    }
    store.close().await;
    drop(store);
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
    for first in (0..runs).step_by(CHUNK as usize) {
        sqlx::query(ROWS)
            .bind(first)
            .bind((first + CHUNK).min(runs))
            .bind(begin)
            .bind(step)
            .bind(runs)
            .execute(&mut file)
            .await
            .unwrap();
    }
    rollups(&mut file, runs, begin, step).await;
    file.close().await.unwrap();
    (store::open(&url).await.unwrap(), end)
}

/// Run `n`; [`Made::of`] says the same. `x` scatters.
const ROWS: &str = "
WITH RECURSIVE n(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?2),
x AS (SELECT n, (n * 2654435761) & 4294967295 AS x FROM n),
v AS (SELECT n, x, ?3 + n * ?4 AS began,
    CASE WHEN n % 40000 = 13 AND n > ?5 - ?5 / 90 THEN 0 WHEN x % 100 = 0 THEN 2 ELSE 1 END AS status,
    CASE WHEN n % 50000 = 17 THEN 6 ELSE 1 + n * 5 / ?5 END AS version,
    1000 + x % 9000 + CASE WHEN n % 45000 = 31 THEN 60000000 ELSE 0 END AS took FROM x)
INSERT INTO runs (script_id, executed_at, run_id, status, source_type, version, response_time, function, source, stream_id,
    finished_at, reason)
SELECT 1, began, printf('run_%016x', began), status,
    CASE WHEN n % 30000 = 3 THEN 2 ELSE x % 2 END, version, iif(status = 1, took, NULL),
    CASE WHEN n % 35000 = 5 THEN 'cleanup' ELSE iif(x % 3 = 0, 'check', iif(x % 3 = 1, 'transfer', 'report')) END,
    CASE WHEN n % 60000 = 29 THEN 'nightly-audit' ELSE 'billing-service-' || (x % 20) END,
    version, iif(status = 0, NULL, began + took), iif(status = 2, 'Exception', NULL)
FROM v";

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
    failed: i64,
    took: Vec<f64>,
}

async fn rollups(file: &mut SqliteConnection, runs: i64, begin: i64, step: i64) {
    let mut totals: BTreeMap<i64, (Sum, i64)> = BTreeMap::new();
    let mut day: (i64, BTreeMap<i64, Sum>) = (i64::MIN, BTreeMap::new());
    let mut hour: (i64, BTreeMap<(i64, &str), Sum>) = (i64::MIN, BTreeMap::new());
    sqlx::query("BEGIN").execute(&mut *file).await.unwrap();
    for n in 0..runs {
        let began = begin + n * step;
        let made = Made::of(n, runs);
        let this = began.div_euclid(HOUR);
        if this != hour.0 {
            store_hour(file, &mut hour, this).await;
        }
        if this / 24 != day.0 {
            store_day(file, &mut day, this / 24).await;
        }
        let (total, last) = totals.entry(made.version).or_default();
        *last = began;
        let in_hour = hour.1.entry((made.version, made.function)).or_default();
        let in_day = day.1.entry(made.version).or_default();
        for sum in [total, in_hour, in_day] {
            sum.failed += i64::from(made.failed);
            if made.succeeded {
                sum.took.push(made.took as f64);
            }
        }
    }
    store_hour(file, &mut hour, 0).await;
    store_day(file, &mut day, 0).await;
    for (version, (mut sum, last)) in totals {
        let sql = "INSERT INTO version_totals (script_id, version, succeeded, failed, lines, last_run_at, digest) \
             VALUES (1, ?, ?, ?, 0, ?, ?)";
        sqlx::query(sql)
            .bind(version)
            .bind(sum.took.len() as i64)
            .bind(sum.failed)
            .bind(last)
            .bind(digest(&mut sum.took))
            .execute(&mut *file)
            .await
            .unwrap();
    }
    sqlx::query("COMMIT").execute(&mut *file).await.unwrap();
}

async fn store_hour(file: &mut SqliteConnection, hour: &mut (i64, BTreeMap<(i64, &str), Sum>), next: i64) {
    for ((version, function), sum) in std::mem::take(&mut hour.1) {
        insert(file, "run_rollups", hour.0, version, function, sum).await;
    }
    hour.0 = next;
}

async fn store_day(file: &mut SqliteConnection, day: &mut (i64, BTreeMap<i64, Sum>), next: i64) {
    for (version, sum) in std::mem::take(&mut day.1) {
        insert(file, "run_days", day.0 * 24, version, "", sum).await;
    }
    day.0 = next;
}

async fn insert(
    file: &mut SqliteConnection,
    table: &str,
    hour: i64,
    version: i64,
    function: &str,
    mut sum: Sum,
) {
    let sql = format!(
        "INSERT INTO {table} (script_id, hour, version, function, succeeded, failed, digest) VALUES (1, ?, ?, ?, ?, ?, ?)"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(hour)
        .bind(version)
        .bind(function)
        .bind(sum.took.len() as i64)
        .bind(sum.failed)
        .bind(digest(&mut sum.took))
        .execute(file)
        .await
        .unwrap();
}

/// A digest in the store's form: the values themselves while there are few, else centroids of as many values each.
fn digest(values: &mut [f64]) -> Vec<u8> {
    values.sort_unstable_by(f64::total_cmp);
    let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
        return Vec::new();
    };
    if values.len() <= EXACT {
        return exact(min as i64, values);
    }
    let mut bytes = vec![1];
    for head in [values.len() as f64, values.iter().sum(), min, max] {
        bytes.extend(head.to_le_bytes());
    }
    for chunk in values.chunks(values.len().div_ceil(CENTROIDS)) {
        bytes.extend((chunk.iter().sum::<f64>() / chunk.len() as f64).to_le_bytes());
        bytes.extend((chunk.len() as f64).to_le_bytes());
    }
    bytes
}

fn exact(first: i64, values: &[f64]) -> Vec<u8> {
    let mut bytes = vec![2];
    bytes.extend(first.to_le_bytes());
    for pair in values.windows(2) {
        let mut step = (pair[1] - pair[0]) as u64;
        while step >= 0x80 {
            bytes.push(step as u8 | 0x80);
            step >>= 7;
        }
        bytes.push(step as u8);
    }
    bytes
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
