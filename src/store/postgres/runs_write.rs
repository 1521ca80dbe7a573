//! Writing runs, all of a transaction at once. Callers hold the script's lock.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::{copy::Rows, locks, rollups};
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

/// Those of the runs that are stored.
pub async fn load(
    connection: &mut PgConnection,
    script_id: i64,
    run_ids: &[&str],
) -> Result<HashMap<String, StoredRun>, StoreError> {
    if run_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "SELECT payload, run_id, status, executed_at, version, function FROM runs \
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
#[derive(Clone, Copy)]
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

/// New numbers for payloads. The sequence deals out blocks: one question a transaction, whatever the number of runs.
struct Numbers {
    next: i64,
    left: i64,
}

/// Numbers in a block.
pub const PAYLOAD_BLOCK: i64 = 1 << 16;

impl Numbers {
    fn none() -> Self {
        Self { next: 0, left: 0 }
    }

    async fn next(&mut self, connection: &mut PgConnection) -> Result<i64, StoreError> {
        if self.left == 0 {
            let block: i64 = sqlx::query_scalar("SELECT nextval('payload_blocks')")
                .fetch_one(connection)
                .await?;
            self.next = block.saturating_mul(PAYLOAD_BLOCK);
            self.left = PAYLOAD_BLOCK;
        }
        self.left -= 1;
        self.next += 1;
        Ok(self.next)
    }
}

/// Inserts runs; fails with a unique violation where one is there already.
pub async fn insert(
    connection: &mut PgConnection,
    script_id: i64,
    runs: &[NewRun<'_>],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let mut numbers = Numbers::none();
    let (mut rows, mut payloads) = (Rows::new(14), Rows::new(4));
    for run in runs {
        let (start, end) = (run.start, run.end);
        let payload = Payload {
            input: start.and_then(|start| start.input.as_deref()),
            output: end.and_then(|end| end.output.as_deref()),
            error: end.and_then(|end| end.error.as_deref()),
        };
        let mut number = None;
        if !payload.is_empty() {
            let new = numbers.next(connection).await?;
            number = Some(new);
            payloads
                .begin()
                .bigint(new)
                .bytes(payload.input)
                .bytes(payload.output)
                .bytes(payload.error);
        }
        let traceparent = start.and_then(|s| s.traceparent.as_deref().map(payload::pack_traceparent));
        rows.begin()
            .bigint(script_id)
            .bigint(run.executed_at)
            .bigint(end.map(|end| end.finished_at))
            .bigint(end.and_then(|end| end.response_time))
            .bigint(run.origin.version)
            .bigint(run.origin.stream)
            .bigint(number)
            .smallint(end.map_or(RunStatus::InProgress, |end| end.status).code())
            // Of a run whose beginning is lost, neither function nor caller is known.
            .smallint(start.map_or(SourceType::Api.code(), |start| start.source_type))
            .bytes(run.run_id.as_bytes())
            .bytes(start.map_or("", |start| &start.function).as_bytes())
            .bytes(start.map_or("", |start| &start.source).as_bytes())
            .bytes(end.and_then(|end| end.reason.as_deref()).map(str::as_bytes))
            .bytes(traceparent.as_deref());
    }
    rows.send(
        connection,
        "COPY runs (script_id, executed_at, finished_at, response_time, version, stream_id, payload, status, \
            source_type, run_id, function, source, reason, traceparent) FROM STDIN (FORMAT binary)",
    )
    .await?;
    if payloads.is_empty() {
        return Ok(());
    }
    payloads
        .send(
            connection,
            "COPY run_payloads (number, input, output, error) FROM STDIN (FORMAT binary)",
        )
        .await
}

/// Closes runs that are in progress.
pub async fn close(
    connection: &mut PgConnection,
    script_id: i64,
    runs: &[ClosedRun<'_>],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let mut numbers = Numbers::none();
    let mut payloads: Vec<(Option<i64>, Payload<'_>)> = Vec::with_capacity(runs.len());
    for run in runs {
        let payload = Payload {
            input: None,
            output: run.end.output.as_deref(),
            error: run.end.error.as_deref(),
        };
        let mut number = run.stored.payload;
        if number.is_none() && !payload.is_empty() {
            number = Some(numbers.next(connection).await?);
        }
        payloads.push((number, payload));
    }
    sqlx::query(
        "UPDATE runs SET status = v.status, finished_at = v.finished_at, response_time = v.response_time, \
            reason = v.reason, payload = v.payload \
         FROM unnest($2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[]) \
            AS v (run_id, status, finished_at, response_time, reason, payload) \
         WHERE runs.script_id = $1 AND runs.run_id = v.run_id",
    )
    .bind(script_id)
    .bind(runs.iter().map(|run| run.end.run_id.as_str()).collect::<Vec<_>>())
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
    .bind(payloads.iter().map(|(number, _)| *number).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    payloads.retain(|(_, payload)| !payload.is_empty());
    if payloads.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO run_payloads (number, output, error) SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) \
         ON CONFLICT (number) DO UPDATE SET output = excluded.output, error = excluded.error",
    )
    .bind(payloads.iter().map(|(number, _)| *number).collect::<Vec<_>>())
    .bind(payloads.iter().map(|(_, p)| p.output).collect::<Vec<_>>())
    .bind(payloads.iter().map(|(_, p)| p.error).collect::<Vec<_>>())
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
        "SELECT payload, run_id, status, executed_at, version, function FROM runs \
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
    let (stored, ends) = forced_ends(open, close_runs);
    let changes = RunChanges::closing(stored, &ends);
    close(connection, script_id, &changes.closed).await?;
    usage::add(&mut Writing(connection), script_id, &usage::Change::of(&changes)).await?;
    let mut sums = Rollups::default();
    sums.add(&changes);
    rollups::add(connection, script_id, sums).await?;
    Ok(changes.closed.len() as u64)
}
