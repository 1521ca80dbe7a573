//! Figures: lifetime ones from the totals, those of a window from the rows.

use futures::TryStreamExt;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{optional_time, segments};
use crate::{
    model::{Figures, Filter, RunStatus, TimeRange, VersionFigures, failure_rate_basis_points},
    query::{micros_range, push_runs_where},
    store::{
        StoreError,
        digest::{Digest, EXACT_UP_TO, Percentiles, exact_percentiles},
    },
};

/// Counts from which figures are made.
#[derive(Default)]
struct Counts {
    succeeded: i64,
    failed: i64,
    in_progress: i64,
    logs: i64,
    last_run_at: Option<i64>,
}

impl Counts {
    fn figures(&self, percentiles: Percentiles) -> Result<Figures, StoreError> {
        let [p50, p90, p99] = percentiles;
        Ok(Figures {
            total_runs: self.succeeded + self.failed + self.in_progress,
            succeeded_runs: self.succeeded,
            failed_runs: self.failed,
            in_progress_runs: self.in_progress,
            failure_rate_basis_points: failure_rate_basis_points(self.succeeded, self.failed),
            p50_microseconds: p50,
            p90_microseconds: p90,
            p99_microseconds: p99,
            total_logs: self.logs,
            last_run_time: optional_time(self.last_run_at)?,
        })
    }

    fn add(&mut self, row: &SqliteRow) -> Result<(), StoreError> {
        self.succeeded += row.try_get::<i64, _>("succeeded")?;
        self.failed += row.try_get::<i64, _>("failed")?;
        self.logs += row.try_get::<i64, _>("lines")?;
        self.last_run_at = self.last_run_at.max(row.try_get("last_run_at")?);
        Ok(())
    }
}

/// See [`crate::store::Store::figures`].
pub async fn lifetime(readers: &SqlitePool, script_id: i64) -> Result<Figures, StoreError> {
    let mut snapshot = readers.begin().await?;
    let mut counts = Counts::default();
    let mut digests = Vec::new();
    let rows = sqlx::query(
        "SELECT succeeded, failed, lines, last_run_at, digest FROM version_totals WHERE script_id = ?",
    )
    .bind(script_id)
    .fetch_all(&mut *snapshot)
    .await?;
    for row in &rows {
        counts.add(row)?;
        digests.push(Digest::decode(row.try_get("digest")?)?);
    }
    counts.in_progress = in_progress(&mut snapshot, script_id, None).await?;
    snapshot.rollback().await?;
    counts.figures(Digest::merged(digests).percentiles())
}

/// See [`crate::store::Store::version_figures`].
pub async fn by_version(
    readers: &SqlitePool,
    script_id: i64,
    limit: usize,
) -> Result<Vec<VersionFigures>, StoreError> {
    let mut snapshot = readers.begin().await?;
    let rows = sqlx::query(
        "SELECT version, succeeded, failed, lines, last_run_at, digest FROM version_totals \
         WHERE script_id = ? AND last_run_at IS NOT NULL ORDER BY version DESC LIMIT ?",
    )
    .bind(script_id)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut *snapshot)
    .await?;
    let mut versions = Vec::with_capacity(rows.len());
    for row in &rows {
        let version: i64 = row.try_get("version")?;
        let mut counts = Counts::default();
        counts.add(row)?;
        counts.in_progress = in_progress(&mut snapshot, script_id, Some(version)).await?;
        let digest = Digest::decode(row.try_get("digest")?)?;
        versions.push(VersionFigures {
            version,
            figures: counts.figures(digest.percentiles())?,
        });
    }
    snapshot.rollback().await?;
    Ok(versions)
}

/// Runs in progress; the literal status lets the partial index serve, and without its name SQLite may take the table's key and
/// walk through all runs of the script.
async fn in_progress(
    snapshot: &mut SqliteConnection,
    script_id: i64,
    version: Option<i64>,
) -> Result<i64, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "SELECT count(*) FROM runs INDEXED BY runs_in_progress WHERE status = 0 AND script_id = ",
    );
    sql.push_bind(script_id);
    if let Some(version) = version {
        sql.push(" AND version = ").push_bind(version);
    }
    Ok(sql.build_query_scalar().fetch_one(snapshot).await?)
}

/// See [`crate::store::Store::window_figures`].
pub async fn window(
    readers: &SqlitePool,
    script_id: i64,
    range: TimeRange,
    filter: &Filter,
) -> Result<Figures, StoreError> {
    let mut snapshot = readers.begin().await?;
    let mut counts = Counts::default();
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT r.status, count(*), max(r.executed_at) FROM runs r");
    push_runs_where(&mut sql, script_id, &range, filter, None)?;
    sql.push(" GROUP BY r.status");
    for row in sql.build().persistent(false).fetch_all(&mut *snapshot).await? {
        let status: u8 = row.try_get(0)?;
        let count: i64 = row.try_get(1)?;
        match RunStatus::from_code(status) {
            Some(RunStatus::InProgress) => counts.in_progress = count,
            Some(RunStatus::Success) => counts.succeeded = count,
            Some(RunStatus::Failed) => counts.failed = count,
            None => return Err(StoreError::Corrupt(format!("the run status {status}"))),
        }
        counts.last_run_at = counts.last_run_at.max(row.try_get(2)?);
    }
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT r.response_time FROM runs r");
    push_runs_where(&mut sql, script_id, &range, filter, None)?;
    sql.push(" AND r.status = 1");
    let mut query = sql.build_query_scalar::<i64>();
    query = query.persistent(false);
    let mut values = query.fetch(&mut *snapshot);
    let percentiles = if counts.succeeded <= EXACT_UP_TO {
        let mut all = Vec::new();
        while let Some(value) = values.try_next().await? {
            all.push(value);
        }
        exact_percentiles(&mut all)
    } else {
        let mut digest = Digest::default();
        while let Some(value) = values.try_next().await? {
            digest.add(value);
        }
        digest.percentiles()
    };
    drop(values);
    counts.logs = segments::count(&mut snapshot, script_id, micros_range(&range)).await?;
    snapshot.rollback().await?;
    counts.figures(percentiles)
}
