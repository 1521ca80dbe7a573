//! Segments of log lines: storing them and reading lines out of them.

use std::borrow::Cow;

use bytes::Bytes;
use sqlx::PgConnection;

use crate::{segment::Segment, store::StoreError};

/// Stores new segments, each with the number of its script.
pub async fn insert(
    connection: &mut PgConnection,
    segments: &[(i64, Cow<'_, Segment>)],
) -> Result<(), StoreError> {
    for (script_id, segment) in segments {
        insert_one(connection, *script_id, 0, false, segment).await?;
    }
    Ok(())
}

/// Stores a segment; a `full` one is never merged again.
pub async fn insert_one(
    connection: &mut PgConnection,
    script_id: i64,
    tier: i64,
    full: bool,
    segment: &Segment,
) -> Result<(), StoreError> {
    let info = &segment.info;
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query(
        "WITH new AS (INSERT INTO log_segments \
            (script_id, min_time, max_time, lines, levels, text_bytes, tier, sealed, runs, body) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING segment_id) \
         INSERT INTO log_segment_grams (segment_id, grams) \
         SELECT segment_id, $11::bytea FROM new WHERE length($11::bytea) > 0",
    )
    .bind(script_id)
    .bind(info.min_time)
    .bind(info.max_time)
    .bind(number(info.lines))
    .bind(i16::from(info.levels.bits()))
    .bind(number(info.text_bytes))
    .bind(tier.max(info.tier()))
    .bind(full || info.is_full())
    .bind(info.runs.as_bytes())
    .bind(segment.body.as_ref())
    .bind(segment.grams.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// The body of a segment.
pub async fn body(connection: &mut PgConnection, segment_id: i64) -> Result<Option<Bytes>, StoreError> {
    let body = sqlx::query_scalar::<_, Vec<u8>>("SELECT body FROM log_segments WHERE segment_id = $1")
        .bind(segment_id)
        .fetch_optional(connection)
        .await?;
    Ok(body.map(Bytes::from))
}
