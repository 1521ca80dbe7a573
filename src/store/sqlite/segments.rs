//! Segments of log lines: storing them and reading lines out of them.

use bytes::Bytes;
use sqlx::SqliteConnection;

use crate::{segment::Segment, store::StoreError};

/// Stores a segment; a `full` one, or one large enough, is never merged again.
pub async fn insert(
    connection: &mut SqliteConnection,
    script_id: i64,
    tier: i64,
    full: bool,
    segment: &Segment,
) -> Result<(), StoreError> {
    let info = &segment.info;
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let sealed = full || info.is_full();
    let tier = tier.max(info.tier());
    let segment_id: i64 = sqlx::query_scalar(
        "INSERT INTO log_segments \
         (script_id, min_time, max_time, lines, levels, text_bytes, tier, sealed, runs, body) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING segment_id",
    )
    .bind(script_id)
    .bind(info.min_time)
    .bind(info.max_time)
    .bind(number(info.lines))
    .bind(info.levels.bits())
    .bind(number(info.text_bytes))
    .bind(tier)
    .bind(sealed)
    .bind(info.runs.as_bytes())
    .bind(segment.body.as_ref())
    .fetch_one(&mut *connection)
    .await?;
    if info.is_worth_grams() {
        sqlx::query("INSERT INTO log_segments_to_index (segment_id) VALUES (?)")
            .bind(segment_id)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Stores which texts a segment may have, unless it has gone meanwhile.
pub async fn index(
    connection: &mut SqliteConnection,
    segment_id: i64,
    grams: &[u8],
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM log_segments_to_index WHERE segment_id = ?")
        .bind(segment_id)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO log_segment_grams (segment_id, grams) SELECT segment_id, ? FROM log_segments WHERE segment_id = ?",
    )
    .bind(grams)
    .bind(segment_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// The body of a segment.
pub async fn body(connection: &mut SqliteConnection, segment_id: i64) -> Result<Option<Bytes>, StoreError> {
    let body = sqlx::query_scalar::<_, Vec<u8>>("SELECT body FROM log_segments WHERE segment_id = ?")
        .bind(segment_id)
        .fetch_optional(connection)
        .await?;
    Ok(body.map(Bytes::from))
}
