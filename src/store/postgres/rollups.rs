//! Adding to the rollups: one digest read, merged and written a group and transaction, however many runs it has.
//! Callers who add runs hold the script's lock, so that no other replica adds to a digest in between; counts of lines
//! are added by the database itself.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::store::{
    StoreError,
    run_changes::{Ended, Rollups, Totals, merged_digest},
};

/// Adds to the rollups of a script.
pub async fn add(connection: &mut PgConnection, script_id: i64, mut sums: Rollups) -> Result<(), StoreError> {
    let days = sums.days();
    add_runs(connection, script_id, "run_rollups", sums.take_hours()).await?;
    add_runs(connection, script_id, "run_days", days).await?;
    add_lines(connection, script_id, &sums.lines).await?;
    add_totals(connection, script_id, sums.totals).await
}

async fn add_runs(
    connection: &mut PgConnection,
    script_id: i64,
    table: &'static str,
    sums: BTreeMap<(i64, i64, String), Ended>,
) -> Result<(), StoreError> {
    if sums.is_empty() {
        return Ok(());
    }
    let (keys, mut ended): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
    let hours: Vec<i64> = keys.iter().map(|key| key.0).collect();
    let versions: Vec<i64> = keys.iter().map(|key| key.1).collect();
    let functions: Vec<&str> = keys.iter().map(|key| key.2.as_str()).collect();
    let mut stored: BTreeMap<(i64, i64, String), Vec<u8>> = BTreeMap::new();
    let rows = sqlx::query(AssertSqlSafe(format!(
        "SELECT r.hour, r.version, r.function, r.digest \
         FROM unnest($2::bigint[], $3::bigint[], $4::text[]) AS v (hour, version, function) \
         JOIN {table} r ON r.script_id = $1 AND r.hour = v.hour AND r.version = v.version \
            AND r.function = v.function",
    )))
    .bind(script_id)
    .bind(&hours)
    .bind(&versions)
    .bind(&functions)
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        stored.insert(
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?),
            row.try_get(3)?,
        );
    }
    let digests = keys
        .iter()
        .zip(&mut ended)
        .map(|(key, ended)| merged_digest(stored.get(key), ended))
        .collect::<Result<Vec<_>, _>>()?;
    sqlx::query(AssertSqlSafe(format!(
        "INSERT INTO {table} AS r (script_id, hour, version, function, succeeded, failed, digest) \
         SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bytea[]) \
         ON CONFLICT (script_id, hour, version, function) DO UPDATE SET \
            succeeded = r.succeeded + excluded.succeeded, failed = r.failed + excluded.failed, \
            digest = CASE WHEN length(excluded.digest) > 0 THEN excluded.digest ELSE r.digest END",
    )))
    .bind(script_id)
    .bind(&hours)
    .bind(&versions)
    .bind(&functions)
    .bind(ended.iter().map(|ended| ended.succeeded).collect::<Vec<_>>())
    .bind(ended.iter().map(|ended| ended.failed).collect::<Vec<_>>())
    .bind(digests)
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_lines(
    connection: &mut PgConnection,
    script_id: i64,
    sums: &BTreeMap<(i64, i64, u8), i64>,
) -> Result<(), StoreError> {
    if sums.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO log_rollups AS r (script_id, hour, version, level, lines) \
         SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::smallint[], $5::bigint[]) \
         ON CONFLICT (script_id, hour, version, level) DO UPDATE SET lines = r.lines + excluded.lines",
    )
    .bind(script_id)
    .bind(sums.keys().map(|key| key.0).collect::<Vec<_>>())
    .bind(sums.keys().map(|key| key.1).collect::<Vec<_>>())
    .bind(sums.keys().map(|key| i16::from(key.2)).collect::<Vec<_>>())
    .bind(sums.values().copied().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_totals(
    connection: &mut PgConnection,
    script_id: i64,
    sums: BTreeMap<i64, Totals>,
) -> Result<(), StoreError> {
    // A handful of versions at most, so row by row.
    for (version, mut totals) in sums {
        let mut stored = None;
        if totals.ended.succeeded > 0 {
            stored = sqlx::query_scalar::<_, Vec<u8>>(
                "SELECT digest FROM version_totals WHERE script_id = $1 AND version = $2",
            )
            .bind(script_id)
            .bind(version)
            .fetch_optional(&mut *connection)
            .await?;
        }
        let digest = merged_digest(stored.as_ref(), &mut totals.ended)?;
        sqlx::query(
            "INSERT INTO version_totals AS t (script_id, version, succeeded, failed, lines, last_run_at, digest) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (script_id, version) DO UPDATE SET \
                succeeded = t.succeeded + excluded.succeeded, failed = t.failed + excluded.failed, \
                lines = t.lines + excluded.lines, \
                last_run_at = greatest(t.last_run_at, excluded.last_run_at), \
                digest = CASE WHEN length(excluded.digest) > 0 THEN excluded.digest ELSE t.digest END",
        )
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
