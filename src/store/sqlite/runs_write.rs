//! Writing runs, many rows a statement.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{ROWS_PER_STATEMENT, push_list, rollups};
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
    connection: &mut SqliteConnection,
    script_id: i64,
    run_ids: &[&str],
) -> Result<HashMap<String, StoredRun>, StoreError> {
    let mut found = HashMap::new();
    for chunk in run_ids.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT run_id, status, executed_at, version, function, payload FROM runs WHERE script_id = ",
        );
        sql.push_bind(script_id).push(" AND run_id IN (");
        push_list(&mut sql, chunk.iter().copied());
        for row in sql.build().persistent(false).fetch_all(&mut *connection).await? {
            found.insert(row.try_get("run_id")?, stored_run(&row)?);
        }
    }
    Ok(found)
}

/// What a run brings with it.
#[derive(Clone, Copy, Default)]
struct Payload<'a> {
    input: Option<&'a [u8]>,
    output: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
}

impl Payload<'_> {
    fn is_empty(&self) -> bool {
        self.input.is_none() && self.output.is_none() && self.error.is_none()
    }
}

/// Numbers for payloads that are not empty, given here, by the only writer, so that runs need no round trip for them.
async fn numbered<'a>(
    connection: &mut SqliteConnection,
    payloads: impl Iterator<Item = Payload<'a>>,
) -> Result<Vec<(Option<i64>, Payload<'a>)>, StoreError> {
    let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'run_payloads'")
        .fetch_optional(connection)
        .await?;
    let mut next = last.unwrap_or(0);
    let number = |payload: Payload<'a>| {
        if payload.is_empty() {
            return (None, payload);
        }
        next += 1;
        (Some(next), payload)
    };
    Ok(payloads.map(number).collect())
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
    let payloads = runs.iter().map(|run| Payload {
        input: run.start.and_then(|start| start.input.as_deref()),
        output: run.end.and_then(|end| end.output.as_deref()),
        error: run.end.and_then(|end| end.error.as_deref()),
    });
    let payloads = numbered(connection, payloads).await?;
    let rows: Vec<_> = runs
        .iter()
        .zip(payloads.iter().map(|(number, _)| *number))
        .collect();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO runs (script_id, executed_at, run_id, status, source_type, version, response_time, \
             function, source, stream_id, payload, finished_at, reason, traceparent) ",
        );
        sql.push_values(chunk, |mut values, (run, payload)| {
            let (start, end) = (run.start, run.end);
            let status = end.map_or(RunStatus::InProgress, |end| end.status);
            values
                .push_bind(script_id)
                .push_bind(run.executed_at)
                .push_bind(run.run_id)
                .push_bind(status.code())
                // Of a run whose beginning is lost, neither function nor caller is known.
                .push_bind(start.map_or(SourceType::Api.code(), |start| start.source_type))
                .push_bind(run.origin.version)
                .push_bind(end.and_then(|end| end.response_time))
                .push_bind(start.map_or("", |start| &start.function))
                .push_bind(start.map_or("", |start| &start.source))
                .push_bind(run.origin.stream)
                .push_bind(*payload)
                .push_bind(end.map(|end| end.finished_at))
                .push_bind(end.and_then(|end| end.reason.as_deref()))
                .push_bind(
                    start.and_then(|start| start.traceparent.as_deref().map(payload::pack_traceparent)),
                );
        });
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    insert_payloads(connection, &payloads).await
}

/// Closes runs that are in progress.
pub async fn close(
    connection: &mut SqliteConnection,
    script_id: i64,
    runs: &[ClosedRun<'_>],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    // A payload that is there is completed below; a run without one gets one.
    let payloads = runs.iter().map(|run| match run.stored.payload {
        None => Payload {
            input: None,
            output: run.end.output.as_deref(),
            error: run.end.error.as_deref(),
        },
        Some(_) => Payload::default(),
    });
    let payloads = numbered(connection, payloads).await?;
    let rows: Vec<_> = runs
        .iter()
        .zip(payloads.iter().map(|(number, _)| *number))
        .collect();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "UPDATE runs SET status = v.column3, finished_at = v.column4, response_time = v.column5, \
             reason = v.column6, payload = coalesce(payload, v.column7) FROM (",
        );
        sql.push_values(chunk, |mut values, (run, payload)| {
            values
                .push_bind(run.stored.executed_at)
                .push_bind(run.end.run_id.as_str())
                .push_bind(run.end.status.code())
                .push_bind(run.end.finished_at)
                .push_bind(run.end.response_time)
                .push_bind(run.end.reason.as_deref())
                .push_bind(*payload);
        });
        sql.push(") AS v WHERE runs.script_id = ")
            .push_bind(script_id)
            .push(" AND runs.executed_at = v.column1 AND runs.run_id = v.column2");
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    insert_payloads(connection, &payloads).await?;
    complete_payloads(connection, runs).await
}

async fn insert_payloads(
    connection: &mut SqliteConnection,
    payloads: &[(Option<i64>, Payload<'_>)],
) -> Result<(), StoreError> {
    let some: Vec<_> = payloads
        .iter()
        .filter_map(|(number, payload)| Some(((*number)?, payload)))
        .collect();
    for chunk in some.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new("INSERT INTO run_payloads (number, input, output, error) ");
        sql.push_values(chunk, |mut values, (number, payload)| {
            values
                .push_bind(*number)
                .push_bind(payload.input)
                .push_bind(payload.output)
                .push_bind(payload.error);
        });
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Adds output and error to payloads that hold the input.
async fn complete_payloads(
    connection: &mut SqliteConnection,
    runs: &[ClosedRun<'_>],
) -> Result<(), StoreError> {
    let some: Vec<_> = runs
        .iter()
        .filter(|run| run.end.output.is_some() || run.end.error.is_some())
        .filter_map(|run| Some((run.stored.payload?, run.end)))
        .collect();
    for chunk in some.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "UPDATE run_payloads SET output = v.column2, error = v.column3 FROM (",
        );
        sql.push_values(chunk, |mut values, (number, end)| {
            values
                .push_bind(*number)
                .push_bind(end.output.as_deref())
                .push_bind(end.error.as_deref());
        });
        sql.push(") AS v WHERE run_payloads.number = v.column1");
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
        "SELECT run_id, status, executed_at, version, function, payload FROM runs \
         WHERE script_id = ? AND status = 0 AND executed_at < ? \
         AND stream_id IN (SELECT id FROM streams WHERE pod_uid = ?)",
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
    close(connection, script_id, &closed).await?;
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
