//! Segments of log lines: storing them and reading lines out of them.

use std::ops::Range;

use bytes::Bytes;
use sqlx::{Row, SqliteConnection, SqlitePool};
use tokio::task;

use crate::{
    model::LogLine,
    segment::{self, Segment},
    store::{LogCursor, LogQuery, Page, StoreError, rows::segment_info, search::Search},
};

/// Segments whose particulars are read at once.
const PARTICULARS: i64 = 256;

/// Stores a segment; a `full` one is never merged again.
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
    sqlx::query(
        "INSERT INTO log_segments \
         (script_id, min_time, max_time, lines, levels, text_bytes, tier, sealed, runs, body) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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

/// See [`crate::store::Store::logs`].
///
/// Segments overlap in time, so they are read in the order of their newest lines until the page is full and no segment
/// that is left has a line as new as the oldest on the page.
pub async fn page(
    readers: &SqlitePool,
    script_id: i64,
    query: &LogQuery,
) -> Result<Page<LogLine, LogCursor>, StoreError> {
    let mut search = Search::new(query)?;
    if search.is_empty() {
        return Ok(Page {
            rows: Vec::new(),
            next: None,
        });
    }
    // One snapshot: merging moves lines from segment to segment meanwhile.
    let mut snapshot = readers.begin().await?;
    let mut after = (i64::MAX, i64::MAX);
    'search: loop {
        let rows = sqlx::query(
            "SELECT segment_id, min_time, max_time, lines, levels, text_bytes, runs FROM log_segments \
             WHERE script_id = ? AND (max_time, segment_id) < (?, ?) AND max_time >= ? AND min_time < ? \
                AND levels & ? != 0 \
             ORDER BY max_time DESC, segment_id DESC LIMIT ?",
        )
        .bind(script_id)
        .bind(after.0)
        .bind(after.1)
        .bind(search.range.start)
        .bind(search.range.end)
        .bind(search.filter.levels().bits())
        .bind(PARTICULARS)
        .fetch_all(&mut *snapshot)
        .await?;
        for row in &rows {
            let segment_id: i64 = row.try_get("segment_id")?;
            let info = segment_info(row)?;
            after = (info.max_time, segment_id);
            if search.is_done(info.max_time) {
                break 'search;
            }
            if !search.filter.may_match(&info) {
                continue;
            }
            let body = body(&mut snapshot, segment_id)
                .await?
                .ok_or_else(|| StoreError::Corrupt(format!("segment {segment_id} has no body")))?;
            search = task::spawn_blocking(move || search.read(&body).map(|()| search))
                .await
                .map_err(|_| StoreError::Corrupt(format!("segment {segment_id} can not be read")))??;
        }
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) < PARTICULARS {
            break;
        }
    }
    snapshot.rollback().await?;
    Ok(search.page())
}

/// Lines in a range: whole segments by their count, those across an end by their lines.
pub async fn count(
    connection: &mut SqliteConnection,
    script_id: i64,
    range: Range<i64>,
) -> Result<i64, StoreError> {
    let mut total: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(lines), 0) FROM log_segments WHERE script_id = ? AND min_time >= ? AND max_time < ?",
    )
    .bind(script_id)
    .bind(range.start)
    .bind(range.end)
    .fetch_one(&mut *connection)
    .await?;
    let across: Vec<i64> = sqlx::query_scalar(
        "SELECT segment_id FROM log_segments WHERE script_id = ?1 AND max_time >= ?2 AND min_time < ?3 \
         AND (min_time < ?2 OR max_time >= ?3)",
    )
    .bind(script_id)
    .bind(range.start)
    .bind(range.end)
    .fetch_all(&mut *connection)
    .await?;
    for segment_id in across {
        let Some(body) = body(connection, segment_id).await? else {
            continue;
        };
        let range = range.clone();
        total += task::spawn_blocking(move || segment::count(&body, &range))
            .await
            .map_err(|_| StoreError::Corrupt(format!("segment {segment_id} can not be read")))??;
    }
    Ok(total)
}
