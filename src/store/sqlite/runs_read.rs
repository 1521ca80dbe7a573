//! Reading runs.

use serde_json::value::RawValue;
use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool, sqlite::SqliteRow};

use super::{optional_time, time};
use crate::{
    model::{Run, RunDetail, RunError, RunStatus, SourceType},
    query::{push_runs_order, push_runs_where},
    store::{Page, PodRecord, RunCursor, RunQuery, StoreError, payload},
};

const COLUMNS: &str = "SELECT r.payload, r.run_id, r.status, r.reason, r.version, p.deployment_id, r.response_time, \
     r.function, r.executed_at, r.finished_at, r.source_type, r.source, r.traceparent \
     FROM runs r JOIN streams st ON st.id = r.stream_id JOIN pods p ON p.uid = st.pod_uid";

/// See [`crate::store::Store::runs`].
pub async fn page(
    readers: &SqlitePool,
    script_id: i64,
    query: &RunQuery,
) -> Result<Page<Run, RunCursor>, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(COLUMNS);
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
        .map(run)
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
pub async fn detail(
    readers: &SqlitePool,
    script_id: i64,
    run_id: &str,
) -> Result<Option<RunDetail>, StoreError> {
    let mut snapshot = readers.begin().await?;
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE r.script_id = ? AND r.run_id = ?"));
    let Some(row) = sqlx::query(sql)
        .bind(script_id)
        .bind(run_id)
        .fetch_optional(&mut *snapshot)
        .await?
    else {
        return Ok(None);
    };
    let payloads = sqlx::query("SELECT input, output, error FROM run_payloads WHERE number = ?")
        .bind(row.try_get::<Option<i64>, _>("payload")?)
        .fetch_optional(&mut *snapshot)
        .await?;
    snapshot.rollback().await?;
    let text = |name: &str| -> Result<Option<String>, StoreError> {
        let Some(row) = &payloads else {
            return Ok(None);
        };
        let bytes: Option<&[u8]> = row.try_get(name)?;
        bytes.map(payload::unpack).transpose()
    };
    let error = text("error")?
        .map(|json| serde_json::from_str::<RunError>(&json))
        .transpose()
        .map_err(|_| wrong(run_id))?;
    Ok(Some(RunDetail {
        run: run(&row)?,
        input: raw(text("input")?, run_id)?,
        output: raw(text("output")?, run_id)?,
        error,
    }))
}

fn wrong(run_id: &str) -> StoreError {
    StoreError::Corrupt(format!("a payload of the run {run_id:?}"))
}

fn raw(json: Option<String>, run_id: &str) -> Result<Option<Box<RawValue>>, StoreError> {
    json.map(|json| RawValue::from_string(json).map_err(|_| wrong(run_id)))
        .transpose()
}

fn run(row: &SqliteRow) -> Result<Run, StoreError> {
    let status: u8 = row.try_get("status")?;
    let source_type: u8 = row.try_get("source_type")?;
    Ok(Run {
        run_id: row.try_get("run_id")?,
        status: RunStatus::from_code(status)
            .ok_or_else(|| StoreError::Corrupt(format!("the run status {status}")))?,
        reason: row.try_get("reason")?,
        deployment_version: row.try_get("version")?,
        deployment_id: row.try_get("deployment_id")?,
        response_time_micros: row.try_get("response_time")?,
        function: row.try_get("function")?,
        executed_on: time(row.try_get("executed_at")?)?,
        finished_at: optional_time(row.try_get("finished_at")?)?,
        source_type: SourceType::from_code(source_type)
            .ok_or_else(|| StoreError::Corrupt(format!("the source type {source_type}")))?,
        source: row.try_get("source")?,
        traceparent: row
            .try_get::<Option<&[u8]>, _>("traceparent")?
            .map(payload::unpack_traceparent)
            .transpose()?,
    })
}

/// See [`crate::store::Store::pods_with_open_runs`].
pub async fn pods_with_open_runs(
    readers: &SqlitePool,
) -> Result<Vec<(PodRecord, jiff::Timestamp)>, StoreError> {
    sqlx::query(
        "SELECT p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, s.name AS script, \
            min(r.executed_at) AS oldest \
         FROM runs r JOIN streams st ON st.id = r.stream_id JOIN pods p ON p.uid = st.pod_uid \
            JOIN scripts s ON s.id = p.script_id \
         WHERE r.status = 0 GROUP BY p.uid ORDER BY oldest",
    )
    .fetch_all(readers)
    .await?
    .iter()
    .map(|row| Ok((super::streams::pod(row)?, time(row.try_get("oldest")?)?)))
    .collect()
}
