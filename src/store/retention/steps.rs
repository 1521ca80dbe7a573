//! What one transaction of retention does: found by reading, so that the writing one only deletes by key. The same on every
//! backend.

use jiff::Timestamp;

use super::{
    Budget, Cutoffs, RUN_BYTES, Retained, SeenObject, Storage, history, logs, pods, runs,
    sql::{Write, first, push, sql},
};
use crate::model::ScriptKey;
use crate::store::{
    OnDelete, StoreError,
    read::{Snapshot, Values},
};

/// Rows that a statement may name, for any backend.
const MOST_ROWS: usize = 2_000;

/// What a transaction does.
#[derive(Debug)]
pub enum Step {
    /// Log lines.
    Logs(logs::Step),
    /// Runs and their payloads.
    Runs(runs::Step),
    /// Rows of one of the other tables.
    Rows(history::Step),
    /// Pods and their streams.
    Pods(pods::Step),
}

/// Rows that a statement may name.
pub fn rows(budget: Budget) -> i64 {
    i64::try_from(budget.rows.clamp(1, MOST_ROWS)).unwrap_or(1)
}

pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The next step of [`super::Retention::retain`]; none where nothing is past the cutoffs.
pub async fn retain<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    cutoffs: &Cutoffs,
    budget: Budget,
) -> Result<Option<Step>, StoreError> {
    let (logs_excess, runs_excess) = match cutoffs.max_bytes {
        Some(max) => storage(snapshot, script_id).await?.excess(max),
        None => (0, 0),
    };
    if let Some(step) = logs::plan(snapshot, script_id, cutoffs, logs_excess, budget).await? {
        return Ok(Some(Step::Logs(step)));
    }
    if let Some(step) = runs::plan(snapshot, script_id, cutoffs, runs_excess, budget).await? {
        return Ok(Some(Step::Runs(step)));
    }
    let step = history::plan(snapshot, script_id, cutoffs, budget).await?;
    Ok(step.map(Step::Rows))
}

/// The next step of [`super::Retention::purge`].
pub async fn purge<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    before: Timestamp,
    budget: Budget,
) -> Result<Option<Step>, StoreError> {
    let cutoffs = Cutoffs::all_before(before, before);
    if let Some(step) = retain(snapshot, script_id, &cutoffs, budget).await? {
        return Ok(Some(step));
    }
    let step = history::plan_purge(snapshot, script_id, before, budget).await?;
    Ok(step.map(Step::Rows))
}

/// Does a step, within a transaction.
pub async fn apply<W: Write>(write: &mut W, script_id: i64, step: &Step) -> Result<Retained, StoreError> {
    match step {
        Step::Logs(step) => logs::apply(write, script_id, step).await,
        Step::Runs(step) => runs::apply(write, script_id, step).await,
        Step::Rows(step) => history::apply(write, script_id, step).await,
        Step::Pods(step) => pods::apply(write, step).await,
    }
}

/// See [`super::Retention::storage`].
pub async fn storage<S: Snapshot>(snapshot: &mut S, script_id: i64) -> Result<Storage, StoreError> {
    let mut statement = sql("SELECT runs, payload_bytes FROM script_usage");
    push(&mut statement, " WHERE script_id = ", script_id);
    let [runs, payloads] = first(snapshot, statement).await?.unwrap_or_default();
    Ok(Storage {
        runs: unsigned(runs.unwrap_or(0)) * RUN_BYTES,
        payloads: unsigned(payloads.unwrap_or(0)),
        logs: unsigned(logs::bytes(snapshot, script_id).await?),
    })
}

/// See [`super::Retention::note_object`].
pub async fn note_object<W: Write>(
    write: &mut W,
    script_id: i64,
    object: &SeenObject,
) -> Result<(), StoreError> {
    let mut statement = sql("INSERT INTO seen_objects (script_id, uid, purge) VALUES (");
    push(&mut statement, "", script_id);
    statement.push(", ");
    <W::DB as crate::query::Dialect>::text(&mut statement, object.uid.clone());
    push(
        &mut statement,
        ", ",
        i64::from(object.on_delete == OnDelete::Purge),
    );
    statement.push(") ON CONFLICT (script_id) DO UPDATE SET uid = excluded.uid, purge = excluded.purge");
    write.execute(statement).await?;
    let mut statement = sql("UPDATE retention SET purged_at = NULL");
    push(&mut statement, " WHERE script_id = ", script_id);
    write.execute(statement).await?;
    Ok(())
}

/// See [`super::Retention::seen_objects`].
pub async fn seen_objects<S: Snapshot>(snapshot: &mut S) -> Result<Vec<(ScriptKey, SeenObject)>, StoreError> {
    let mut objects = Vec::new();
    let statement = sql(
        "SELECT s.namespace, s.name, o.uid, o.purge FROM seen_objects o JOIN scripts s ON s.id = o.script_id",
    );
    snapshot
        .each(statement, |row| {
            let on_delete = if row.number(3)? == 0 {
                OnDelete::Retain
            } else {
                OnDelete::Purge
            };
            let uid = row.text(2)?.to_owned();
            objects.push((
                ScriptKey::new(row.text(0)?, row.text(1)?),
                SeenObject { uid, on_delete },
            ));
            Ok(())
        })
        .await?;
    Ok(objects)
}
