//! Figures: lifetime ones from the totals, those of a window from the rows.

use futures::TryStreamExt;
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder, Row};

use super::{SNAPSHOT, segments};
use crate::{
    model::{Figures, Filter, TimeRange, VersionFigures},
    query::{micros_range, push_runs_where},
    store::{
        StoreError,
        counts::Counts,
        digest::{Digest, EXACT_UP_TO, exact_percentiles},
    },
};

/// See [`crate::store::Store::figures`].
pub async fn lifetime(readers: &PgPool, script_id: i64) -> Result<Figures, StoreError> {
    let mut snapshot = readers.begin_with(SNAPSHOT).await?;
    let mut counts = Counts::default();
    let mut digests = Vec::new();
    let rows = sqlx::query(
        "SELECT succeeded, failed, lines, last_run_at, digest FROM version_totals WHERE script_id = $1",
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
    readers: &PgPool,
    script_id: i64,
    limit: usize,
) -> Result<Vec<VersionFigures>, StoreError> {
    let mut snapshot = readers.begin_with(SNAPSHOT).await?;
    let rows = sqlx::query(
        "SELECT version, succeeded, failed, lines, last_run_at, digest FROM version_totals \
         WHERE script_id = $1 AND last_run_at IS NOT NULL ORDER BY version DESC LIMIT $2",
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

/// Runs in progress; the literal status lets the partial index serve.
async fn in_progress(
    snapshot: &mut PgConnection,
    script_id: i64,
    version: Option<i64>,
) -> Result<i64, StoreError> {
    let mut sql =
        QueryBuilder::<Postgres>::new("SELECT count(*) FROM runs WHERE status = 0 AND script_id = ");
    sql.push_bind(script_id);
    if let Some(version) = version {
        sql.push(" AND version = ").push_bind(version);
    }
    Ok(sql.build_query_scalar().fetch_one(snapshot).await?)
}

/// See [`crate::store::Store::window_figures`].
pub async fn window(
    readers: &PgPool,
    script_id: i64,
    range: TimeRange,
    filter: &Filter,
) -> Result<Figures, StoreError> {
    let mut snapshot = readers.begin_with(SNAPSHOT).await?;
    let mut counts = Counts::default();
    let mut sql = QueryBuilder::<Postgres>::new("SELECT r.status, count(*), max(r.executed_at) FROM runs r");
    push_runs_where(&mut sql, script_id, &range, filter, None)?;
    sql.push(" GROUP BY r.status");
    for row in sql.build().persistent(false).fetch_all(&mut *snapshot).await? {
        counts.set(row.try_get::<i16, _>(0)?.into(), row.try_get(1)?, row.try_get(2)?)?;
    }
    let mut sql = QueryBuilder::<Postgres>::new("SELECT r.response_time FROM runs r");
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
