//! Reading runs.

use sqlx::{PgPool, Postgres, QueryBuilder, Row};

use super::SNAPSHOT;
use crate::{
    model::{Run, RunDetail},
    query::{push_runs_order, push_runs_where},
    store::{Page, PodRecord, RunCursor, RunQuery, StoreError, payload, rows, storable, time},
};

const COLUMNS: &str = "SELECT r.id, r.run_id, r.status, r.reason, r.version, p.deployment_id, r.response_time, \
     r.function, r.executed_at, r.finished_at, r.source_type, r.source, r.traceparent \
     FROM runs r JOIN streams st ON st.id = r.stream_id JOIN pods p ON p.uid = st.pod_uid";

/// See [`crate::store::Store::runs`].
pub async fn page(
    readers: &PgPool,
    script_id: i64,
    query: &RunQuery,
) -> Result<Page<Run, RunCursor>, StoreError> {
    let mut sql = QueryBuilder::<Postgres>::new(COLUMNS);
    push_runs_where(
        &mut sql,
        script_id,
        &query.range,
        &query.filter,
        query.after.as_ref(),
    )?;
    push_runs_order(&mut sql, &query.filter);
    sql.push(" LIMIT ")
        .push_bind(i64::try_from(query.limit.saturating_add(1)).unwrap_or(i64::MAX));
    let mut rows = sql
        .build()
        .persistent(false)
        .fetch_all(readers)
        .await?
        .iter()
        .map(rows::run)
        .collect::<Result<Vec<_>, _>>()?;
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let next = rows.last().filter(|_| more).map(|run| RunCursor {
        executed_on: run.executed_on,
        run_id: run.run_id.clone(),
    });
    Ok(Page { rows, next })
}

/// See [`crate::store::Store::run`].
pub async fn detail(readers: &PgPool, script_id: i64, run_id: &str) -> Result<Option<RunDetail>, StoreError> {
    let mut snapshot = readers.begin_with(SNAPSHOT).await?;
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE r.script_id = $1 AND r.run_id = $2"));
    let Some(row) = sqlx::query(sql)
        .bind(script_id)
        .bind(storable(run_id.to_owned()))
        .fetch_optional(&mut *snapshot)
        .await?
    else {
        return Ok(None);
    };
    let payloads = sqlx::query("SELECT input, output, error FROM run_payloads WHERE run = $1")
        .bind(row.try_get::<i64, _>("id")?)
        .fetch_optional(&mut *snapshot)
        .await?;
    snapshot.rollback().await?;
    payload::detail(rows::run(&row)?, payloads.as_ref()).map(Some)
}

/// See [`crate::store::Store::pods_with_open_runs`].
pub async fn pods_with_open_runs(readers: &PgPool) -> Result<Vec<(PodRecord, jiff::Timestamp)>, StoreError> {
    sqlx::query(
        "SELECT p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, s.name AS script, \
            min(r.executed_at) AS oldest \
         FROM runs r JOIN streams st ON st.id = r.stream_id JOIN pods p ON p.uid = st.pod_uid \
            JOIN scripts s ON s.id = p.script_id \
         WHERE r.status = 0 GROUP BY p.uid, s.id ORDER BY oldest",
    )
    .fetch_all(readers)
    .await?
    .iter()
    .map(|row| Ok((rows::pod(row)?, time(row.try_get("oldest")?)?)))
    .collect()
}
