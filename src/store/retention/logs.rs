//! Log segments: whole ones go; of those with lines on both sides of the limit, the old lines are hidden at once and
//! written away once a day.

use tokio::task;

use super::{
    Budget, Cutoffs, REWRITE_AFTER, Retained,
    sql::{Write, first, numbers, push, push_list, sql},
    steps::{rows, unsigned},
};
use crate::{
    segment::{self, LineRef, Segment, SegmentLine},
    store::{
        StoreError,
        read::{Snapshot, Values},
    },
};

/// Bytes of a segment `s` with its grams `g`; 200 for all besides the large columns, about.
const BYTES: &str = "length(s.body) + length(s.runs) + coalesce(length(g.grams), 0) + 200";
const FROM: &str = "FROM log_segments s LEFT JOIN log_segment_grams g ON g.segment_id = s.segment_id";

/// What to do.
#[derive(Debug)]
pub enum Step {
    /// From now on no line from before is shown.
    Hide(i64),
    /// Whole segments go; lines from before a moment are hidden.
    Delete(Vec<i64>, Option<i64>),
    /// A segment gives way to what of it is younger than the moment before which lines are hidden.
    Rewrite {
        segment_id: i64,
        removed: u64,
        kept: Option<Segment>,
        limit: i64,
    },
}

/// Bytes of a script's segments.
pub async fn bytes<S: Snapshot>(snapshot: &mut S, script_id: i64) -> Result<i64, StoreError> {
    let mut statement = sql(format!("SELECT CAST(coalesce(sum({BYTES}), 0) AS BIGINT) {FROM}"));
    push(&mut statement, " WHERE s.script_id = ", script_id);
    let [bytes] = first(snapshot, statement).await?.unwrap_or_default();
    Ok(bytes.unwrap_or(0))
}

/// From which moment on lines of a script are shown, microseconds.
pub async fn shown_from<S: Snapshot>(snapshot: &mut S, script_id: i64) -> Result<i64, StoreError> {
    let mut statement = sql("SELECT logs_before FROM retention");
    push(&mut statement, " WHERE script_id = ", script_id);
    let [floor] = first(snapshot, statement).await?.unwrap_or_default();
    Ok(floor.unwrap_or(i64::MIN))
}

/// The next step, if there is one.
pub async fn plan<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    cutoffs: &Cutoffs,
    excess: u64,
    budget: Budget,
) -> Result<Option<Step>, StoreError> {
    let limit = cutoffs.logs.map(jiff::Timestamp::as_microsecond);
    let doomed = choose(snapshot, script_id, limit.unwrap_or(i64::MIN), excess, budget).await?;
    if !doomed.is_empty() {
        return Ok(Some(Step::Delete(doomed, limit)));
    }
    let Some(limit) = limit else { return Ok(None) };
    // All that are left have lines younger than the limit.
    let mut statement = sql("SELECT segment_id, min_time FROM log_segments");
    push(&mut statement, " WHERE script_id = ", script_id);
    push(&mut statement, " AND max_time >= ", limit);
    push(&mut statement, " AND min_time < ", limit);
    statement.push(" ORDER BY min_time LIMIT 1");
    let Some([Some(segment_id), Some(oldest)]) = first(snapshot, statement).await? else {
        return Ok(None);
    };
    let rewrite_below = cutoffs.logs.and_then(|time| time.checked_sub(REWRITE_AFTER).ok());
    if rewrite_below.is_some_and(|time| oldest < time.as_microsecond()) {
        return rewrite(snapshot, segment_id, limit).await.map(Some);
    }
    let hidden = shown_from(snapshot, script_id).await? >= limit;
    Ok((!hidden).then_some(Step::Hide(limit)))
}

/// The oldest segments that are to go whole, within the budget.
async fn choose<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    limit: i64,
    excess: u64,
    budget: Budget,
) -> Result<Vec<i64>, StoreError> {
    let mut statement = sql(format!(
        "SELECT s.segment_id, s.max_time, CAST({BYTES} AS BIGINT) {FROM}"
    ));
    push(&mut statement, " WHERE s.script_id = ", script_id);
    push(
        &mut statement,
        " AND s.max_time < ",
        if excess > 0 { i64::MAX } else { limit },
    );
    push(
        &mut statement,
        " ORDER BY s.max_time, s.segment_id LIMIT ",
        rows(budget),
    );
    let (mut doomed, mut sum, mut enough) = (Vec::new(), 0, false);
    snapshot
        .each(statement, |row| {
            let past = row.number(1)? < limit;
            enough |= (sum >= budget.bytes && !doomed.is_empty()) || !(past || sum < excess);
            if !enough {
                sum += unsigned(row.number(2)?);
                doomed.push(row.number(0)?);
            }
            Ok(())
        })
        .await?;
    Ok(doomed)
}

/// What is left of a segment without the lines from before `limit`.
async fn rewrite<S: Snapshot>(snapshot: &mut S, segment_id: i64, limit: i64) -> Result<Step, StoreError> {
    let body = crate::store::read::segment_body(snapshot, segment_id).await?;
    let (removed, kept) = task::spawn_blocking(move || -> Result<(u64, Option<Segment>), StoreError> {
        let mut lines = segment::decode(&body)?;
        let before = lines.len();
        lines.retain(|line| line.key.micros >= limit);
        let removed = (before - lines.len()) as u64;
        let lines: Vec<LineRef<'_>> = lines.iter().map(SegmentLine::as_ref).collect();
        Ok((removed, segment::encode(&lines)?))
    })
    .await
    .map_err(|_| StoreError::Corrupt(format!("segment {segment_id} can not be read")))??;
    Ok(Step::Rewrite {
        segment_id,
        removed,
        kept,
        limit,
    })
}

/// Does a step.
pub async fn apply<W: Write>(write: &mut W, script_id: i64, step: &Step) -> Result<Retained, StoreError> {
    let more = Retained {
        more: true,
        ..Retained::default()
    };
    match step {
        Step::Hide(limit) => {
            hide(write, script_id, *limit).await?;
            Ok(more)
        }
        Step::Delete(ids, limit) => {
            if let Some(limit) = limit {
                hide(write, script_id, *limit).await?;
            }
            // Those that were merged meanwhile are found again, merged.
            let gone = remove(write, ids).await?;
            Ok(Retained {
                segments: gone.len() as u64,
                lines: gone.iter().map(|segment| segment.lines).sum(),
                bytes: gone.iter().map(|segment| segment.bytes).sum(),
                ..more
            })
        }
        Step::Rewrite {
            segment_id,
            removed,
            kept,
            limit,
        } => {
            hide(write, script_id, *limit).await?;
            let Some(old) = remove(write, &[*segment_id]).await?.pop() else {
                return Ok(more);
            };
            let mut left = 0;
            if let Some(kept) = kept {
                left = kept.body.len() as u64;
                write
                    .insert_segment(script_id, old.tier, old.sealed, kept)
                    .await?;
            }
            Ok(Retained {
                lines: *removed,
                bytes: old.bytes.saturating_sub(left),
                ..more
            })
        }
    }
}

/// From now on no line from before `limit` is shown.
async fn hide<W: Write>(write: &mut W, script_id: i64, limit: i64) -> Result<(), StoreError> {
    let mut statement = sql("INSERT INTO retention (script_id, logs_before) VALUES (");
    push(&mut statement, "", script_id);
    push(&mut statement, ", ", limit);
    statement.push(
        ") ON CONFLICT (script_id) DO UPDATE SET logs_before = CASE \
         WHEN retention.logs_before > excluded.logs_before THEN retention.logs_before ELSE excluded.logs_before END",
    );
    write.execute(statement).await?;
    Ok(())
}

/// A segment that is gone.
struct Gone {
    lines: u64,
    bytes: u64,
    tier: i64,
    sealed: bool,
}

async fn remove<W: Write>(write: &mut W, ids: &[i64]) -> Result<Vec<Gone>, StoreError> {
    let mut sizes = sql("SELECT s.segment_id, CAST(coalesce(length(g.grams), 0) AS BIGINT) ");
    sizes.push(FROM).push(" WHERE s.segment_id IN (");
    push_list(&mut sizes, ids.iter().copied());
    let mut grams = std::collections::HashMap::new();
    write
        .each(sizes, |row| {
            grams.insert(row.number(0)?, unsigned(row.number(1)?));
            Ok(())
        })
        .await?;
    // Before the segments: whoever indexes one locks its entry first.
    let mut waiting = sql("DELETE FROM log_segments_to_index WHERE segment_id IN (");
    push_list(&mut waiting, ids.iter().copied());
    write.execute(waiting).await?;
    let mut statement = sql("DELETE FROM log_segments WHERE segment_id IN (");
    push_list(&mut statement, ids.iter().copied());
    statement.push(
        " RETURNING segment_id, lines, CAST(length(body) + length(runs) AS BIGINT), tier, \
         CAST(CASE WHEN sealed THEN 1 ELSE 0 END AS BIGINT)",
    );
    let mut gone = Vec::new();
    write
        .each(statement, |row| {
            let [id, lines, bytes, tier, sealed] = numbers(row)?.map(Option::unwrap_or_default);
            gone.push(Gone {
                lines: unsigned(lines),
                bytes: unsigned(bytes) + grams.get(&id).copied().unwrap_or(0),
                tier,
                sealed: sealed != 0,
            });
            Ok(())
        })
        .await?;
    Ok(gone)
}
