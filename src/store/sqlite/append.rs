//! Batches of appends in one transaction: compare, then runs, segments, rollups, gaps and checkpoints.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{ROWS_PER_STATEMENT, gaps, push_list, rollups, runs_write, segments};
use crate::{
    ingest::wire::Position,
    model::ScriptKey,
    store::{
        AppendOutcome, StoreError,
        batch::{Batch, Owner, PreparedAppend, RunEvent, decide},
        retention::{runs::ended_before, sql::Writing, usage},
        rows::position,
        run_changes::{self, LookUp, Origin, Rollups},
    },
};

/// Applies batches, of which `look_up` says how well their runs are known; for each the outcomes of its appends and the scripts that changed.
pub async fn apply(
    connection: &mut SqliteConnection,
    batches: &[Batch],
    look_up: LookUp,
) -> Result<Vec<(Vec<AppendOutcome>, BTreeSet<ScriptKey>)>, StoreError> {
    let mut positions = load_positions(connection, batches).await?;
    let mut touched: BTreeSet<i64> = BTreeSet::new();
    let mut answers = Vec::with_capacity(batches.len());
    let mut committed: Vec<(&PreparedAppend, &Owner)> = Vec::new();
    for batch in batches {
        let mut outcomes = Vec::with_capacity(batch.appends.len());
        let mut changed = BTreeSet::new();
        let mut members = Vec::with_capacity(batch.appends.len());
        for append in &batch.appends {
            let outcome = decide(append, &mut positions);
            let stored = matches!(outcome, AppendOutcome::Committed(_));
            members.push(stored);
            if let Some(owner) = append.owner.as_deref().filter(|_| stored) {
                touched.insert(append.stream);
                committed.push((append, owner));
                if append.is_visible() {
                    changed.insert(owner.pod.script.clone());
                }
            }
            outcomes.push(outcome);
        }
        for (script_id, segment) in batch.segments_of(&members)? {
            segments::insert(connection, script_id, 0, false, &segment).await?;
        }
        answers.push((outcomes, changed));
    }
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

async fn load_positions(
    connection: &mut SqliteConnection,
    batches: &[Batch],
) -> Result<HashMap<i64, (i64, Position)>, StoreError> {
    let streams: BTreeSet<i64> = batches
        .iter()
        .flat_map(|b| b.appends.iter().map(|a| a.stream))
        .collect();
    let streams: Vec<i64> = streams.into_iter().collect();
    let mut positions = HashMap::new();
    for chunk in streams.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT id, committed_offset, file, file_start FROM streams WHERE id IN (",
        );
        push_list(&mut sql, chunk.iter().copied());
        for row in sql.build().persistent(false).fetch_all(&mut *connection).await? {
            let offset = row.try_get("committed_offset")?;
            positions.insert(row.try_get("id")?, (offset, position(&row)?));
        }
    }
    Ok(positions)
}

/// Runs and rollups, script by script.
async fn store_runs(
    connection: &mut SqliteConnection,
    committed: &[(&PreparedAppend, &Owner)],
    look_up: LookUp,
) -> Result<(), StoreError> {
    let mut scripts: BTreeMap<i64, Vec<(&PreparedAppend, &Owner)>> = BTreeMap::new();
    for (append, owner) in committed {
        scripts.entry(owner.script_id).or_default().push((append, owner));
    }
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

async fn store_gaps(
    connection: &mut SqliteConnection,
    committed: &[(&PreparedAppend, &Owner)],
) -> Result<(), StoreError> {
    let gaps: Vec<_> = committed
        .iter()
        .filter_map(|(append, owner)| append.gap.as_ref().map(|gap| (append, owner, gap)))
        .collect();
    for chunk in gaps.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO gaps (script_id, stream_id, at_offset, time, bytes, reason) ",
        );
        sql.push_values(chunk, |mut row, (append, owner, (gap, time))| {
            row.push_bind(owner.script_id)
                .push_bind(append.stream)
                .push_bind(append.expected_offset)
                .push_bind(*time)
                .push_bind(i64::try_from(gap.bytes).unwrap_or(i64::MAX))
                .push_bind(gap.reason.as_str());
        });
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn store_checkpoints(
    connection: &mut SqliteConnection,
    appends: &[&PreparedAppend],
) -> Result<(), StoreError> {
    for chunk in appends.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "UPDATE streams SET committed_offset = v.column2, file = v.column3, file_start = v.column4, \
             carry = v.column5 FROM (",
        );
        sql.push_values(chunk, |mut row, append| {
            row.push_bind(append.stream)
                .push_bind(append.offset)
                .push_bind(append.position.file.as_str())
                .push_bind(append.file_start)
                .push_bind(append.carry.as_slice());
        });
        sql.push(") AS v WHERE streams.id = v.column1");
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}
