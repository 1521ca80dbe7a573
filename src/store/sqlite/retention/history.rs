//! What describes data long gone: gaps, hourly rollups, ended deployments; and what a purge takes besides.

use jiff::Timestamp;
use sqlx::AssertSqlSafe;

use super::super::Inner;
use crate::store::{
    StoreError,
    batch::hour_of,
    retention::{Budget, Cutoffs, HISTORY, Retained},
};

/// Rows of a table that may go.
struct Rows {
    table: &'static str,
    key: &'static str,
    /// Which; `?1` is the script's number, `?2` the limit.
    condition: &'static str,
}

const fn rows(table: &'static str, key: &'static str, condition: &'static str) -> Rows {
    Rows {
        table,
        key,
        condition,
    }
}

const GAPS: Rows = rows("gaps", "id", "script_id = ?1 AND time < ?2");
const RUN_HOURS: Rows = rows("run_rollups", "rowid", "script_id = ?1 AND hour < ?2");
const LOG_HOURS: Rows = rows(
    "log_rollups",
    "script_id, hour, version, level",
    "script_id = ?1 AND hour < ?2",
);
/// The last ten stay, however old.
const DEPLOYMENTS: Rows = rows(
    "deployments",
    "script_id, version",
    "script_id = ?1 AND ended_at < ?2 \
     AND version <= (SELECT max(version) FROM deployments WHERE script_id = ?1) - 10",
);

const VERSIONS: [Rows; 4] = [
    rows("run_rollups", "rowid", "script_id = ?1 AND version < ?2"),
    rows(
        "log_rollups",
        "script_id, hour, version, level",
        "script_id = ?1 AND version < ?2",
    ),
    rows("version_totals", "rowid", "script_id = ?1 AND version < ?2"),
    // The highest number is what the next one goes on from.
    rows(
        "deployments",
        "script_id, version",
        "script_id = ?1 AND version < ?2 \
         AND version < (SELECT max(version) FROM deployments WHERE script_id = ?1)",
    ),
];

/// Deletes some rows past their time; `more` where it did.
pub async fn delete(
    store: &Inner,
    script_id: i64,
    cutoffs: &Cutoffs,
    budget: Budget,
) -> Result<Retained, StoreError> {
    let oldest = cutoffs
        .now
        .checked_sub(HISTORY)
        .map_or(i64::MIN, |time| time.as_microsecond());
    // A gap is shown among lines, so it goes with them.
    let gaps = cutoffs
        .logs
        .map_or(oldest, |time| time.as_microsecond().max(oldest));
    let hour = hour_of(oldest);
    for (rows, limit) in [
        (&GAPS, gaps),
        (&RUN_HOURS, hour),
        (&LOG_HOURS, hour),
        (&DEPLOYMENTS, oldest),
    ] {
        let step = some(store, rows, script_id, limit, budget).await?;
        if step.more {
            return Ok(step);
        }
    }
    Ok(Retained::default())
}

/// Deletes some of what belongs to versions begun before a moment, lifetime figures among it; notes when nothing of the
/// script is left.
pub async fn purge(
    store: &Inner,
    script_id: i64,
    before: Timestamp,
    budget: Budget,
) -> Result<Retained, StoreError> {
    let next: Option<i64> =
        sqlx::query_scalar("SELECT min(version) FROM deployments WHERE script_id = ? AND started_at >= ?")
            .bind(script_id)
            .bind(before.as_microsecond())
            .fetch_one(&store.lookups)
            .await?;
    for rows in &VERSIONS {
        let step = some(store, rows, script_id, next.unwrap_or(i64::MAX), budget).await?;
        if step.more {
            return Ok(step);
        }
    }
    if next.is_none() {
        note_purged(store, script_id, before).await?;
    }
    Ok(Retained::default())
}

async fn some(
    store: &Inner,
    rows: &Rows,
    script_id: i64,
    limit: i64,
    budget: Budget,
) -> Result<Retained, StoreError> {
    let Rows {
        table,
        key,
        condition,
    } = rows;
    // Found by a reader, so that the writer is left alone where there is nothing.
    let found: bool = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT EXISTS (SELECT 1 FROM {table} WHERE {condition})"
    )))
    .bind(script_id)
    .bind(limit)
    .fetch_one(&store.lookups)
    .await?;
    if !found {
        return Ok(Retained::default());
    }
    let sql = format!(
        "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT ?3)"
    );
    let most = super::rows(budget);
    let other = store
        .writer
        .write(move |c| {
            Box::pin(async move {
                let done = sqlx::query(AssertSqlSafe(sql))
                    .bind(script_id)
                    .bind(limit)
                    .bind(most)
                    .execute(c)
                    .await?;
                Ok(done.rows_affected())
            })
        })
        .await?;
    Ok(Retained {
        other,
        more: other > 0,
        ..Retained::default()
    })
}

async fn note_purged(store: &Inner, script_id: i64, now: Timestamp) -> Result<(), StoreError> {
    let left: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM runs WHERE script_id = ?1) \
         OR EXISTS (SELECT 1 FROM log_segments WHERE script_id = ?1) \
         OR EXISTS (SELECT 1 FROM retention WHERE script_id = ?1 AND purged_at IS NOT NULL)",
    )
    .bind(script_id)
    .fetch_one(&store.lookups)
    .await?;
    if left {
        return Ok(());
    }
    store
        .writer
        .write(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO retention (script_id, purged_at) VALUES (?1, ?2) \
                     ON CONFLICT (script_id) DO UPDATE SET purged_at = ?2",
                )
                .bind(script_id)
                .bind(now.as_microsecond())
                .execute(c)
                .await?;
                Ok(())
            })
        })
        .await
}
