//! Writing runs, many rows a statement.

use std::{collections::HashMap, sync::Arc};

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{
    ROWS_PER_STATEMENT, push_list, rollups,
    statements::{Names, Statements},
};
use crate::{
    model::{RunStatus, SourceType},
    store::{
        CloseRuns, StoreError,
        batch::{forced_ends, micros_up},
        payload,
        retention::{sql::Writing, usage},
        rows::stored_run,
        run_changes::{ClosedRun, NewRun, Rollups, RunChanges, StoredRun},
    },
};

// OR FAIL: what is refused undoes the transaction, so SQLite need not be ready to undo the statement alone.
static INSERT_RUNS: Statements = Statements::new(
    "INSERT OR FAIL INTO runs (script_id, executed_at, run_id, status, source_type, version, response_time, \
     function, source, stream_id, payload, finished_at, reason, traceparent) VALUES ",
    14,
);
static INSERT_PAYLOADS: Statements = Statements::new(
    "INSERT OR FAIL INTO run_payloads (number, input, output, error) VALUES ",
    4,
);

// One statement a row: its text does not depend on the number of rows, so it is prepared once.
static CLOSE_RUNS: Statements = Statements::repeated(
    "UPDATE runs SET status = ?, finished_at = ?, response_time = ?, reason = ?, payload = coalesce(payload, ?) \
     WHERE script_id = ? AND executed_at = ? AND run_id = ?;",
);
static COMPLETE_PAYLOADS: Statements =
    Statements::repeated("UPDATE run_payloads SET output = ?, error = ? WHERE number = ?;");

/// Those of the runs that are stored.
pub async fn load(
    connection: &mut SqliteConnection,
    script_id: i64,
    run_ids: &[&str],
) -> Result<HashMap<String, StoredRun>, StoreError> {
    let mut found = HashMap::new();
    for chunk in run_ids.chunks(ROWS_PER_STATEMENT) {
        // Without the index's name SQLite looks through all runs of the script for several ids.
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT run_id, status, executed_at, version, function, payload FROM runs INDEXED BY runs_by_id \
             WHERE script_id = ",
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
    let mut names = Names::default();
    for (sql, chunk) in INSERT_RUNS.chunks(&rows) {
        let mut query = sqlx::query(sql);
        for (run, payload) in chunk {
            let (start, end) = (run.start, run.end);
            let status = end.map_or(RunStatus::InProgress, |end| end.status);
            query = query
                .bind(script_id)
                .bind(run.executed_at)
                .bind(Arc::<str>::from(run.run_id))
                .bind(status.code())
                // Of a run whose beginning is lost, neither function nor caller is known.
                .bind(start.map_or(SourceType::Api.code(), |start| start.source_type))
                .bind(run.origin.version)
                .bind(end.and_then(|end| end.response_time))
                .bind(names.get(start.map_or("", |start| &start.function)))
                .bind(names.get(start.map_or("", |start| &start.source)))
                .bind(run.origin.stream)
                .bind(*payload)
                .bind(end.map(|end| end.finished_at))
                .bind(end.and_then(|end| end.reason.as_deref()).map(|reason| names.get(reason)))
                .bind(start.and_then(|start| start.traceparent.as_deref().map(payload::pack_traceparent)));
        }
        query.execute(&mut *connection).await?;
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
    for (sql, chunk) in CLOSE_RUNS.chunks(&rows) {
        let mut query = sqlx::query(sql);
        for (run, payload) in chunk {
            query = query
                .bind(run.end.status.code())
                .bind(run.end.finished_at)
                .bind(run.end.response_time)
                .bind(run.end.reason.as_deref())
                .bind(*payload)
                .bind(script_id)
                .bind(run.stored.executed_at)
                .bind(run.end.run_id.as_str());
        }
        query.execute(&mut *connection).await?;
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
    for (sql, chunk) in INSERT_PAYLOADS.chunks(&some) {
        let mut query = sqlx::query(sql);
        for (number, payload) in chunk {
            query = query
                .bind(*number)
                .bind(payload.input)
                .bind(payload.output)
                .bind(payload.error);
        }
        query.execute(&mut *connection).await?;
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
    for (sql, chunk) in COMPLETE_PAYLOADS.chunks(&some) {
        let mut query = sqlx::query(sql);
        for (number, end) in chunk {
            query = query
                .bind(end.output.as_deref())
                .bind(end.error.as_deref())
                .bind(*number);
        }
        query.execute(&mut *connection).await?;
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
        // Without the index's name SQLite may take the table's key, and walk through all runs of the script.
        "SELECT run_id, status, executed_at, version, function, payload FROM runs INDEXED BY runs_in_progress \
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
    let (stored, ends) = forced_ends(open, close_runs);
    let changes = RunChanges::closing(stored, &ends);
    close(connection, script_id, &changes.closed).await?;
    usage::add(&mut Writing(connection), script_id, &usage::Change::of(&changes)).await?;
    let mut sums = Rollups::default();
    sums.add(&changes);
    rollups::add(connection, script_id, sums).await?;
    Ok(changes.closed.len() as u64)
}
