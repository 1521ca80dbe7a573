//! Reading the lines of one segment a few at a time, for whoever merges several.

use std::ops::{ControlFlow, Range};

use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::{
    LineKey, LineRef, SegmentError,
    scan::{Columns, overlaps, read_group},
};

/// A place in a segment, of which the lines in a range of time are read newest first.
#[derive(Debug)]
pub struct Cursor {
    body: Bytes,
    metadata: ArrowReaderMetadata,
    range: Range<i64>,
    /// Row groups from 0 that were not read yet.
    groups: usize,
    /// Batches of the row group that is being read, but for the one with the newest lines.
    batches: Vec<RecordBatch>,
    /// That one: lines of several segments often alternate, so its columns are looked up once.
    columns: Option<Columns>,
    /// Memory of both, in bytes.
    batch_bytes: usize,
    /// Rows of it that were not shown yet.
    rows: usize,
    head: Option<LineKey>,
}

impl Cursor {
    /// Before the newest line in `range` (microseconds).
    pub fn open(body: Bytes, range: Range<i64>) -> Result<Self, SegmentError> {
        let metadata = ArrowReaderMetadata::load(&body, ArrowReaderOptions::new())?;
        let mut cursor = Self {
            groups: metadata.metadata().num_row_groups(),
            metadata,
            body,
            range,
            batches: Vec::new(),
            columns: None,
            batch_bytes: 0,
            rows: 0,
            head: None,
        };
        cursor.find_head()?;
        Ok(cursor)
    }

    /// The next line's place; none at the end.
    pub fn head(&self) -> Option<LineKey> {
        self.head
    }

    /// Bytes of memory that are held.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.batch_bytes
    }

    /// Shows the lines that are newer than `end`, until `visit` breaks. A line that was shown is not shown again.
    pub fn lines_until(
        &mut self,
        end: Option<LineKey>,
        mut visit: impl FnMut(LineRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), SegmentError> {
        while let (Some(columns), Some(_)) = (&self.columns, self.head) {
            let mut flow = ControlFlow::Continue(());
            while flow.is_continue() && self.rows > 0 {
                let key = columns.key(self.rows - 1);
                if end.is_some_and(|end| key <= end) {
                    self.head = Some(key);
                    return Ok(());
                }
                if key.micros < self.range.start {
                    self.groups = 0;
                    self.batches.clear();
                    self.columns = None;
                    self.head = None;
                    return Ok(());
                }
                self.rows -= 1;
                flow = visit(columns.line(self.rows)?);
            }
            self.find_head()?;
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Goes to the next row in the range, reading row groups as needed.
    fn find_head(&mut self) -> Result<(), SegmentError> {
        self.head = None;
        loop {
            if let Some(columns) = &self.columns {
                while self.rows > 0 {
                    let key = columns.key(self.rows - 1);
                    if self.range.contains(&key.micros) {
                        self.head = Some(key);
                        return Ok(());
                    }
                    self.rows -= 1;
                }
                self.columns = None;
            } else if let Some(batch) = self.batches.pop() {
                let columns = Columns::of(&batch)?;
                self.rows = columns.len();
                self.columns = Some(columns);
            } else if self.groups > 0 {
                self.groups -= 1;
                if overlaps(self.metadata.metadata().row_group(self.groups), &self.range) {
                    self.batches = read_group(&self.body, &self.metadata, self.groups)?;
                    self.batch_bytes = self.batches.iter().map(RecordBatch::get_array_memory_size).sum();
                }
            } else {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{LogId, LogLevel},
        segment::{ROWS_PER_GROUP, SegmentLine, encode},
    };

    fn line(micros: i64) -> SegmentLine {
        SegmentLine {
            key: LineKey {
                micros,
                id: LogId {
                    stream: 1,
                    offset: micros,
                    index: 0,
                },
            },
            level: LogLevel::Info,
            run_id: None,
            message: format!("line {micros}"),
            attributes: None,
        }
    }

    /// Reads everything, `some` lines at once.
    fn all(mut cursor: Cursor, some: usize) -> Vec<i64> {
        let mut times = Vec::new();
        while let Some(head) = cursor.head() {
            let mut left = some;
            cursor
                .lines_until(None, |line| {
                    assert!(left < some || line.key == head);
                    times.push(line.key.micros);
                    left -= 1;
                    if left == 0 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
                .unwrap();
        }
        times
    }

    #[test]
    fn every_line_of_the_range_is_shown_once_newest_first() {
        let count = i64::try_from(ROWS_PER_GROUP).unwrap() * 2 + 10;
        let lines: Vec<_> = (0..count).map(line).collect();
        let refs: Vec<_> = lines.iter().map(SegmentLine::as_ref).collect();
        let body = encode(&refs).unwrap().unwrap().body;
        let open = |range: Range<i64>| Cursor::open(body.clone(), range).unwrap();
        for some in [1_000, ROWS_PER_GROUP, usize::MAX] {
            let expected: Vec<i64> = (0..count).rev().collect();
            assert_eq!(all(open(i64::MIN..i64::MAX), some), expected);
            let expected: Vec<i64> = (100..count - 5).rev().collect();
            assert_eq!(all(open(100..count - 5), some), expected);
        }
        assert_eq!(all(open(count..count + 1), 1), Vec::<i64>::new());
        assert_eq!(all(open(-5..0), 1), Vec::<i64>::new());

        let mut cursor = open(0..count);
        assert!(cursor.bytes() > body.len());
        let mut shown = Vec::new();
        let end = Some(line(count - 3).key);
        cursor
            .lines_until(end, |line| {
                shown.push(line.key.micros);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(shown, [count - 1, count - 2]);
        assert_eq!(cursor.head(), end);
    }
}
