//! How many runs a script and a stream have, and how many bytes of payloads: counted as they come and go, since a count
//! of the rows would read them all.

use std::collections::BTreeMap;

use super::sql::{Write, push, sql};
use crate::store::{StoreError, batch::End, run_changes::RunChanges};

/// Streams named in one statement.
const STREAMS: usize = 2_000;

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

fn end_bytes(end: &End) -> i64 {
    bytes(end.output.as_ref()) + bytes(end.error.as_ref())
}

fn bytes(payload: Option<&Vec<u8>>) -> i64 {
    payload.map_or(0, |payload| i64::try_from(payload.len()).unwrap_or(i64::MAX))
}

/// Adds to the counts.
pub async fn add<W: Write>(write: &mut W, script_id: i64, change: &Change) -> Result<(), StoreError> {
    let runs: i64 = change.runs.values().sum();
    if runs != 0 || change.payload_bytes != 0 {
        let mut statement = sql("INSERT INTO script_usage (script_id, runs, payload_bytes) VALUES (");
        push(&mut statement, "", script_id);
        push(&mut statement, ", ", runs);
        push(&mut statement, ", ", change.payload_bytes);
        statement.push(
            ") ON CONFLICT (script_id) DO UPDATE SET runs = script_usage.runs + excluded.runs, \
             payload_bytes = script_usage.payload_bytes + excluded.payload_bytes",
        );
        write.execute(statement).await?;
    }
    let streams: Vec<(i64, i64)> = change
        .runs
        .iter()
        .map(|(stream, runs)| (*stream, *runs))
        .collect();
    for chunk in streams.chunks(STREAMS) {
        let mut statement = sql("UPDATE streams SET runs = runs + v.column2 FROM (VALUES ");
        for (n, (stream, runs)) in chunk.iter().enumerate() {
            push(&mut statement, if n > 0 { ", (" } else { "(" }, *stream);
            push(&mut statement, ", ", *runs);
            statement.push(")");
        }
        statement.push(") AS v WHERE streams.id = v.column1");
        write.execute(statement).await?;
    }
    Ok(())
}
