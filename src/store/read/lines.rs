//! Log lines: pages and counts out of segments.

use std::{cmp::Reverse, collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::task::{self, JoinHandle};

use super::{Snapshot, Values, limit, push, sql};
use crate::{
    model::{Count, LogLevel, LogLine},
    query::{LineFilter, Stop, micros_range},
    segment::{self, Grams, LevelSet, LineKey, RunSet, SegmentInfo},
    store::{LogCursor, LogQuery, Page, StoreError, retention::logs::shown_from, time},
};

/// Segments whose particulars are read at once.
const PARTICULARS: usize = 64;

/// Text of a page, in bytes: one that has more ends early. A line has up to 2 MiB.
pub(super) const MOST_TEXT: usize = 16 << 20;

/// What lines are looked for.
pub(super) struct Wanted {
    filter: LineFilter,
    pub(super) range: Range<i64>,
    /// Only lines before this one in the order of lines, so older ones.
    before: Option<LineKey>,
    /// As many as that at most, the newest ones.
    most: usize,
    stop: Stop,
}

/// A segment that may have lines.
pub(super) struct Candidate {
    pub(super) segment_id: i64,
    pub(super) info: SegmentInfo,
}

impl Wanted {
    /// What a page of the query is made of.
    pub(super) async fn new<S: Snapshot>(
        snapshot: &mut S,
        script_id: i64,
        query: &LogQuery,
    ) -> Result<Self, StoreError> {
        let before = query.after.map(|cursor| LineKey {
            micros: cursor.timestamp.as_microsecond(),
            id: cursor.log_id,
        });
        let mut range = shown(snapshot, script_id, micros_range(&query.range)).await?;
        if let Some(before) = before {
            range.end = range.end.min(before.micros.saturating_add(1));
        }
        Ok(Self {
            filter: LineFilter::new(&query.filter)?,
            range,
            before,
            // One more than the page, to know whether there is a next.
            most: query.limit.saturating_add(1),
            stop: snapshot.stop().clone(),
        })
    }

    /// Whether text is looked for.
    pub(super) fn has_needles(&self) -> bool {
        !self.filter.needles().is_empty()
    }

    /// Whether the line is one of them.
    pub(super) fn passes(&self, line: &segment::LineRef<'_>) -> bool {
        self.before.is_none_or(|before| line.key < before) && self.filter.matches(line)
    }

    /// Fails once it is time to stop.
    pub(super) fn check_time(&self) -> Result<(), StoreError> {
        Ok(self.stop.check()?)
    }
}

/// See [`crate::store::Store::logs`].
///
/// Segments overlap in time, so they are read in the order of their newest lines until the page is full and no segment
/// that is left has a line as new as the oldest on the page. Where the time is over, the page ends with what is certain.
pub async fn page<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &LogQuery,
) -> Result<Page<LogLine, LogCursor>, StoreError> {
    let wanted = Wanted::new(snapshot, script_id, query).await?;
    if query.limit == 0 || wanted.range.is_empty() {
        return Ok(Page {
            rows: Vec::new(),
            next: None,
        });
    }
    let mut found = Newest::new(wanted.most);
    let late = search(snapshot, script_id, wanted, &mut found).await?;
    let more = late || found.is_cut || found.lines.len() > query.limit;
    let mut rows: Vec<LogLine> = found.lines.into_iter().map(|(_, line)| line).collect();
    rows.truncate(query.limit);
    let next = rows.last().filter(|_| more).map(|line| LogCursor {
        timestamp: line.timestamp,
        log_id: line.log_id,
    });
    Ok(Page { rows, next })
}

/// See [`crate::store::Store::count_logs`].
pub async fn count<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &LogQuery,
    cap: usize,
) -> Result<Count, StoreError> {
    let filter = LineFilter::new(&query.filter)?;
    let range = shown(snapshot, script_id, micros_range(&query.range)).await?;
    if query.filter.conditions.is_empty() {
        let count = count_range(snapshot, script_id, range).await?;
        return Ok(Count {
            count: count.min(limit(cap)),
            more: count > limit(cap),
        });
    }
    let wanted = Wanted {
        filter,
        range,
        before: None,
        most: usize::MAX,
        stop: snapshot.stop().clone(),
    };
    let mut total = Total { cap, count: 0 };
    let late = match search(snapshot, script_id, wanted, &mut total).await {
        Err(StoreError::TimeLimit(_)) => true,
        other => other?,
    };
    Ok(Count {
        count: limit(total.count.min(cap)),
        more: late || total.count > cap,
    })
}

/// What gathers the lines that a search finds.
trait Gather: Send {
    /// What one segment gives.
    type Part: Send + 'static;
    /// Whether nothing that ends before or at `max_time` is needed.
    fn is_done(&self, max_time: i64) -> bool;
    /// What to read out of one segment.
    fn reader(
        &self,
        wanted: &Arc<Wanted>,
    ) -> impl FnOnce(&Bytes) -> Result<Self::Part, StoreError> + Send + 'static;
    /// Takes what one segment gave.
    fn add(&mut self, part: Self::Part);
    /// The time is over, and lines not newer than `max_time` were not looked at: whether what there is has any worth.
    fn cut(&mut self, max_time: i64) -> bool;
}

/// The newest time of a segment, and the task that reads it.
type Running<G> = (i64, JoinHandle<Result<<G as Gather>::Part, StoreError>>);

/// Reads segment after segment, as many at once as there are processors once the first did not suffice. Whether it was
/// cut short.
async fn search<S: Snapshot, G: Gather>(
    snapshot: &mut S,
    script_id: i64,
    wanted: Wanted,
    found: &mut G,
) -> Result<bool, StoreError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = Arc::new(wanted);
    let mut after = (i64::MAX, i64::MAX);
    let mut running: VecDeque<Running<G>> = VecDeque::new();
    let mut at_once = 1;
    'all: loop {
        let (candidates, last) = match candidates(snapshot, script_id, &wanted, after).await {
            Err(StoreError::TimeLimit(error)) => return cut(found, after.0, error.into()),
            other => other?,
        };
        for candidate in candidates {
            while running.len() >= at_once {
                if let Some(cut_short) = finish(&mut running, found).await? {
                    return Ok(cut_short);
                }
                at_once = processors;
            }
            if found.is_done(candidate.info.max_time) {
                break 'all;
            }
            let read = match body(snapshot, candidate.segment_id).await {
                Err(StoreError::TimeLimit(error)) => {
                    return cut(found, candidate.info.max_time, error.into());
                }
                other => other?,
            };
            let reader = found.reader(&wanted);
            running.push_back((
                candidate.info.max_time,
                task::spawn_blocking(move || reader(&read)),
            ));
        }
        match last {
            Some(last) => after = last,
            None => break,
        }
    }
    while !running.is_empty() {
        if let Some(cut_short) = finish(&mut running, found).await? {
            return Ok(cut_short);
        }
    }
    Ok(false)
}

/// Waits for the first that runs. Says so if the search ends here, cut short.
async fn finish<G: Gather>(
    running: &mut VecDeque<Running<G>>,
    found: &mut G,
) -> Result<Option<bool>, StoreError> {
    let Some((max_time, task)) = running.pop_front() else {
        return Ok(None);
    };
    let part = task
        .await
        .map_err(|_| StoreError::Corrupt("a log segment can not be read".to_owned()))?;
    match part {
        Ok(part) => found.add(part),
        Err(StoreError::TimeLimit(error)) => return cut(found, max_time, error.into()).map(Some),
        Err(error) => return Err(error),
    }
    Ok(None)
}

fn cut(found: &mut impl Gather, max_time: i64, error: StoreError) -> Result<bool, StoreError> {
    if found.cut(max_time) { Ok(true) } else { Err(error) }
}

/// The next segments that may have lines which pass, and where to go on after these.
pub(super) async fn candidates<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    wanted: &Wanted,
    after: (i64, i64),
) -> Result<(Vec<Candidate>, Option<(i64, i64)>), StoreError> {
    let by_text = !wanted.filter.needles().is_empty();
    let mut statement =
        sql::<S>("SELECT s.segment_id, s.min_time, s.max_time, s.lines, s.levels, s.text_bytes, s.runs");
    statement.push(if by_text {
        ", g.grams FROM log_segments s LEFT JOIN log_segment_grams g ON g.segment_id = s.segment_id"
    } else {
        " FROM log_segments s"
    });
    push::<S>(&mut statement, " WHERE s.script_id = ", script_id);
    push::<S>(&mut statement, " AND (s.max_time, s.segment_id) < (", after.0);
    push::<S>(&mut statement, ", ", after.1);
    push::<S>(&mut statement, ") AND s.max_time >= ", wanted.range.start);
    push::<S>(&mut statement, " AND s.min_time < ", wanted.range.end);
    push::<S>(
        &mut statement,
        " AND s.levels & ",
        wanted.filter.levels().bits().into(),
    );
    push::<S>(
        &mut statement,
        " <> 0 ORDER BY s.max_time DESC, s.segment_id DESC LIMIT ",
        limit(PARTICULARS),
    );
    let mut candidates = Vec::new();
    let (mut rows, mut last) = (0, None);
    snapshot
        .each(statement, |row| {
            let candidate = candidate(row)?;
            rows += 1;
            last = Some((candidate.info.max_time, candidate.segment_id));
            let has_text = !by_text
                || row
                    .optional_bytes(7)?
                    .is_none_or(|grams| Grams::new(grams).may_have(wanted.filter.needles()));
            if has_text && wanted.filter.may_match(&candidate.info) {
                candidates.push(candidate);
            }
            Ok(())
        })
        .await?;
    Ok((candidates, last.filter(|_| rows == PARTICULARS)))
}

fn candidate(row: &impl Values) -> Result<Candidate, StoreError> {
    let count =
        |at| -> Result<usize, StoreError> { Ok(usize::try_from(row.number(at)?).unwrap_or_default()) };
    let levels = u8::try_from(row.number(4)?).unwrap_or(u8::MAX);
    Ok(Candidate {
        segment_id: row.number(0)?,
        info: SegmentInfo {
            min_time: row.number(1)?,
            max_time: row.number(2)?,
            lines: count(3)?,
            levels: LevelSet::from_bits(levels),
            text_bytes: count(5)?,
            runs: RunSet::from_bytes(row.bytes(6)?)
                .ok_or_else(|| StoreError::Corrupt("the runs of a segment".to_owned()))?,
        },
    })
}

pub async fn body<S: Snapshot>(snapshot: &mut S, segment_id: i64) -> Result<Bytes, StoreError> {
    let mut statement = sql::<S>("SELECT body FROM log_segments");
    push::<S>(&mut statement, " WHERE segment_id = ", segment_id);
    let mut body = None;
    snapshot
        .each(statement, |row| {
            body = Some(Bytes::copy_from_slice(row.bytes(0)?));
            Ok(())
        })
        .await?;
    body.ok_or_else(|| StoreError::Corrupt(format!("segment {segment_id} has no body")))
}

/// The newest lines found so far, in order.
struct Newest {
    most: usize,
    lines: Vec<(LineKey, LogLine)>,
    /// They are so long that fewer are enough.
    is_cut: bool,
}

impl Newest {
    fn new(most: usize) -> Self {
        Self {
            most,
            lines: Vec::new(),
            is_cut: false,
        }
    }

    /// The oldest line that is needed, if there are enough.
    fn oldest(&self) -> Option<LineKey> {
        self.lines.get(self.most - 1).map(|(key, _)| *key)
    }
}

impl Gather for Newest {
    type Part = Vec<(LineKey, LogLine)>;

    fn is_done(&self, max_time: i64) -> bool {
        self.oldest().is_some_and(|oldest| max_time < oldest.micros)
    }

    fn reader(
        &self,
        wanted: &Arc<Wanted>,
    ) -> impl FnOnce(&Bytes) -> Result<Self::Part, StoreError> + Send + 'static {
        let (wanted, oldest) = (Arc::clone(wanted), self.oldest());
        move |body| newest_of(body, &wanted, oldest)
    }

    fn add(&mut self, mut part: Self::Part) {
        self.lines.append(&mut part);
        self.lines.sort_by_key(|(key, _)| Reverse(*key));
        self.lines.truncate(self.most);
        let mut text = 0;
        let mut fits = |(_, line): &(LineKey, LogLine)| {
            text += text_bytes(line);
            text <= MOST_TEXT
        };
        let fitting = self.lines.iter().take_while(|line| fits(line)).count().max(1);
        if fitting < self.lines.len() {
            self.lines.truncate(fitting);
            self.most = fitting;
            self.is_cut = true;
        }
    }

    fn cut(&mut self, max_time: i64) -> bool {
        self.lines.retain(|(key, _)| key.micros > max_time);
        !self.lines.is_empty()
    }
}

pub(super) fn text_bytes(line: &LogLine) -> usize {
    line.message.len() + line.attributes.as_ref().map_or(0, String::len)
}

/// The line as the model has it.
pub(super) fn log_line(line: &segment::LineRef<'_>) -> Result<LogLine, StoreError> {
    Ok(LogLine {
        log_id: line.key.id,
        level: line.level,
        message: line.message.to_owned(),
        timestamp: time(line.key.micros)?,
        run_id: line.run_id.map(str::to_owned),
        attributes: line.attributes.map(str::to_owned),
    })
}

/// The newest lines of a segment that pass, no older than `oldest` and no more than a page takes.
fn newest_of(
    body: &Bytes,
    wanted: &Wanted,
    oldest: Option<LineKey>,
) -> Result<Vec<(LineKey, LogLine)>, StoreError> {
    let mut found = Vec::new();
    let (mut text, mut failure) = (0, None);
    scan(body, wanted, |line| {
        // Newest first: what comes after is older still.
        if oldest.is_some_and(|oldest| line.key < oldest) {
            return false;
        }
        match log_line(line) {
            Ok(found_line) => {
                text += text_bytes(&found_line);
                found.push((line.key, found_line));
            }
            Err(error) => failure = Some(error),
        }
        failure.is_none() && found.len() < wanted.most && text <= MOST_TEXT
    })?;
    failure.map_or(Ok(found), Err)
}

/// Shows the lines of a segment that pass, newest first, as long as `visit` says so.
fn scan(
    body: &Bytes,
    wanted: &Wanted,
    mut visit: impl FnMut(&segment::LineRef<'_>) -> bool,
) -> Result<(), StoreError> {
    use std::ops::ControlFlow::{Break, Continue};

    let is_over = || wanted.stop.is_over();
    let finished = segment::search(body, &wanted.range, wanted.filter.needles(), is_over, |line| {
        if !wanted.passes(&line) {
            return Continue(());
        }
        if visit(&line) { Continue(()) } else { Break(()) }
    })?;
    if finished {
        Ok(())
    } else {
        Err(wanted.stop.error().into())
    }
}

/// How many lines were found so far.
struct Total {
    cap: usize,
    count: usize,
}

impl Gather for Total {
    type Part = usize;

    fn is_done(&self, _max_time: i64) -> bool {
        self.count > self.cap
    }

    fn reader(
        &self,
        wanted: &Arc<Wanted>,
    ) -> impl FnOnce(&Bytes) -> Result<usize, StoreError> + Send + 'static {
        let (wanted, left) = (Arc::clone(wanted), self.cap.saturating_sub(self.count));
        move |body| {
            let mut count = 0;
            scan(body, &wanted, |_| {
                count += 1;
                count <= left
            })?;
            Ok(count)
        }
    }

    fn add(&mut self, part: usize) {
        self.count += part;
    }

    fn cut(&mut self, _max_time: i64) -> bool {
        true
    }
}

/// What of a range of microseconds is shown: lines past their retention are not, deleted or not.
async fn shown<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    mut range: Range<i64>,
) -> Result<Range<i64>, StoreError> {
    range.start = range.start.max(shown_from(snapshot, script_id).await?);
    Ok(range)
}

/// Lines in a range of microseconds: whole segments by their count, those across an end by their lines.
pub(super) async fn count_range<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    range: Range<i64>,
) -> Result<i64, StoreError> {
    let range = shown(snapshot, script_id, range).await?;
    let mut statement = sql::<S>("SELECT CAST(coalesce(sum(lines), 0) AS BIGINT) FROM log_segments");
    push::<S>(&mut statement, " WHERE script_id = ", script_id);
    push::<S>(&mut statement, " AND min_time >= ", range.start);
    push::<S>(&mut statement, " AND max_time < ", range.end);
    let mut total = 0;
    snapshot
        .each(statement, |row| {
            total = row.number(0)?;
            Ok(())
        })
        .await?;
    let across = across(snapshot, script_id, &range, true).await?;
    for segment_id in across {
        let body = body(snapshot, segment_id).await?;
        let range = range.clone();
        total += task::spawn_blocking(move || segment::count(&body, &range))
            .await
            .map_err(|_| StoreError::Corrupt(format!("segment {segment_id} can not be read")))??;
    }
    Ok(total)
}

/// Segments that have lines in a range; of these only those that may have others too, if it is `across` its ends.
async fn across<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    range: &Range<i64>,
    across: bool,
) -> Result<Vec<i64>, StoreError> {
    let mut statement = sql::<S>("SELECT segment_id FROM log_segments");
    push::<S>(&mut statement, " WHERE script_id = ", script_id);
    push::<S>(&mut statement, " AND max_time >= ", range.start);
    push::<S>(&mut statement, " AND min_time < ", range.end);
    if across {
        push::<S>(&mut statement, " AND (min_time < ", range.start);
        push::<S>(&mut statement, " OR max_time >= ", range.end);
        statement.push(")");
    }
    let mut ids = Vec::new();
    snapshot
        .each(statement, |row| {
            ids.push(row.number(0)?);
            Ok(())
        })
        .await?;
    Ok(ids)
}

/// Shows time and level of each line in a range of microseconds.
pub(super) async fn each_of<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    range: Range<i64>,
    mut visit: impl FnMut(i64, LogLevel) + Send,
) -> Result<(), StoreError> {
    let range = shown(snapshot, script_id, range).await?;
    for segment_id in across(snapshot, script_id, &range, false).await? {
        let body = body(snapshot, segment_id).await?;
        let range = range.clone();
        let lines = task::spawn_blocking(move || segment::levels(&body, &range))
            .await
            .map_err(|_| StoreError::Corrupt(format!("segment {segment_id} can not be read")))??;
        for (micros, level) in lines {
            visit(micros, level);
        }
    }
    Ok(())
}
