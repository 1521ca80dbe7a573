//! A page of log lines, gathered from one segment after another; what every backend does alike.

use std::{
    cmp::Reverse,
    ops::{ControlFlow, Range},
};

use bytes::Bytes;

use super::{LogCursor, LogQuery, Page, StoreError, time};
use crate::{
    model::LogLine,
    query::{LineFilter, micros_range},
    segment::{self, LineKey, LineRef, SegmentError},
};

/// The newest lines found so far.
pub struct Search {
    /// Which lines.
    pub filter: LineFilter,
    /// When, microseconds.
    pub range: Range<i64>,
    before: Option<LineKey>,
    /// One more than the page, to know whether there is a next.
    wanted: usize,
    found: Vec<(LineKey, LogLine)>,
}

impl Search {
    /// Begins a search.
    pub fn new(query: &LogQuery) -> Result<Self, StoreError> {
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

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.wanted == 1 || self.range.is_empty()
    }

    /// The key of the oldest line that is needed so far, if the page is full. Valid after [`Self::trim`].
    pub fn oldest(&self) -> Option<LineKey> {
        self.found.get(self.wanted - 1).map(|(key, _)| *key)
    }

    /// Whether a segment that ends at `max_time`, and all after it, have nothing to add.
    pub fn is_done(&self, max_time: i64) -> bool {
        self.oldest().is_some_and(|oldest| max_time < oldest.micros)
    }

    /// Keeps the newest lines only, in order.
    pub fn trim(&mut self) {
        self.found.sort_unstable_by_key(|(key, _)| Reverse(*key));
        self.found.truncate(self.wanted);
    }

    /// Adds what a segment has.
    pub fn read(&mut self, body: &Bytes) -> Result<(), StoreError> {
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

    /// What was found.
    pub fn page(mut self) -> Page<LogLine, LogCursor> {
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
