//! Batches of appends in one transaction: compare, then segments, runs, rollups, gaps and checkpoints.
//!
//! Every transaction takes its locks in one order: the checkpoints of its streams by number, then its scripts by
//! number, then the rows of rollups by script. What is slow and needs no script's lock, the segments, comes before.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use sqlx::{PgConnection, Row};

use super::{gaps, locks, rollups, runs_write, segments};
use crate::{
    ingest::wire::Position,
    model::ScriptKey,
    segment::Segment,
    store::{
        AppendOutcome, StoreError,
        batch::{Batch, Owner, PreparedAppend, RunEvent, decide},
        retention::{runs::ended_before, sql::Writing, usage},
        rows::position,
        run_changes::{self, LookUp, Origin, Rollups},
    },
};

/// For a batch: the outcomes of its appends and the scripts that changed.
pub type Answer = (Vec<AppendOutcome>, BTreeSet<ScriptKey>);

type Committed<'a> = Vec<(&'a PreparedAppend, &'a Owner)>;

/// Applies batches. `unknown` are the answers of an earlier attempt of which nobody knows whether it was committed: a
/// stream that stands where that attempt would have left it says that it was. `look_up` says how well their runs are
/// known.
pub async fn apply(
    connection: &mut PgConnection,
    batches: &[Batch],
    unknown: Option<&[Answer]>,
    look_up: LookUp,
) -> Result<Vec<Answer>, StoreError> {
    let mut positions = lock_positions(connection, batches).await?;
    let done = done_before(batches, unknown, &positions);
    let mut answers = Vec::with_capacity(batches.len());
    let mut committed: Committed<'_> = Vec::new();
    let mut new_segments: Vec<(i64, Cow<'_, Segment>)> = Vec::new();
    for (b, batch) in batches.iter().enumerate() {
        let mut outcomes = Vec::with_capacity(batch.appends.len());
        let mut changed = BTreeSet::new();
        let mut stored_now = Vec::with_capacity(batch.appends.len());
        for (a, append) in batch.appends.iter().enumerate() {
            let again = done.contains(&(b, a));
            let outcome = if again {
                AppendOutcome::Committed(append.position.clone())
            } else {
                decide(append, &mut positions)
            };
            let stored = matches!(outcome, AppendOutcome::Committed(_));
            stored_now.push(stored && !again);
            if let Some(owner) = append.owner.as_deref().filter(|_| stored) {
                if !again {
                    committed.push((append, owner));
                }
                if append.is_visible() {
                    changed.insert(owner.pod.script.clone());
                }
            }
            outcomes.push(outcome);
        }
        new_segments.append(&mut batch.segments_of(&stored_now)?);
        answers.push((outcomes, changed));
    }
    segments::insert(connection, 0, false, &new_segments).await?;
    drop(new_segments);
    store_runs(connection, &committed, look_up).await?;
    store_gaps(connection, &committed).await?;
    for (append, _) in &committed {
        if let Some(word) = &append.last_word {
            gaps::last_word(connection, append.stream, word).await?;
        }
    }
    // The last append of a stream has the word on its checkpoint.
    let last: BTreeMap<i64, &PreparedAppend> = committed.iter().map(|(a, _)| (a.stream, *a)).collect();
    store_checkpoints(connection, &last.into_values().collect::<Vec<_>>()).await?;
    Ok(answers)
}

/// Which appends (by batch and place) an earlier attempt has committed.
fn done_before(
    batches: &[Batch],
    unknown: Option<&[Answer]>,
    positions: &HashMap<i64, (i64, Position)>,
) -> BTreeSet<(usize, usize)> {
    let appends = || {
        let answers = unknown.unwrap_or_default().iter().zip(batches).enumerate();
        answers.flat_map(|(b, ((outcomes, _), batch))| {
            let each = batch.appends.iter().zip(outcomes).enumerate();
            each.filter(|(_, (append, outcome))| {
                matches!(outcome, AppendOutcome::Committed(_)) && append.offset > append.expected_offset
            })
            .map(move |(a, (append, _))| ((b, a), append))
        })
    };
    let ends: HashMap<i64, &PreparedAppend> = appends().map(|(_, append)| (append.stream, append)).collect();
    let reached = |stream: i64| {
        let (stored, end) = (positions.get(&stream), ends.get(&stream));
        stored
            .zip(end)
            .is_some_and(|((_, stored), end)| *stored == end.position)
    };
    appends()
        .filter(|(_, append)| reached(append.stream))
        .map(|(at, _)| at)
        .collect()
}

async fn lock_positions(
    connection: &mut PgConnection,
    batches: &[Batch],
) -> Result<HashMap<i64, (i64, Position)>, StoreError> {
    let streams: BTreeSet<i64> = batches
        .iter()
        .flat_map(|b| b.appends.iter().map(|a| a.stream))
        .collect();
    let rows = sqlx::query(
        "SELECT id, committed_offset, file, file_start FROM streams WHERE id = ANY($1) \
         ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(streams.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok((
                row.try_get("id")?,
                (row.try_get("committed_offset")?, position(row)?),
            ))
        })
        .collect()
}

/// Runs and rollups, script by script.
async fn store_runs(
    connection: &mut PgConnection,
    committed: &Committed<'_>,
    look_up: LookUp,
) -> Result<(), StoreError> {
    let mut scripts: BTreeMap<i64, Committed<'_>> = BTreeMap::new();
    for (append, owner) in committed.iter().filter(|(append, _)| append.is_visible()) {
        scripts.entry(owner.script_id).or_default().push((append, owner));
    }
    // Counts of lines are added by the database itself, which needs no lock.
    let with_events =
        |(_, appends): &(&i64, &Committed<'_>)| appends.iter().any(|(a, _)| !a.events.is_empty());
    let locked = scripts.iter().filter(with_events).map(|(id, _)| *id);
    locks::scripts(connection, &locked.collect::<Vec<_>>()).await?;
    for (script_id, appends) in scripts {
        let mut sums = Rollups::default();
        for (append, owner) in &appends {
            for (&(hour, level), &count) in &append.line_counts {
                sums.lines(hour, owner.pod.version, level.code(), count);
            }
        }
        let events: Vec<(Origin, &RunEvent)> = appends
            .iter()
            .flat_map(|(append, owner)| {
                let origin = Origin {
                    stream: append.stream,
                    version: owner.pod.version,
                };
                append.events.iter().map(move |event| (origin, event))
            })
            .collect();
        if !events.is_empty() {
            let ids = look_up.ids(events.iter().map(|(_, event)| *event));
            let stored = runs_write::load(connection, script_id, &ids).await?;
            let ended_before = ended_before(&mut Writing(connection), script_id).await?;
            let changes = run_changes::apply(stored, events, ended_before);
            runs_write::insert(connection, script_id, &changes.new).await?;
            runs_write::close(connection, script_id, &changes.closed).await?;
            let change = usage::Change::of(&changes);
            usage::add(&mut Writing(connection), script_id, &change).await?;
            sums.add(&changes);
        }
        rollups::add(connection, script_id, sums).await?;
    }
    Ok(())
}

async fn store_gaps(connection: &mut PgConnection, committed: &Committed<'_>) -> Result<(), StoreError> {
    for (append, owner) in committed {
        let Some((gap, time)) = &append.gap else {
            continue;
        };
        sqlx::query(
            "INSERT INTO gaps (script_id, stream_id, at_offset, time, bytes, reason) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(owner.script_id)
        .bind(append.stream)
        .bind(append.expected_offset)
        .bind(time)
        .bind(i64::try_from(gap.bytes).unwrap_or(i64::MAX))
        .bind(&gap.reason)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn store_checkpoints(
    connection: &mut PgConnection,
    appends: &[&PreparedAppend],
) -> Result<(), StoreError> {
    if appends.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE streams SET committed_offset = v.committed_offset, file = v.file, file_start = v.file_start, \
            carry = v.carry \
         FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bytea[]) \
            AS v (id, committed_offset, file, file_start, carry) \
         WHERE streams.id = v.id",
    )
    .bind(appends.iter().map(|a| a.stream).collect::<Vec<_>>())
    .bind(appends.iter().map(|a| a.offset).collect::<Vec<_>>())
    .bind(
        appends
            .iter()
            .map(|a| a.position.file.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(appends.iter().map(|a| a.file_start).collect::<Vec<_>>())
    .bind(appends.iter().map(|a| a.carry.as_slice()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
