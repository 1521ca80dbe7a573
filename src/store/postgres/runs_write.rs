//! Writing runs, one statement for all of a batch. Callers hold the script's lock.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::{locks, rollups};
use crate::{
    model::{RunStatus, SourceType},
    store::{
        CloseRuns, StoreError,
        batch::{End, forced_end, micros_up},
        payload,
        rows::stored_run,
        run_changes::{ClosedRun, NewRun, Rollups, StoredRun},
    },
};

/// Those of the runs that are stored.
pub async fn load(
    connection: &mut PgConnection,
    script_id: i64,
    run_ids: &[&str],
) -> Result<HashMap<String, StoredRun>, StoreError> {
    let rows = sqlx::query(
        "SELECT id AS payload, run_id, status, executed_at, version, function FROM runs \
         WHERE script_id = $1 AND run_id = ANY($2)",
    )
    .bind(script_id)
    .bind(run_ids)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("run_id")?, stored_run(row)?)))
        .collect()
}

/// What a run brings with it.
struct Payload<'a> {
    /// Its run's number.
    row: Option<i64>,
    input: Option<&'a [u8]>,
    output: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
}

/// Inserts runs.
pub async fn insert(
    connection: &mut PgConnection,
    script_id: i64,
    runs: &[NewRun<'_>],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    // Numbered first, so that runs and payloads need not be matched by their ids.
    let ids: Vec<i64> = sqlx::query_scalar("SELECT nextval('run_ids') FROM generate_series(1, $1)")
        .bind(i64::try_from(runs.len()).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
    let column = |value: fn(&NewRun<'_>) -> i64| runs.iter().map(value).collect::<Vec<_>>();
    let optional = |value: fn(&NewRun<'_>) -> Option<i64>| runs.iter().map(value).collect::<Vec<_>>();
    let code = |value: fn(&NewRun<'_>) -> u8| runs.iter().map(|r| i16::from(value(r))).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO runs (script_id, id, stream_id, version, executed_at, finished_at, response_time, status, \
            source_type, run_id, function, source, reason, traceparent) \
         SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
            $7::bigint[], $8::smallint[], $9::smallint[], $10::text[], $11::text[], $12::text[], $13::text[], \
            $14::bytea[])",
    )
    .bind(script_id)
    .bind(&ids)
    .bind(column(|run| run.origin.stream))
    .bind(column(|run| run.origin.version))
    .bind(column(|run| run.executed_at))
    .bind(optional(|run| run.end.map(|end| end.finished_at)))
    .bind(optional(|run| run.end.and_then(|end| end.response_time)))
    .bind(code(|run| run.end.map_or(RunStatus::InProgress, |end| end.status).code()))
    // Of a run whose beginning is lost, neither function nor caller is known.
    .bind(code(|run| run.start.map_or(SourceType::Api.code(), |start| start.source_type)))
    .bind(runs.iter().map(|run| run.run_id).collect::<Vec<_>>())
    .bind(runs.iter().map(|run| run.start.map_or("", |start| &start.function)).collect::<Vec<_>>())
    .bind(runs.iter().map(|run| run.start.map_or("", |start| &start.source)).collect::<Vec<_>>())
    .bind(runs.iter().map(|run| run.end.and_then(|end| end.reason.as_deref())).collect::<Vec<_>>())
    .bind(runs.iter().map(|run| run.start.and_then(|s| s.traceparent.as_deref().map(payload::pack_traceparent))).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    let payloads: Vec<Payload<'_>> = ids
        .iter()
        .zip(runs)
        .map(|(&row, run)| Payload {
            row: Some(row),
            input: run.start.and_then(|start| start.input.as_deref()),
            output: run.end.and_then(|end| end.output.as_deref()),
            error: run.end.and_then(|end| end.error.as_deref()),
        })
        .collect();
    insert_payloads(connection, payloads).await
}

/// Closes runs that are in progress.
pub async fn close(connection: &mut PgConnection, runs: &[ClosedRun<'_>]) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE runs SET status = v.status, finished_at = v.finished_at, response_time = v.response_time, \
            reason = v.reason \
         FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[]) \
            AS v (id, status, finished_at, response_time, reason) \
         WHERE runs.id = v.id",
    )
    .bind(runs.iter().map(|run| run.stored.payload).collect::<Vec<_>>())
    .bind(
        runs.iter()
            .map(|run| i16::from(run.end.status.code()))
            .collect::<Vec<_>>(),
    )
    .bind(runs.iter().map(|run| run.end.finished_at).collect::<Vec<_>>())
    .bind(runs.iter().map(|run| run.end.response_time).collect::<Vec<_>>())
    .bind(
        runs.iter()
            .map(|run| run.end.reason.as_deref())
            .collect::<Vec<_>>(),
    )
    .execute(&mut *connection)
    .await?;
    let payloads: Vec<Payload<'_>> = runs
        .iter()
        .map(|run| Payload {
            row: run.stored.payload,
            input: None,
            output: run.end.output.as_deref(),
            error: run.end.error.as_deref(),
        })
        .collect();
    insert_payloads(connection, payloads).await
}

async fn insert_payloads(
    connection: &mut PgConnection,
    mut payloads: Vec<Payload<'_>>,
) -> Result<(), StoreError> {
    payloads.retain(|p| p.input.is_some() || p.output.is_some() || p.error.is_some());
    if payloads.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO run_payloads (run, input, output, error) \
         SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[]) \
         ON CONFLICT (run) DO UPDATE SET output = excluded.output, error = excluded.error",
    )
    .bind(payloads.iter().map(|p| p.row).collect::<Vec<_>>())
    .bind(payloads.iter().map(|p| p.input).collect::<Vec<_>>())
    .bind(payloads.iter().map(|p| p.output).collect::<Vec<_>>())
    .bind(payloads.iter().map(|p| p.error).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// See [`crate::store::Store::close_runs`].
pub async fn close_of_pod(connection: &mut PgConnection, close_runs: &CloseRuns) -> Result<u64, StoreError> {
    let Some(script_id) = sqlx::query_scalar::<_, i64>("SELECT script_id FROM pods WHERE uid = $1")
        .bind(&close_runs.pod_uid)
        .fetch_optional(&mut *connection)
        .await?
    else {
        return Ok(0);
    };
    locks::scripts(connection, &[script_id]).await?;
    let open = sqlx::query(
        "SELECT id AS payload, run_id, status, executed_at, version, function FROM runs \
         WHERE script_id = $1 AND status = 0 AND executed_at < $2 \
         AND stream_id IN (SELECT id FROM streams WHERE pod_uid = $3)",
    )
    .bind(script_id)
    .bind(micros_up(close_runs.begun_before))
    .bind(&close_runs.pod_uid)
    .fetch_all(&mut *connection)
    .await?
    .iter()
    .map(|row| Ok((row.try_get("run_id")?, stored_run(row)?)))
    .collect::<Result<Vec<(String, _)>, StoreError>>()?;
    let (stored, ends): (Vec<_>, Vec<End>) = open
        .into_iter()
        .map(|(id, run)| {
            let end = forced_end(id, &run, close_runs);
            (run, end)
        })
        .unzip();
    let closed: Vec<ClosedRun<'_>> = stored
        .into_iter()
        .zip(&ends)
        .map(|(stored, end)| ClosedRun { stored, end })
        .collect();
    close(connection, &closed).await?;
    let mut sums = Rollups::default();
    for ClosedRun { stored, .. } in &closed {
        sums.ended(
            stored.executed_at,
            stored.version,
            &stored.function,
            RunStatus::Failed,
            None,
        );
    }
    rollups::add(connection, script_id, sums).await?;
    Ok(closed.len() as u64)
}
