//! Segments of log lines: storing them and reading lines out of them.

use std::{
    cmp::Reverse,
    ops::{ControlFlow, Range},
};

use bytes::Bytes;
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use tokio::task;

use super::{retention, time};
use crate::{
    model::LogLine,
    query::{LineFilter, micros_range},
    segment::{self, LevelSet, LineKey, LineRef, RunSet, Segment, SegmentError, SegmentInfo},
    store::{LogCursor, LogQuery, Page, StoreError},
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
    let sealed = full || info.lines >= segment::MAX_LINES || info.text_bytes >= segment::MAX_TEXT_BYTES;
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
    if search.wanted == 1 || search.range.is_empty() {
        return Ok(Page {
            rows: Vec::new(),
            next: None,
        });
    }
    // One snapshot: merging moves lines from segment to segment meanwhile.
    let mut snapshot = readers.begin().await?;
    let shown_from = retention::shown_from(&mut snapshot, script_id).await?;
    search.range.start = search.range.start.max(shown_from);
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
            let info = info(row)?;
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

/// Particulars from the columns of the same names; the number of lines is not needed by readers.
fn info(row: &SqliteRow) -> Result<SegmentInfo, StoreError> {
    let runs: &[u8] = row.try_get("runs")?;
    let count = |name: &str| -> Result<usize, StoreError> {
        Ok(usize::try_from(row.try_get::<i64, _>(name)?).unwrap_or_default())
    };
    Ok(SegmentInfo {
        min_time: row.try_get("min_time")?,
        max_time: row.try_get("max_time")?,
        lines: count("lines")?,
        levels: LevelSet::from_bits(row.try_get("levels")?),
        text_bytes: count("text_bytes")?,
        runs: RunSet::from_bytes(runs)
            .ok_or_else(|| StoreError::Corrupt("the runs of a segment".to_owned()))?,
    })
}

/// The newest lines found so far.
struct Search {
    filter: LineFilter,
    range: Range<i64>,
    before: Option<LineKey>,
    /// One more than the page, to know whether there is a next.
    wanted: usize,
    found: Vec<(LineKey, LogLine)>,
}

impl Search {
    fn new(query: &LogQuery) -> Result<Self, StoreError> {
        let before = query.after.map(|cursor| LineKey {
            micros: cursor.timestamp.as_microsecond(),
            id: cursor.log_id,
        });
        let mut range = micros_range(&query.range);
        if let Some(before) = before {
            range.end = range.end.min(before.micros.saturating_add(1));
        }
        Ok(Self {
            filter: LineFilter::new(&query.filter)?,
            range,
            before,
            wanted: query.limit.saturating_add(1),
            found: Vec::new(),
        })
    }

    /// The key of the oldest line that is needed so far, if the page is full. Valid after [`Self::trim`].
    fn oldest(&self) -> Option<LineKey> {
        self.found.get(self.wanted - 1).map(|(key, _)| *key)
    }

    /// Whether a segment that ends at `max_time`, and all after it, have nothing to add.
    fn is_done(&self, max_time: i64) -> bool {
        self.oldest().is_some_and(|oldest| max_time < oldest.micros)
    }

    /// Keeps the newest lines only, in order.
    fn trim(&mut self) {
        self.found.sort_unstable_by_key(|(key, _)| Reverse(*key));
        self.found.truncate(self.wanted);
    }

    /// Adds what a segment has.
    fn read(&mut self, body: &Bytes) -> Result<(), StoreError> {
        let mut failure = None;
        let oldest = self.oldest();
        let mut added = 0;
        let range = self.range.clone();
        let scanned: Result<(), SegmentError> = segment::scan(body, &range, |line| {
            // Newest first: what comes after is older still, or there is enough from this segment alone.
            if oldest.is_some_and(|oldest| line.key < oldest) || added == self.wanted {
                return ControlFlow::Break(());
            }
            if self.before.is_some_and(|before| line.key >= before) || !self.filter.matches(&line) {
                return ControlFlow::Continue(());
            }
            match log_line(&line) {
                Ok(found) => self.found.push((line.key, found)),
                Err(error) => failure = Some(error),
            }
            added += 1;
            if failure.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        scanned?;
        self.trim();
        failure.map_or(Ok(()), Err)
    }

    fn page(mut self) -> Page<LogLine, LogCursor> {
        let more = self.found.len() == self.wanted;
        self.found.truncate(self.wanted - 1);
        let rows: Vec<LogLine> = self.found.into_iter().map(|(_, line)| line).collect();
        let next = rows.last().filter(|_| more).map(|line| LogCursor {
            timestamp: line.timestamp,
            log_id: line.log_id,
        });
        Page { rows, next }
    }
}

fn log_line(line: &LineRef<'_>) -> Result<LogLine, StoreError> {
    Ok(LogLine {
        log_id: line.key.id,
        level: line.level,
        message: line.message.to_owned(),
        timestamp: time(line.key.micros)?,
        run_id: line.run_id.map(str::to_owned),
    })
}

/// Lines in a range: whole segments by their count, those across an end by their lines.
pub async fn count(
    connection: &mut SqliteConnection,
    script_id: i64,
    mut range: Range<i64>,
) -> Result<i64, StoreError> {
    range.start = range
        .start
        .max(retention::shown_from(connection, script_id).await?);
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
