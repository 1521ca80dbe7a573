//! Log segments: whole ones go; of those with lines on both sides of the limit, the old lines are hidden at once and
//! written away once a day.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool};
use tokio::task;

use super::{
    super::{Inner, push_list, segments},
    unsigned,
};
use crate::{
    segment::{self, LineRef, Segment, SegmentLine},
    store::{
        StoreError,
        retention::{Budget, Cutoffs, REWRITE_AFTER, Retained},
    },
};

/// What a segment takes besides its body and its set of runs, about.
const SEGMENT_BYTES: i64 = 200;

/// Bytes of a script's segments.
pub async fn bytes(readers: &SqlitePool, script_id: i64) -> Result<i64, StoreError> {
    let sql =
        "SELECT coalesce(sum(length(body) + length(runs) + ?), 0) FROM log_segments WHERE script_id = ?";
    Ok(sqlx::query_scalar(sql)
        .bind(SEGMENT_BYTES)
        .bind(script_id)
        .fetch_one(readers)
        .await?)
}

/// From which moment on lines of a script are shown, microseconds.
pub async fn shown_from(connection: &mut SqliteConnection, script_id: i64) -> Result<i64, StoreError> {
    let floor: Option<Option<i64>> =
        sqlx::query_scalar("SELECT logs_before FROM retention WHERE script_id = ?")
            .bind(script_id)
            .fetch_optional(connection)
            .await?;
    Ok(floor.flatten().unwrap_or(i64::MIN))
}

/// Deletes or rewrites some segments; `more` where it did.
pub async fn delete(
    store: &Inner,
    script_id: i64,
    cutoffs: &Cutoffs,
    excess: u64,
    budget: Budget,
) -> Result<Retained, StoreError> {
    let limit = cutoffs.logs.map(|time| time.as_microsecond());
    let doomed = choose(
        &store.readers,
        script_id,
        limit.unwrap_or(i64::MIN),
        excess,
        budget,
    )
    .await?;
    if !doomed.is_empty() {
        return store
            .writer
            .write(move |c| {
                Box::pin(async move {
                    hide(c, script_id, limit).await?;
                    remove(c, &doomed).await
                })
            })
            .await;
    }
    let Some(limit) = limit else {
        return Ok(Retained::default());
    };
    let rewrite_below = cutoffs
        .logs
        .and_then(|time| time.checked_sub(REWRITE_AFTER).ok())
        .map_or(i64::MIN, |time| time.as_microsecond());
    // All that are left have lines younger than the limit.
    let across = sqlx::query(
        "SELECT segment_id, min_time FROM log_segments WHERE script_id = ?1 AND max_time >= ?2 AND min_time < ?2 \
         ORDER BY min_time LIMIT 1",
    )
    .bind(script_id)
    .bind(limit)
    .fetch_optional(&store.readers)
    .await?;
    let Some(across) = across else {
        return Ok(Retained::default());
    };
    if across.try_get::<i64, _>("min_time")? < rewrite_below {
        return rewrite(store, script_id, across.try_get("segment_id")?, limit).await;
    }
    let mut reader = store.lookups.acquire().await?;
    if shown_from(&mut reader, script_id).await? < limit {
        drop(reader);
        store
            .writer
            .write(move |c| Box::pin(async move { hide(c, script_id, Some(limit)).await }))
            .await?;
    }
    Ok(Retained::default())
}

/// The oldest segments that are to go whole, within the budget.
async fn choose(
    readers: &SqlitePool,
    script_id: i64,
    limit: i64,
    excess: u64,
    budget: Budget,
) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT segment_id, max_time, length(body) + length(runs) + ? AS bytes FROM log_segments \
         WHERE script_id = ? AND max_time < ? ORDER BY max_time, segment_id LIMIT ?";
    let found = sqlx::query(sql)
        .bind(SEGMENT_BYTES)
        .bind(script_id)
        .bind(if excess > 0 { i64::MAX } else { limit })
        .bind(super::rows(budget))
        .fetch_all(readers)
        .await?;
    let (mut doomed, mut bytes) = (Vec::new(), 0);
    for row in &found {
        let past = row.try_get::<i64, _>("max_time")? < limit;
        if (bytes >= budget.bytes && !doomed.is_empty()) || !(past || bytes < excess) {
            break;
        }
        bytes += unsigned(row.try_get("bytes")?);
        doomed.push(row.try_get("segment_id")?);
    }
    Ok(doomed)
}

/// From now on no line from before `limit` is shown.
async fn hide(
    connection: &mut SqliteConnection,
    script_id: i64,
    limit: Option<i64>,
) -> Result<(), StoreError> {
    if let Some(limit) = limit {
        sqlx::query(
            "INSERT INTO retention (script_id, logs_before) VALUES (?1, ?2) ON CONFLICT (script_id) \
             DO UPDATE SET logs_before = max(coalesce(logs_before, ?2), ?2)",
        )
        .bind(script_id)
        .bind(limit)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Removes segments; those that were merged meanwhile are found again, merged.
async fn remove(connection: &mut SqliteConnection, ids: &[i64]) -> Result<Retained, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "SELECT count(*), coalesce(sum(lines), 0), coalesce(sum(length(body) + length(runs)), 0) \
         FROM log_segments WHERE segment_id IN (",
    );
    push_list(&mut sql, ids.iter().copied());
    let row = sql.build().persistent(false).fetch_one(&mut *connection).await?;
    let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM log_segments WHERE segment_id IN (");
    push_list(&mut sql, ids.iter().copied());
    sql.build().persistent(false).execute(connection).await?;
    Ok(Retained {
        segments: unsigned(row.try_get(0)?),
        lines: unsigned(row.try_get(1)?),
        bytes: unsigned(row.try_get(2)?),
        more: true,
        ..Retained::default()
    })
}

/// Writes a segment again without the lines from before `limit`, unless it was merged meanwhile.
async fn rewrite(store: &Inner, script_id: i64, id: i64, limit: i64) -> Result<Retained, StoreError> {
    let mut reader = store.readers.acquire().await?;
    let Some(body) = segments::body(&mut reader, id).await? else {
        return Ok(Retained {
            more: true,
            ..Retained::default()
        });
    };
    drop(reader);
    let (removed, kept) = task::spawn_blocking(move || -> Result<(u64, Option<Segment>), StoreError> {
        let mut lines = segment::decode(&body)?;
        let before = lines.len();
        lines.retain(|line| line.key.micros >= limit);
        let removed = (before - lines.len()) as u64;
        let mut lines: Vec<LineRef<'_>> = lines.iter().map(SegmentLine::as_ref).collect();
        Ok((removed, segment::encode(&mut lines)?))
    })
    .await
    .map_err(|_| StoreError::Corrupt(format!("segment {id} can not be read")))??;
    store
        .writer
        .write(move |c| {
            Box::pin(async move {
                hide(c, script_id, Some(limit)).await?;
                let old = sqlx::query(
                    "DELETE FROM log_segments WHERE segment_id = ? RETURNING tier, sealed, length(body) AS bytes",
                )
                .bind(id)
                .fetch_optional(&mut *c)
                .await?;
                let Some(old) = old else {
                    return Ok(Retained { more: true, ..Retained::default() });
                };
                let mut bytes = unsigned(old.try_get("bytes")?);
                if let Some(kept) = kept {
                    bytes = bytes.saturating_sub(kept.body.len() as u64);
                    let (tier, sealed) = (old.try_get("tier")?, old.try_get("sealed")?);
                    segments::insert(c, script_id, tier, sealed, &kept).await?;
                }
                Ok(Retained { lines: removed, bytes, more: true, ..Retained::default() })
            })
        })
        .await
}
