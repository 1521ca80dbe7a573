//! Segments of log lines: storing them and reading lines out of them.

use std::borrow::Cow;

use bytes::Bytes;
use sqlx::PgConnection;

use crate::{
    segment::{Segment, SegmentInfo},
    store::StoreError,
};

/// Stores one segment.
pub async fn insert_one(
    connection: &mut PgConnection,
    script_id: i64,
    tier: i64,
    full: bool,
    segment: &Segment,
) -> Result<(), StoreError> {
    insert(connection, tier, full, &[(script_id, Cow::Borrowed(segment))]).await
}

/// Stores segments, each with the number of its script; `full` ones are never merged again, nor are large ones.
pub async fn insert(
    connection: &mut PgConnection,
    tier: i64,
    full: bool,
    segments: &[(i64, Cow<'_, Segment>)],
) -> Result<(), StoreError> {
    if segments.is_empty() {
        return Ok(());
    }
    let number = |value: fn(&SegmentInfo) -> usize| {
        let infos = segments.iter().map(|(_, segment)| value(&segment.info));
        infos
            .map(|n| i64::try_from(n).unwrap_or(i64::MAX))
            .collect::<Vec<_>>()
    };
    let infos = || segments.iter().map(|(_, segment)| &segment.info);
    // Not in FROM, where the arrays would be written to a temporary store first.
    let mut ids: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO log_segments \
            (script_id, min_time, max_time, lines, levels, text_bytes, tier, sealed, runs, body) \
         SELECT unnest($1::bigint[]), unnest($2::bigint[]), unnest($3::bigint[]), unnest($4::bigint[]), \
            unnest($5::smallint[]), unnest($6::bigint[]), unnest($7::bigint[]), unnest($8::boolean[]), \
            unnest($9::bytea[]), unnest($10::bytea[]) \
         RETURNING segment_id",
    )
    .bind(
        segments
            .iter()
            .map(|(script_id, _)| *script_id)
            .collect::<Vec<_>>(),
    )
    .bind(infos().map(|info| info.min_time).collect::<Vec<_>>())
    .bind(infos().map(|info| info.max_time).collect::<Vec<_>>())
    .bind(number(|info| info.lines))
    .bind(
        infos()
            .map(|info| i16::from(info.levels.bits()))
            .collect::<Vec<_>>(),
    )
    .bind(number(|info| info.text_bytes))
    .bind(infos().map(|info| tier.max(info.tier())).collect::<Vec<_>>())
    .bind(infos().map(|info| full || info.is_full()).collect::<Vec<_>>())
    .bind(infos().map(|info| info.runs.as_bytes()).collect::<Vec<_>>())
    .bind(
        segments
            .iter()
            .map(|(_, segment)| segment.body.as_ref())
            .collect::<Vec<_>>(),
    )
    .fetch_all(&mut *connection)
    .await?;
    // Numbers are given in the order of the segments.
    ids.sort_unstable();
    let to_index = ids.iter().zip(infos()).filter(|(_, info)| info.is_worth_grams());
    let to_index: Vec<i64> = to_index.map(|(id, _)| *id).collect();
    if !to_index.is_empty() {
        sqlx::query("INSERT INTO log_segments_to_index (segment_id) SELECT unnest($1::bigint[])")
            .bind(to_index)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Stores which texts a segment may have, unless it has gone meanwhile.
pub async fn index(connection: &mut PgConnection, segment_id: i64, grams: &[u8]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO log_segment_grams (segment_id, grams) \
         SELECT segment_id, $2 FROM log_segments WHERE segment_id = $1 FOR KEY SHARE",
    )
    .bind(segment_id)
    .bind(grams)
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
