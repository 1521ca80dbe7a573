//! Why runs failed.

use super::{Snapshot, Values, limit, push, sql};
use crate::{
    failures::{FailedRun, Grouping},
    model::{RunError, RunStatus},
    query::{hint, micros_range, push_runs_order, push_runs_where},
    store::{RunQuery, StoreError, payload, time},
};

/// See [`crate::store::Store::failures`]. Only what groups keep is in memory.
pub async fn failures<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &RunQuery,
) -> Result<(Grouping, bool), StoreError> {
    let mut statement = sql::<S>("SELECT r.run_id, r.executed_at, r.version, r.reason, rp.error FROM runs r");
    statement
        .push(hint::<S::DB>(&query.filter))
        .push(" LEFT JOIN run_payloads rp ON rp.number = r.payload");
    let range = micros_range(&query.range);
    push_runs_where(&mut statement, script_id, &range, &query.filter, None)?;
    // Said and not bound, so that the index of failed runs serves.
    statement.push(" AND r.status = ").push(RunStatus::Failed.code());
    push_runs_order(&mut statement, &query.filter);
    push::<S>(&mut statement, " LIMIT ", limit(query.limit.saturating_add(1)));
    let (mut grouping, mut more) = (Grouping::default(), false);
    let read = snapshot
        .each(statement, |row| {
            if grouping.len() == query.limit {
                more = true;
                return Ok(());
            }
            let error = row.optional_bytes(4)?.map(error_of).transpose()?;
            grouping.add(FailedRun {
                run_id: row.text(0)?,
                executed_on: time(row.number(1)?)?,
                version: row.number(2)?,
                reason: row.optional_text(3)?,
                error: error.as_ref(),
            });
            Ok(())
        })
        .await;
    match read {
        Err(StoreError::TimeLimit(_)) if !grouping.is_empty() => Ok((grouping, true)),
        read => read.map(|()| (grouping, more)),
    }
}

fn error_of(bytes: &[u8]) -> Result<RunError, StoreError> {
    let json = payload::unpack(bytes)?;
    serde_json::from_str(&json).map_err(|_| StoreError::Corrupt("the error of a run".to_owned()))
}
