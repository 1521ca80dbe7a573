//! Ended runs and their payloads, the oldest first. Runs in progress stay, however old.

use std::{collections::BTreeMap, ops::Range};

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{
    super::{Inner, ROWS_PER_STATEMENT, push_list, usage},
    unsigned,
};
use crate::{
    model::RunStatus,
    store::{
        StoreError,
        retention::{Budget, Cutoffs, RUN_BYTES, Retained},
    },
};

/// How often to look for runs that came late, with a beginning in a time that was swept before.
const LATE_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// Beginning and duration of a run are measured by two clocks: so far apart can they be.
const CLOCKS_MICROS: i64 = 60 * 1_000_000;

/// How far runs have been deleted.
#[derive(Clone, Copy, Debug, Default)]
struct Swept {
    succeeded: Option<i64>,
    failed: Option<i64>,
    at: Option<i64>,
}

/// Before which moment runs without a row were deleted, microseconds.
pub async fn ended_before(connection: &mut SqliteConnection, script_id: i64) -> Result<i64, StoreError> {
    let before: Option<Option<i64>> =
        sqlx::query_scalar("SELECT ended_before FROM retention WHERE script_id = ?")
            .bind(script_id)
            .fetch_optional(connection)
            .await?;
    Ok(before.flatten().unwrap_or(i64::MIN))
}

/// Deletes some runs; `more` where it did.
pub async fn delete(
    store: &Inner,
    script_id: i64,
    cutoffs: &Cutoffs,
    excess: u64,
    budget: Budget,
) -> Result<Retained, StoreError> {
    let now = cutoffs.now.as_microsecond();
    let mut swept = load(store, script_id).await?;
    if swept.at.is_none_or(|at| now.saturating_sub(at) >= LATE_MICROS) {
        swept = Swept {
            at: Some(now),
            ..Swept::default()
        };
    }
    let micros = |time: Option<jiff::Timestamp>| time.map(|time| time.as_microsecond());
    for (status, limit) in [
        (RunStatus::Success, micros(cutoffs.runs)),
        (RunStatus::Failed, micros(cutoffs.failed_runs)),
    ] {
        let Some(limit) = limit else { continue };
        let mark = match status {
            RunStatus::Failed => &mut swept.failed,
            _ => &mut swept.succeeded,
        };
        let from = mark.unwrap_or(i64::MIN);
        let doomed = past(store, script_id, status, from..limit, budget).await?;
        *mark = Some(match &doomed {
            Some(doomed) if doomed.full => doomed.times.end,
            _ => limit,
        });
        if doomed.is_some() {
            return write(store, script_id, doomed, swept).await;
        }
    }
    if excess > 0 {
        let doomed = oldest(store, script_id, excess, budget).await?;
        if doomed.is_some() {
            return write(store, script_id, doomed, swept).await;
        }
    }
    // Nothing to delete: noted now and then, so that the next look need not begin at the beginning.
    let before = load(store, script_id).await?;
    if before.at != swept.at {
        return write(store, script_id, None, swept)
            .await
            .map(|_| Retained::default());
    }
    Ok(Retained::default())
}

async fn load(store: &Inner, script_id: i64) -> Result<Swept, StoreError> {
    let row = sqlx::query("SELECT runs_swept, failed_swept, swept_at FROM retention WHERE script_id = ?")
        .bind(script_id)
        .fetch_optional(&store.lookups)
        .await?;
    match row {
        None => Ok(Swept::default()),
        Some(row) => Ok(Swept {
            succeeded: row.try_get(0)?,
            failed: row.try_get(1)?,
            at: row.try_get(2)?,
        }),
    }
}

/// Runs to delete: those that began in a stretch of time.
#[derive(Clone, Debug)]
struct Doomed {
    times: Range<i64>,
    /// Only those with this status; else all that have ended.
    status: Option<RunStatus>,
    /// Whether the budget allows no more.
    full: bool,
}

/// The oldest runs of a status that began in a range, as many as the budget allows.
async fn past(
    store: &Inner,
    script_id: i64,
    status: RunStatus,
    range: Range<i64>,
    budget: Budget,
) -> Result<Option<Doomed>, StoreError> {
    let times: Vec<i64> = sqlx::query_scalar(
        "SELECT executed_at FROM runs WHERE script_id = ? AND executed_at >= ? AND executed_at < ? \
         AND status = ? ORDER BY executed_at LIMIT ?",
    )
    .bind(script_id)
    .bind(range.start)
    .bind(range.end)
    .bind(status.code())
    .bind(super::rows(budget))
    .fetch_all(&store.readers)
    .await?;
    Ok(doomed(&times, Some(status), budget))
}

fn doomed(times: &[i64], status: Option<RunStatus>, budget: Budget) -> Option<Doomed> {
    let (first, last) = (times.first()?, times.last()?);
    Some(Doomed {
        times: *first..last.saturating_add(1),
        status,
        full: times.len() as u64 >= unsigned(super::rows(budget)),
    })
}

/// The oldest ended runs, as many as together have `excess` bytes and the budget allows.
async fn oldest(
    store: &Inner,
    script_id: i64,
    excess: u64,
    budget: Budget,
) -> Result<Option<Doomed>, StoreError> {
    let found: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT r.executed_at, \
            coalesce(length(p.input), 0) + coalesce(length(p.output), 0) + coalesce(length(p.error), 0) \
         FROM runs r LEFT JOIN run_payloads p ON p.number = r.payload WHERE r.script_id = ? AND r.status != ? \
         ORDER BY r.executed_at LIMIT ?",
    )
    .bind(script_id)
    .bind(RunStatus::InProgress.code())
    .bind(super::rows(budget))
    .fetch_all(&store.readers)
    .await?;
    let mut bytes = 0;
    let times: Vec<i64> = found
        .into_iter()
        .take_while(|(_, payload)| {
            let wanted = bytes < excess;
            bytes += RUN_BYTES + unsigned(*payload);
            wanted
        })
        .map(|(time, _)| time)
        .collect();
    Ok(doomed(&times, None, budget))
}

/// Deletes runs and notes how far that went.
async fn write(
    store: &Inner,
    script_id: i64,
    doomed: Option<Doomed>,
    swept: Swept,
) -> Result<Retained, StoreError> {
    store
        .writer
        .write(move |c| {
            Box::pin(async move {
                note(c, script_id, doomed.as_ref(), swept).await?;
                match doomed {
                    Some(doomed) => remove(c, script_id, &doomed).await,
                    None => Ok(Retained::default()),
                }
            })
        })
        .await
}

async fn note(
    connection: &mut SqliteConnection,
    script_id: i64,
    doomed: Option<&Doomed>,
    swept: Swept,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO retention (script_id, ended_before, runs_swept, failed_swept, swept_at) \
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (script_id) DO UPDATE SET \
         ended_before = coalesce(max(ended_before, ?2), ended_before, ?2), \
         runs_swept = ?3, failed_swept = ?4, swept_at = ?5",
    )
    .bind(script_id)
    .bind(doomed.map(|doomed| doomed.times.end.saturating_add(CLOCKS_MICROS)))
    .bind(swept.succeeded)
    .bind(swept.failed)
    .bind(swept.at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes runs with their payloads, and counts what went.
async fn remove(
    connection: &mut SqliteConnection,
    script_id: i64,
    doomed: &Doomed,
) -> Result<Retained, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM runs WHERE script_id = ");
    sql.push_bind(script_id)
        .push(" AND executed_at >= ")
        .push_bind(doomed.times.start)
        .push(" AND executed_at < ")
        .push_bind(doomed.times.end);
    match doomed.status {
        Some(status) => sql.push(" AND status = ").push_bind(status.code()),
        None => sql
            .push(" AND status != ")
            .push_bind(RunStatus::InProgress.code()),
    };
    sql.push(" RETURNING stream_id, payload");
    let removed: Vec<(i64, Option<i64>)> = sql.build_query_as().fetch_all(&mut *connection).await?;
    let payloads: Vec<i64> = removed.iter().filter_map(|(_, payload)| *payload).collect();
    let mut sizes = 0;
    for chunk in payloads.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM run_payloads WHERE number IN (");
        push_list(&mut sql, chunk.iter().copied());
        sql.push(
            " RETURNING coalesce(length(input), 0) + coalesce(length(output), 0) + coalesce(length(error), 0)",
        );
        let bytes: Vec<i64> = sql
            .build_query_scalar()
            .persistent(false)
            .fetch_all(&mut *connection)
            .await?;
        sizes += bytes.iter().sum::<i64>();
    }
    let mut gone = usage::Change {
        runs: BTreeMap::new(),
        payload_bytes: -sizes,
    };
    for (stream, _) in &removed {
        *gone.runs.entry(*stream).or_default() -= 1;
    }
    usage::add(connection, script_id, &gone).await?;
    let runs = removed.len() as u64;
    Ok(Retained {
        runs,
        bytes: runs * RUN_BYTES + unsigned(sizes),
        more: true,
        ..Retained::default()
    })
}
