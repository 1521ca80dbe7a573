//! Log lines page after page, each read on where the one before ended: what was decoded for one page and not shown is there
//! for the next. A page by itself ([`super::lines`]) decodes again each segment that it shares with another page, which for
//! files of everything is most of the work.

use std::{
    collections::{BinaryHeap, VecDeque},
    mem,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::task;

use super::{
    Snapshot,
    lines::{self, Candidate, MOST_TEXT, Wanted, body, candidates, log_line, text_bytes},
};
use crate::{
    model::LogLine,
    segment::{Cursor, LineKey},
    store::{LogCursor, LogQuery, Page, StoreError},
};

/// Memory for what is read ahead, in bytes. Where more segments than that overlap in time, pages are read by themselves.
pub const MOST_MEMORY: usize = 96 << 20;
/// The same of all snapshots together.
const MOST_OF_ALL: usize = 96 << 20;
static HELD_BY_ALL: AtomicUsize = AtomicUsize::new(0);

/// Turns that segments take between two looks at the clock.
const TURNS: usize = 64;

/// How a snapshot's pages of log lines are read.
#[derive(Default)]
pub enum Reading {
    /// From the beginning of a query.
    #[default]
    Anew,
    /// On from the last page.
    On(Box<Following>),
    /// Each by itself from now on: what is looked for can not be followed, or takes too much memory.
    Apart,
}

/// A query, and where its next page begins.
pub struct Following {
    query: LogQuery,
    wanted: Arc<Wanted>,
    /// Segments that were not begun, those with the newest lines first.
    candidates: VecDeque<Candidate>,
    /// Where further candidates begin; none if there are no more.
    further: Option<(i64, i64)>,
    open: Open,
    held: Held,
}

/// Segments that are being read, the one with the newest line first.
type Open = BinaryHeap<Head>;

/// A segment that has lines left; the order is that of its next line.
struct Head(LineKey, Box<Cursor>);

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// The page of `query`: read on if it follows the page before, as `reading` has it, with so many bytes for what is read ahead.
pub async fn page<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &LogQuery,
    reading: &mut Reading,
    memory: usize,
) -> Result<Page<LogLine, LogCursor>, StoreError> {
    // A page without room has nothing to follow.
    if query.limit == 0 || matches!(reading, Reading::Apart) {
        return lines::page(snapshot, script_id, query).await;
    }
    let mut following = match mem::take(reading) {
        Reading::On(following) if following.is_followed_by(query) => following,
        _ => Box::new(Following::begin(snapshot, script_id, query).await?),
    };
    if let Some(page) = following
        .next_page(snapshot, script_id, query.limit, memory)
        .await?
    {
        following.query.after = page.next;
        if page.next.is_some() {
            *reading = Reading::On(following);
        }
        return Ok(page);
    }
    // The next page would fare no better, and have begun for nothing. What is open goes first.
    drop(following);
    *reading = Reading::Apart;
    lines::page(snapshot, script_id, query).await
}

impl Following {
    async fn begin<S: Snapshot>(
        snapshot: &mut S,
        script_id: i64,
        query: &LogQuery,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            wanted: Arc::new(Wanted::new(snapshot, script_id, query).await?),
            query: query.clone(),
            candidates: VecDeque::new(),
            further: Some((i64::MAX, i64::MAX)),
            open: Open::new(),
            held: Held::default(),
        })
    }

    fn is_followed_by(&self, query: &LogQuery) -> bool {
        let (a, b) = (&self.query, query);
        a.after == b.after && a.script == b.script && a.range == b.range && a.filter == b.filter
    }

    /// The next page; none if it has to be read by itself.
    async fn next_page<S: Snapshot>(
        &mut self,
        snapshot: &mut S,
        script_id: i64,
        limit: usize,
        memory: usize,
    ) -> Result<Option<Page<LogLine, LogCursor>>, StoreError> {
        // A search for text leaves out what can not have it.
        if self.wanted.has_needles() {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(limit);
        let mut text = 0;
        let is_full = loop {
            if !self.open_newest(snapshot, script_id, memory).await? {
                return Ok(None);
            }
            if self.open.is_empty() {
                break false;
            }
            if rows.len() >= limit || text > MOST_TEXT {
                break true;
            }
            let merging = Merging {
                open: mem::take(&mut self.open),
                end: self.candidates.front().map(|c| c.info.max_time),
                wanted: Arc::clone(&self.wanted),
                rows,
                limit,
                text,
            };
            let merged = task::spawn_blocking(|| merging.run())
                .await
                .map_err(|_| StoreError::Corrupt("a log segment can not be read".to_owned()))??;
            (rows, text, self.open) = (merged.rows, merged.text, merged.open);
        };
        let next = rows.last().filter(|_| is_full).map(|line| LogCursor {
            timestamp: line.timestamp,
            log_id: line.log_id,
        });
        Ok(Some(Page { rows, next }))
    }

    /// Opens every segment that may have a line at least as new as the newest of those that are open. Whether memory
    /// sufficed.
    async fn open_newest<S: Snapshot>(
        &mut self,
        snapshot: &mut S,
        script_id: i64,
        memory: usize,
    ) -> Result<bool, StoreError> {
        loop {
            if self.candidates.is_empty()
                && let Some(after) = self.further
            {
                let (more, further) = candidates(snapshot, script_id, &self.wanted, after).await?;
                (self.candidates, self.further) = (more.into(), further);
                continue;
            }
            let newest = self.open.peek().map(|head| head.0.micros);
            let is_needed = |candidate: &mut Candidate| newest.is_none_or(|n| candidate.info.max_time >= n);
            let Some(candidate) = self.candidates.pop_front_if(is_needed) else {
                return Ok(true);
            };
            let body = body(snapshot, candidate.segment_id).await?;
            let range = self.wanted.range.clone();
            let cursor = task::spawn_blocking(move || Cursor::open(body, range))
                .await
                .map_err(|_| StoreError::Corrupt("a log segment can not be read".to_owned()))??;
            if let Some(head) = cursor.head() {
                self.open.push(Head(head, Box::new(cursor)));
            }
            let own = self.open.iter().map(|head| head.1.bytes()).sum();
            if own > memory || self.held.set(own) > MOST_OF_ALL {
                return Ok(false);
            }
        }
    }
}

/// Bytes that one snapshot has of what all may have.
#[derive(Default)]
struct Held(usize);

impl Held {
    /// It has so many now; says how many all have.
    fn set(&mut self, bytes: usize) -> usize {
        HELD_BY_ALL.fetch_sub(self.0, Ordering::Relaxed);
        self.0 = bytes;
        HELD_BY_ALL.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The lines of several segments in one order. Blocking.
struct Merging {
    open: Open,
    /// Lines of that time or before may come after those of a segment that is not open.
    end: Option<i64>,
    wanted: Arc<Wanted>,
    rows: Vec<LogLine>,
    limit: usize,
    text: usize,
}

impl Merging {
    /// Until the page is full, the end is reached or a segment has come to its own.
    fn run(mut self) -> Result<Self, StoreError> {
        let mut turn = 0_usize;
        while let Some(Head(key, mut cursor)) = self.open.pop() {
            let is_over = self.end.is_some_and(|end| key.micros <= end);
            if is_over || self.rows.len() >= self.limit || self.text > MOST_TEXT {
                self.open.push(Head(key, cursor));
                break;
            }
            if turn.is_multiple_of(TURNS) {
                self.wanted.check_time()?;
            }
            turn += 1;
            let until = self.until();
            let mut failure = None;
            cursor.lines_until(until, |line| {
                if self.wanted.passes(&line) {
                    match log_line(&line) {
                        Ok(line) => {
                            self.text += text_bytes(&line);
                            self.rows.push(line);
                        }
                        Err(error) => failure = Some(error),
                    }
                }
                if failure.is_none() && self.rows.len() < self.limit && self.text <= MOST_TEXT {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            if let Some(error) = failure {
                return Err(error);
            }
            if let Some(head) = cursor.head() {
                self.open.push(Head(head, cursor));
            }
        }
        Ok(self)
    }

    /// Up to where the newest open segment has the word: the next line of another, or the end.
    fn until(&self) -> Option<LineKey> {
        let next = self.open.peek().map(|head| head.0);
        let end = self.end.map(LineKey::last_at);
        next.max(end)
    }
}
