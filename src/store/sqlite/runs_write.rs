//! Writing runs, many rows a statement.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{ROWS_PER_STATEMENT, push_list, rollups, usage};
use crate::{
    model::{RunError, RunStatus, SourceType},
    store::{
        CloseRuns, StoreError,
        batch::End,
        payload,
        run_changes::{ClosedRun, NewRun, Rollups, StoredRun},
    },
};

/// Those of the runs that are stored.
pub async fn load(
    connection: &mut SqliteConnection,
    script_id: i64,
    run_ids: &[&str],
) -> Result<HashMap<String, StoredRun>, StoreError> {
    let mut found = HashMap::new();
    for chunk in run_ids.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT id, run_id, status, executed_at, version, function FROM runs WHERE script_id = ",
        );
        sql.push_bind(script_id).push(" AND run_id IN (");
        push_list(&mut sql, chunk.iter().copied());
        for row in sql.build().persistent(false).fetch_all(&mut *connection).await? {
            found.insert(row.try_get("run_id")?, stored(&row)?);
        }
    }
    Ok(found)
}

fn stored(row: &SqliteRow) -> Result<StoredRun, StoreError> {
    Ok(StoredRun {
        row: row.try_get("id")?,
        in_progress: row.try_get::<u8, _>("status")? == RunStatus::InProgress.code(),
        executed_at: row.try_get("executed_at")?,
        version: row.try_get("version")?,
        function: row.try_get("function")?,
    })
}

/// What a run brings with it.
struct Payload<'a> {
    row: i64,
    input: Option<&'a [u8]>,
    output: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
}

/// Inserts runs.
pub async fn insert(
    connection: &mut SqliteConnection,
    script_id: i64,
    runs: &[NewRun<'_>],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    // Numbered here, by the only writer, so that payloads need no round trip for the numbers.
    let last: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM runs")
        .fetch_one(&mut *connection)
        .await?;
    let numbered: Vec<(i64, &NewRun<'_>)> = (last + 1..).zip(runs).collect();
    for chunk in numbered.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO runs (id, script_id, run_id, stream_id, version, status, executed_at, finished_at, \
             response_time, source_type, function, source, reason, traceparent) ",
        );
        sql.push_values(chunk, |mut values, (row, run)| {
            let (start, end) = (run.start, run.end);
            let status = end.map_or(RunStatus::InProgress, |end| end.status);
            values
                .push_bind(*row)
                .push_bind(script_id)
                .push_bind(run.run_id)
                .push_bind(run.origin.stream)
                .push_bind(run.origin.version)
                .push_bind(status.code())
                .push_bind(run.executed_at)
                .push_bind(end.map(|end| end.finished_at))
                .push_bind(end.and_then(|end| end.response_time))
                // Of a run whose beginning is lost, neither function nor caller is known.
                .push_bind(start.map_or(SourceType::Api.code(), |start| start.source_type))
                .push_bind(start.map_or("", |start| &start.function))
                .push_bind(start.map_or("", |start| &start.source))
                .push_bind(end.and_then(|end| end.reason.as_deref()))
                .push_bind(start.and_then(|start| start.traceparent.as_deref()));
        });
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    let payloads: Vec<Payload<'_>> = numbered
        .iter()
        .map(|(row, run)| Payload {
            row: *row,
            input: run.start.and_then(|start| start.input.as_deref()),
            output: run.end.and_then(|end| end.output.as_deref()),
            error: run.end.and_then(|end| end.error.as_deref()),
        })
        .collect();
    insert_payloads(connection, &payloads).await
}

/// Closes runs that are in progress.
pub async fn close(connection: &mut SqliteConnection, runs: &[ClosedRun<'_>]) -> Result<(), StoreError> {
    for chunk in runs.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "UPDATE runs SET status = v.column2, finished_at = v.column3, response_time = v.column4, \
             reason = v.column5 FROM (",
        );
        sql.push_values(chunk, |mut values, run| {
            values
                .push_bind(run.stored.row)
                .push_bind(run.end.status.code())
                .push_bind(run.end.finished_at)
                .push_bind(run.end.response_time)
                .push_bind(run.end.reason.as_deref());
        });
        sql.push(") AS v WHERE runs.id = v.column1");
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    let payloads: Vec<Payload<'_>> = runs
        .iter()
        .map(|run| Payload {
            row: run.stored.row,
            input: None,
            output: run.end.output.as_deref(),
            error: run.end.error.as_deref(),
        })
        .collect();
    insert_payloads(connection, &payloads).await
}

async fn insert_payloads(
    connection: &mut SqliteConnection,
    payloads: &[Payload<'_>],
) -> Result<(), StoreError> {
    let some: Vec<&Payload<'_>> = payloads
        .iter()
        .filter(|p| p.input.is_some() || p.output.is_some() || p.error.is_some())
        .collect();
    for chunk in some.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new("INSERT INTO run_payloads (run, input, output, error) ");
        sql.push_values(chunk, |mut values, payload| {
            values
                .push_bind(payload.row)
                .push_bind(payload.input)
                .push_bind(payload.output)
                .push_bind(payload.error);
        });
        sql.push(" ON CONFLICT (run) DO UPDATE SET output = excluded.output, error = excluded.error");
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

/// See [`crate::store::Store::close_runs`].
pub async fn close_of_pod(
    connection: &mut SqliteConnection,
    close_runs: &CloseRuns,
) -> Result<u64, StoreError> {
    let Some(script_id) = sqlx::query_scalar::<_, i64>("SELECT script_id FROM pods WHERE uid = ?")
        .bind(&close_runs.pod_uid)
        .fetch_optional(&mut *connection)
        .await?
    else {
        return Ok(0);
    };
    let open = sqlx::query(
        "SELECT id, run_id, status, executed_at, version, function FROM runs \
         WHERE script_id = ? AND status = 0 AND executed_at < ? \
         AND stream_id IN (SELECT id FROM streams WHERE pod_uid = ?)",
    )
    .bind(script_id)
    .bind(micros_up(close_runs.begun_before))
    .bind(&close_runs.pod_uid)
    .fetch_all(&mut *connection)
    .await?
    .iter()
    .map(stored)
    .collect::<Result<Vec<_>, _>>()?;
    let ends: Vec<End> = open.iter().map(|run| forced_end(run, close_runs)).collect();
    let closed: Vec<ClosedRun<'_>> = open
        .into_iter()
        .zip(&ends)
        .map(|(stored, end)| ClosedRun { stored, end })
        .collect();
    close(connection, &closed).await?;
    let change = usage::Change {
        payload_bytes: ends.iter().map(usage::end_bytes).sum(),
        ..usage::Change::default()
    };
    usage::add(connection, script_id, &change).await?;
    let mut sums = Rollups::default();
    for run in &closed {
        let stored = &run.stored;
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

/// The first whole microsecond that is not before `time`.
fn micros_up(time: Timestamp) -> i64 {
    let floor = time.as_microsecond();
    floor + i64::from(Timestamp::from_microsecond(floor).is_ok_and(|floor| floor < time))
}

fn forced_end(run: &StoredRun, close_runs: &CloseRuns) -> End {
    let error = RunError {
        reason: close_runs.reason.clone(),
        kind: None,
        message: close_runs.message.clone(),
        traceback: None,
    };
    End {
        run_id: String::new(),
        // The clocks of two machines: a run never ends before it began.
        finished_at: close_runs.time.as_microsecond().max(run.executed_at),
        began_at: run.executed_at,
        status: RunStatus::Failed,
        response_time: None,
        reason: Some(close_runs.reason.clone()),
        output: None,
        error: serde_json::to_string(&error)
            .ok()
            .map(|json| payload::pack(&json)),
    }
}
