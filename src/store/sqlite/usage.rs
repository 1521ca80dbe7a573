//! How many runs a script and a stream have, and how many bytes of payloads: counted as they come and go, since a count
//! of the rows would read them all.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::ROWS_PER_STATEMENT;
use crate::store::{StoreError, batch::End, run_changes::RunChanges};

/// Runs and bytes of payloads that came or, below zero, went.
#[derive(Debug, Default)]
pub struct Change {
    /// Runs by stream.
    pub runs: BTreeMap<i64, i64>,
    /// Bytes of payloads.
    pub payload_bytes: i64,
}

impl Change {
    /// What changes of runs bring.
    pub fn of(changes: &RunChanges<'_>) -> Self {
        let mut change = Self::default();
        for run in &changes.new {
            *change.runs.entry(run.origin.stream).or_default() += 1;
            change.payload_bytes += bytes(run.start.and_then(|start| start.input.as_ref()));
            change.payload_bytes += run.end.map_or(0, end_bytes);
        }
        change.payload_bytes += changes.closed.iter().map(|run| end_bytes(run.end)).sum::<i64>();
        change
    }
}

/// Bytes of payloads that an end brings.
pub fn end_bytes(end: &End) -> i64 {
    bytes(end.output.as_ref()) + bytes(end.error.as_ref())
}

fn bytes(payload: Option<&Vec<u8>>) -> i64 {
    payload.map_or(0, |payload| i64::try_from(payload.len()).unwrap_or(i64::MAX))
}

/// Adds to the counts.
pub async fn add(
    connection: &mut SqliteConnection,
    script_id: i64,
    change: &Change,
) -> Result<(), StoreError> {
    let runs: i64 = change.runs.values().sum();
    if runs != 0 || change.payload_bytes != 0 {
        sqlx::query(
            "INSERT INTO script_usage (script_id, runs, payload_bytes) VALUES (?, ?, ?) \
             ON CONFLICT (script_id) DO UPDATE SET runs = max(runs + excluded.runs, 0), \
             payload_bytes = max(payload_bytes + excluded.payload_bytes, 0)",
        )
        .bind(script_id)
        .bind(runs)
        .bind(change.payload_bytes)
        .execute(&mut *connection)
        .await?;
    }
    let streams: Vec<(&i64, &i64)> = change.runs.iter().collect();
    for chunk in streams.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new("UPDATE streams SET runs = runs + v.column2 FROM (");
        sql.push_values(chunk, |mut row, (stream, runs)| {
            row.push_bind(**stream).push_bind(**runs);
        });
        sql.push(") AS v WHERE streams.id = v.column1");
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}
