//! Merging small segments into larger ones, tier by tier: each line is written again once a tier, and a reader has few
//! segments to open.

use std::sync::Weak;

use bytes::Bytes;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool};
use tokio::{sync::watch, task};

use super::{Inner, push_list, segments};
use crate::{
    segment::{self, FAN_IN, Segment},
    store::StoreError,
};

/// Merges whenever something was stored, until the store is gone.
pub async fn run(store: Weak<Inner>, mut stored: watch::Receiver<u64>) {
    while stored.changed().await.is_ok() {
        loop {
            let Some(store) = store.upgrade() else {
                return;
            };
            match merge_once(&store).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if store.readers.is_closed() => return,
                Err(error) => {
                    // Nothing is lost by it; the next commit brings the next attempt.
                    tracing::warn!(%error, "Log segments could not be merged.");
                    break;
                }
            }
        }
    }
}

/// Merges one full tier of one script; says whether there was one.
pub async fn merge_once(store: &Inner) -> Result<bool, StoreError> {
    let full = sqlx::query(
        "SELECT script_id, tier FROM log_segments WHERE sealed = 0 \
         GROUP BY script_id, tier HAVING count(*) >= ? LIMIT 1",
    )
    .bind(i64::from(FAN_IN))
    .fetch_optional(&store.readers)
    .await?;
    let Some(full) = full else {
        return Ok(false);
    };
    let (script_id, tier): (i64, i64) = (full.try_get("script_id")?, full.try_get("tier")?);
    let choice = choose(&store.readers, script_id, tier).await?;
    let Choice { ids, bodies, full } = choice;
    let merged = task::spawn_blocking(move || segment::merge(&bodies))
        .await
        .map_err(|_| StoreError::Corrupt("segments can not be merged".to_owned()))??;
    let Some(merged) = merged else {
        return Ok(false);
    };
    store
        .writer
        .write(move |connection| {
            Box::pin(async move { replace(connection, script_id, tier, full, &ids, &merged).await })
        })
        .await?;
    Ok(true)
}

/// Segments to merge.
struct Choice {
    ids: Vec<i64>,
    bodies: Vec<Bytes>,
    /// Whether no further one would fit.
    full: bool,
}

/// The oldest segments of a tier, as many as fit into one.
async fn choose(readers: &SqlitePool, script_id: i64, tier: i64) -> Result<Choice, StoreError> {
    let mut snapshot = readers.begin().await?;
    let rows = sqlx::query(
        "SELECT segment_id, lines, text_bytes FROM log_segments \
         WHERE script_id = ? AND tier = ? AND sealed = 0 ORDER BY segment_id LIMIT ?",
    )
    .bind(script_id)
    .bind(tier)
    .bind(i64::from(FAN_IN))
    .fetch_all(&mut *snapshot)
    .await?;
    let mut choice = Choice {
        ids: Vec::new(),
        bodies: Vec::new(),
        full: false,
    };
    let sizes = rows
        .iter()
        .map(|row| Ok((row.try_get("lines")?, row.try_get("text_bytes")?)))
        .collect::<Result<Vec<_>, StoreError>>()?;
    let (count, full) = segment::fitting(&sizes);
    choice.full = full;
    for row in &rows[..count] {
        let id: i64 = row.try_get("segment_id")?;
        if let Some(body) = segments::body(&mut snapshot, id).await? {
            choice.ids.push(id);
            choice.bodies.push(body);
        }
    }
    snapshot.rollback().await?;
    Ok(choice)
}

/// Puts the merged segment in the place of its parts, unless one of them has gone meanwhile.
async fn replace(
    connection: &mut SqliteConnection,
    script_id: i64,
    tier: i64,
    full: bool,
    ids: &[i64],
    merged: &Segment,
) -> Result<(), StoreError> {
    let list = |start: &str| {
        let mut sql = QueryBuilder::<Sqlite>::new(start);
        push_list(&mut sql, ids.iter().copied());
        sql
    };
    let there: i64 = list("SELECT count(*) FROM log_segments WHERE segment_id IN (")
        .build_query_scalar()
        .fetch_one(&mut *connection)
        .await?;
    if usize::try_from(there).ok() != Some(ids.len()) {
        return Ok(());
    }
    list("DELETE FROM log_segments WHERE segment_id IN (")
        .build()
        .execute(&mut *connection)
        .await?;
    segments::insert(connection, script_id, tier + 1, full, merged).await
}
