//! Adding to the rollups: one digest read, merged and written a group and transaction, however many runs it has.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::ROWS_PER_STATEMENT;
use crate::store::{
    StoreError,
    run_changes::{Ended, Rollups, Totals, merged_digest},
};

/// An empty digest in an upsert leaves the stored one as it is.
const KEEP_OR_REPLACE: &str =
    "digest = CASE WHEN length(excluded.digest) > 0 THEN excluded.digest ELSE digest END";

/// Adds to the rollups of a script.
pub async fn add(
    connection: &mut SqliteConnection,
    script_id: i64,
    mut sums: Rollups,
) -> Result<(), StoreError> {
    let days = sums.days();
    add_runs(connection, script_id, "run_rollups", sums.take_hours()).await?;
    add_runs(connection, script_id, "run_days", days).await?;
    add_lines(connection, script_id, sums.lines).await?;
    add_totals(connection, script_id, sums.totals).await
}

async fn add_runs(
    connection: &mut SqliteConnection,
    script_id: i64,
    table: &'static str,
    sums: BTreeMap<(i64, i64, String), Ended>,
) -> Result<(), StoreError> {
    let mut sums: Vec<_> = sums.into_iter().collect();
    for chunk in sums.chunks_mut(ROWS_PER_STATEMENT) {
        let mut stored: BTreeMap<(i64, i64, String), Vec<u8>> = BTreeMap::new();
        let mut sql = QueryBuilder::<Sqlite>::new("SELECT r.hour, r.version, r.function, r.digest FROM (");
        sql.push_values(chunk.iter(), |mut row, ((hour, version, function), _)| {
            row.push_bind(*hour)
                .push_bind(*version)
                .push_bind(function.as_str());
        });
        sql.push(") AS v CROSS JOIN ").push(table);
        sql.push(
            " r ON r.hour = v.column1 AND r.version = v.column2 AND r.function = v.column3 AND r.script_id = ",
        )
        .push_bind(script_id);
        for row in sql.build().persistent(false).fetch_all(&mut *connection).await? {
            stored.insert(
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?),
                row.try_get(3)?,
            );
        }
        let mut digests = Vec::with_capacity(chunk.len());
        for (key, ended) in chunk.iter_mut() {
            digests.push(merged_digest(stored.get(key), ended)?);
        }
        let mut sql = QueryBuilder::<Sqlite>::new("INSERT INTO ");
        sql.push(table)
            .push(" (script_id, hour, version, function, succeeded, failed, digest) ");
        sql.push_values(
            chunk.iter().zip(&digests),
            |mut row, (((hour, version, function), ended), digest)| {
                row.push_bind(script_id)
                    .push_bind(*hour)
                    .push_bind(*version)
                    .push_bind(function.as_str())
                    .push_bind(ended.succeeded)
                    .push_bind(ended.failed)
                    .push_bind(digest.as_slice());
            },
        );
        sql.push(
            " ON CONFLICT (script_id, hour, version, function) DO UPDATE SET \
             succeeded = succeeded + excluded.succeeded, failed = failed + excluded.failed, ",
        )
        .push(KEEP_OR_REPLACE);
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn add_lines(
    connection: &mut SqliteConnection,
    script_id: i64,
    sums: BTreeMap<(i64, i64, u8), i64>,
) -> Result<(), StoreError> {
    let sums: Vec<_> = sums.into_iter().collect();
    for chunk in sums.chunks(ROWS_PER_STATEMENT) {
        let mut sql =
            QueryBuilder::<Sqlite>::new("INSERT INTO log_rollups (script_id, hour, version, level, lines) ");
        sql.push_values(chunk, |mut row, ((hour, version, level), lines)| {
            row.push_bind(script_id)
                .push_bind(*hour)
                .push_bind(*version)
                .push_bind(*level)
                .push_bind(*lines);
        });
        sql.push(
            " ON CONFLICT (script_id, hour, version, level) DO UPDATE SET lines = lines + excluded.lines",
        );
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn add_totals(
    connection: &mut SqliteConnection,
    script_id: i64,
    sums: BTreeMap<i64, Totals>,
) -> Result<(), StoreError> {
    // A handful of versions at most, so row by row.
    for (version, mut totals) in sums {
        let stored = sqlx::query_scalar::<_, Vec<u8>>(
            "SELECT digest FROM version_totals WHERE script_id = ? AND version = ?",
        )
        .bind(script_id)
        .bind(version)
        .fetch_optional(&mut *connection)
        .await?;
        let digest = merged_digest(stored.as_ref(), &mut totals.ended)?;
        let sql = "INSERT INTO version_totals (script_id, version, succeeded, failed, lines, last_run_at, digest) \
             VALUES (?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (script_id, version) DO UPDATE SET \
             succeeded = succeeded + excluded.succeeded, failed = failed + excluded.failed, \
             lines = lines + excluded.lines, \
             last_run_at = coalesce(max(last_run_at, excluded.last_run_at), last_run_at, excluded.last_run_at), \
             digest = CASE WHEN length(excluded.digest) > 0 THEN excluded.digest ELSE digest END";
        sqlx::query(sql)
            .bind(script_id)
            .bind(version)
            .bind(totals.ended.succeeded)
            .bind(totals.ended.failed)
            .bind(totals.lines)
            .bind(totals.last_run_at)
            .bind(digest)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
