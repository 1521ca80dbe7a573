//! Merging small segments into larger ones, tier by tier, by one replica a script at a time.

use std::{borrow::Cow, sync::Weak, time::Duration};

use bytes::Bytes;
use sqlx::{PgConnection, Row};
use tokio::{sync::watch, task, time::sleep};

use super::{Inner, locks, segments};
use crate::{
    segment::{self, FAN_IN},
    store::StoreError,
};

/// Between two looks for segments to merge, however many commits there are.
const PAUSE: Duration = Duration::from_millis(100);

/// Merges whenever something was stored, until the store is gone.
pub async fn run(store: Weak<Inner>, mut stored: watch::Receiver<u64>) {
    while stored.changed().await.is_ok() {
        sleep(PAUSE).await;
        loop {
            let Some(store) = store.upgrade() else {
                return;
            };
            match merge_all_once(&store).await {
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

/// Merges each full tier of each script once; says whether there was one that no other replica is busy with.
async fn merge_all_once(store: &Inner) -> Result<bool, StoreError> {
    let full: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT script_id, tier FROM log_segments WHERE NOT sealed \
         GROUP BY script_id, tier HAVING count(*) >= $1",
    )
    .bind(i64::from(FAN_IN))
    .fetch_all(&store.readers)
    .await?;
    let mut any = false;
    for (script_id, tier) in full {
        any |= merge_once(store, script_id, tier).await?;
    }
    Ok(any)
}

async fn merge_once(store: &Inner, script_id: i64, tier: i64) -> Result<bool, StoreError> {
    let mut transaction = store.readers.begin().await?;
    if !locks::try_merging(&mut transaction, script_id).await? {
        return Ok(false);
    }
    let Choice { ids, bodies, full } = choose(&mut transaction, script_id, tier).await?;
    let merged = task::spawn_blocking(move || segment::merge(&bodies))
        .await
        .map_err(|_| StoreError::Corrupt("segments can not be merged".to_owned()))??;
    let Some(merged) = merged else {
        return Ok(false);
    };
    // A part may have gone meanwhile, by its age: its lines must not come back with the others'.
    let deleted = sqlx::query("DELETE FROM log_segments WHERE segment_id = ANY($1)")
        .bind(&ids)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    if usize::try_from(deleted).ok() != Some(ids.len()) {
        transaction.rollback().await?;
        return Ok(false);
    }
    segments::insert(
        &mut transaction,
        tier + 1,
        full,
        &[(script_id, Cow::Owned(merged))],
    )
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Segments to merge.
struct Choice {
    ids: Vec<i64>,
    bodies: Vec<Bytes>,
    /// Whether no further one would fit.
    full: bool,
}

/// The oldest segments of a tier, as many as fit into one; none if another replica merged them meanwhile.
async fn choose(connection: &mut PgConnection, script_id: i64, tier: i64) -> Result<Choice, StoreError> {
    let rows = sqlx::query(
        "SELECT segment_id, lines, text_bytes FROM log_segments \
         WHERE script_id = $1 AND tier = $2 AND NOT sealed ORDER BY segment_id LIMIT $3",
    )
    .bind(script_id)
    .bind(tier)
    .bind(i64::from(FAN_IN))
    .fetch_all(&mut *connection)
    .await?;
    let mut choice = Choice {
        ids: Vec::new(),
        bodies: Vec::new(),
        full: false,
    };
    if i64::try_from(rows.len()).unwrap_or(i64::MAX) < i64::from(FAN_IN) {
        return Ok(choice);
    }
    let sizes = rows
        .iter()
        .map(|row| Ok((row.try_get("lines")?, row.try_get("text_bytes")?)))
        .collect::<Result<Vec<_>, StoreError>>()?;
    let (count, full) = segment::fitting(&sizes);
    choice.full = full;
    for row in &rows[..count] {
        let id: i64 = row.try_get("segment_id")?;
        if let Some(body) = segments::body(&mut *connection, id).await? {
            choice.ids.push(id);
            choice.bodies.push(body);
        }
    }
    Ok(choice)
}
