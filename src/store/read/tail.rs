//! Following a log, on every backend. See [`crate::store::LogPosition`].

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use tokio::task;

use super::{Snapshot, Values, lines, push, sql};
use crate::{
    ingest::parse::unfinished_from,
    model::LogLine,
    query::{LineFilter, micros_range},
    segment::{self, LineKey},
    store::{LogPosition, Mark, StoreError, Tail, TailQuery, retention::logs::shown_from, time},
};

/// Streams that have ended and are still named by a position.
const ENDED: i64 = 64;
/// Segments with numbers so little below a position's are read, too: with several replicas a lower number may be committed
/// after a higher one.
const LOOK_BACK: i64 = 64;
/// Text that is gathered before the newest lines are let go again, in bytes.
const MOST_BYTES: usize = 4 << 20;

/// See [`crate::store::Store::log_position`].
pub async fn position<S: Snapshot>(snapshot: &mut S, script_id: i64) -> Result<LogPosition, StoreError> {
    let mut position = LogPosition::default();
    let mut statement = sql::<S>(
        "SELECT s.id, s.committed_offset, s.carry, \
            CAST(CASE WHEN s.last_word IS NULL AND p.settled = 0 THEN 1 ELSE 0 END AS BIGINT) FROM streams s JOIN pods p ON p.uid = s.pod_uid",
    );
    push::<S>(&mut statement, " WHERE p.script_id = ", script_id);
    statement.push(
        " AND (s.last_word IS NULL AND p.settled = 0 OR s.id IN \
           (SELECT e.id FROM streams e JOIN pods o ON o.uid = e.pod_uid",
    );
    push::<S>(&mut statement, " WHERE o.script_id = ", script_id);
    push::<S>(&mut statement, " ORDER BY e.id DESC LIMIT ", ENDED);
    statement.push("))");
    snapshot
        .each(statement, |row| {
            let committed = row.number(1)?;
            let unfinished =
                unfinished_from(row.bytes(2)?).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let unfinished = unfinished.and_then(|offset| i64::try_from(offset).ok());
            let mark = Mark {
                offset: unfinished.map_or(committed, |offset| offset.min(committed)),
                open: row.number(3)? != 0,
            };
            position.streams.insert(row.number(0)?, mark);
            Ok(())
        })
        .await?;
    // Numbers go up for all scripts together, so that this one needs no look at the script's own.
    let statement = sql::<S>("SELECT max(segment_id) FROM log_segments");
    snapshot
        .each(statement, |row| {
            position.segment = row.optional_number(0)?.unwrap_or_default();
            Ok(())
        })
        .await?;
    Ok(position)
}

/// What is looked for.
struct Wanted {
    filter: LineFilter,
    range: std::ops::Range<i64>,
    streams: BTreeMap<i64, (i64, i64)>,
    upto: LogPosition,
    from: Option<LineKey>,
    limit: usize,
}

/// The oldest lines found so far.
#[derive(Default)]
struct Oldest {
    lines: Vec<(LineKey, LogLine)>,
    bytes: usize,
    /// Lines from here on were let go.
    end: Option<LineKey>,
}

impl Oldest {
    fn push(&mut self, key: LineKey, line: LogLine, limit: usize) {
        if self.end.is_some_and(|end| key >= end) {
            return;
        }
        self.bytes += line.message.len() + line.attributes.as_ref().map_or(0, String::len);
        self.lines.push((key, line));
        if self.bytes > 2 * MOST_BYTES || self.lines.len() > 2 * limit {
            self.trim(limit);
        }
    }

    /// Lets go of what does not fit, always all from some line on.
    fn trim(&mut self, limit: usize) {
        self.lines.sort_unstable_by_key(|(key, _)| *key);
        let mut kept = 0;
        let mut bytes = 0;
        for (_, line) in self.lines.iter().take(limit) {
            bytes += line.message.len() + line.attributes.as_ref().map_or(0, String::len);
            if kept > 0 && bytes > MOST_BYTES {
                break;
            }
            kept += 1;
        }
        if let Some((key, _)) = self.lines.get(kept) {
            self.end = Some(*key);
        }
        self.lines.truncate(kept);
        self.bytes = bytes;
    }
}

/// See [`crate::store::Store::logs_between`].
pub async fn between<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &TailQuery,
) -> Result<Tail, StoreError> {
    let mut range = micros_range(&query.range);
    range.start = range.start.max(shown_from(snapshot, script_id).await?);
    let wanted = Arc::new(Wanted {
        filter: LineFilter::new(&query.filter)?,
        range,
        streams: query.after.between(&query.upto),
        upto: query.upto.clone(),
        from: query.from.map(|cursor| LineKey {
            micros: cursor.timestamp.as_microsecond(),
            id: cursor.log_id,
        }),
        limit: query.limit.max(1),
    });
    let mut tail = Tail::default();
    let mut found = Oldest::default();
    for segment_id in segments(snapshot, script_id, query).await? {
        let body = lines::body(snapshot, segment_id).await?;
        let wanted = Arc::clone(&wanted);
        let read = task::spawn_blocking(move || {
            let whole = gather(&body, &wanted, &mut found)?;
            Ok::<_, StoreError>((whole, found))
        });
        let (whole, so_far) = read
            .await
            .map_err(|_| StoreError::Corrupt(format!("segment {segment_id} can not be read")))??;
        found = so_far;
        if whole {
            tail.complete.push(segment_id);
        } else {
            tail.incomplete.get_or_insert(segment_id);
        }
    }
    found.trim(wanted.limit);
    tail.more = found.end.is_some();
    tail.rows = found.lines.into_iter().map(|(_, line)| line).collect();
    Ok(tail)
}

/// The segments that may have lines after the position, in the order of their numbers.
async fn segments<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &TailQuery,
) -> Result<Vec<i64>, StoreError> {
    let mut statement = sql::<S>("SELECT segment_id FROM log_segments");
    push::<S>(&mut statement, " WHERE script_id = ", script_id);
    let begin = query.after.segment.saturating_sub(LOOK_BACK);
    push::<S>(&mut statement, " AND segment_id > ", begin);
    statement.push(" ORDER BY segment_id");
    let mut segments = Vec::new();
    snapshot
        .each(statement, |row| {
            let segment_id = row.number(0)?;
            if !query.skip.contains(&segment_id) {
                segments.push(segment_id);
            }
            Ok(())
        })
        .await?;
    Ok(segments)
}

/// Takes the lines of a segment that lie between the positions and pass; whether all of its lines lie before the later one.
fn gather(body: &Bytes, wanted: &Wanted, found: &mut Oldest) -> Result<bool, StoreError> {
    let mut whole = true;
    let mut failure = None;
    segment::scan(body, &(i64::MIN..i64::MAX), |line| {
        let id = line.key.id;
        whole &= wanted.upto.covers(id);
        let is_new = wanted
            .streams
            .get(&id.stream)
            .is_some_and(|(begin, end)| (*begin..*end).contains(&id.offset));
        let is_wanted = is_new
            && wanted.from.is_none_or(|from| line.key > from)
            && wanted.range.contains(&line.key.micros)
            && wanted.filter.matches(&line);
        if is_wanted {
            match time(line.key.micros) {
                Ok(timestamp) => {
                    let owned = LogLine {
                        log_id: id,
                        level: line.level,
                        message: line.message.to_owned(),
                        timestamp,
                        run_id: line.run_id.map(str::to_owned),
                        attributes: line.attributes.map(str::to_owned),
                    };
                    found.push(line.key, owned, wanted.limit);
                }
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    failure.map_or(Ok(whole), Err)
}
