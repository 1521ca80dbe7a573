//! A Parquet file to lines.

use std::ops::{ControlFlow, Range};

use arrow_array::{Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    file::{metadata::RowGroupMetaData, statistics::Statistics},
};

use super::{LineKey, LineRef, ROWS_PER_GROUP, SegmentError, SegmentLine};
use crate::model::{LogId, LogLevel};

/// Shows the lines of a segment whose time lies in `range` (microseconds), newest first, until `visit` breaks.
pub fn scan(
    body: &Bytes,
    range: &Range<i64>,
    visit: impl FnMut(LineRef<'_>) -> ControlFlow<()>,
) -> Result<(), SegmentError> {
    scan_groups(body, range, |_| Ok(ControlFlow::Continue(true)), visit)
}

/// The same of those row groups alone that are `wanted`, until that breaks.
pub(super) fn scan_groups(
    body: &Bytes,
    range: &Range<i64>,
    mut wanted: impl FnMut(&RowGroupMetaData) -> Result<ControlFlow<(), bool>, SegmentError>,
    mut visit: impl FnMut(LineRef<'_>) -> ControlFlow<()>,
) -> Result<(), SegmentError> {
    let metadata = ArrowReaderMetadata::load(body, ArrowReaderOptions::new())?;
    for group in (0..metadata.metadata().num_row_groups()).rev() {
        let particulars = metadata.metadata().row_group(group);
        if !overlaps(particulars, range) {
            continue;
        }
        match wanted(particulars)? {
            ControlFlow::Continue(true) => {}
            ControlFlow::Continue(false) => continue,
            ControlFlow::Break(()) => return Ok(()),
        }
        // A row group is one batch; should an engine of tomorrow split it, its parts still go newest first.
        let mut batches = read_group(body, &metadata, group)?;
        while let Some(batch) = batches.pop() {
            let columns = Columns::of(&batch)?;
            for row in (0..batch.num_rows()).rev() {
                if !range.contains(&columns.timestamp.value(row)) {
                    continue;
                }
                if visit(columns.line(row)?).is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// The lines of a row group.
pub(super) fn read_group(
    body: &Bytes,
    metadata: &ArrowReaderMetadata,
    group: usize,
) -> Result<Vec<RecordBatch>, SegmentError> {
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(body.clone(), metadata.clone())
        .with_row_groups(vec![group])
        .with_batch_size(ROWS_PER_GROUP)
        .build()?;
    Ok(reader.collect::<Result<_, _>>()?)
}

/// Time and level of the lines of a segment whose time lies in `range`; reads these columns alone.
pub fn levels(body: &Bytes, range: &Range<i64>) -> Result<Vec<(i64, LogLevel)>, SegmentError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(body.clone())?;
    let columns = ProjectionMask::columns(builder.parquet_schema(), ["timestamp", "level"]);
    let mut found = Vec::new();
    for batch in builder
        .with_projection(columns)
        .with_batch_size(ROWS_PER_GROUP)
        .build()?
    {
        let batch = batch?;
        let times: &TimestampMicrosecondArray = column(&batch, "timestamp")?;
        let levels: &StringArray = column(&batch, "level")?;
        for (row, time) in times.values().iter().enumerate() {
            if range.contains(time) {
                found.push((*time, level(levels.value(row))?));
            }
        }
    }
    Ok(found)
}

/// The messages of a segment, oldest first, row group by row group; reads these alone.
pub(super) fn messages(body: &Bytes) -> Result<Vec<StringArray>, SegmentError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(body.clone())?;
    let messages = ProjectionMask::columns(builder.parquet_schema(), ["message"]);
    builder
        .with_projection(messages)
        .with_batch_size(ROWS_PER_GROUP)
        .build()?
        .map(|batch| Ok(column::<StringArray>(&batch?, "message")?.clone()))
        .collect()
}

/// Lines of a segment whose time lies in `range`; reads their times alone.
pub fn count(body: &Bytes, range: &Range<i64>) -> Result<i64, SegmentError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(body.clone())?;
    let times = ProjectionMask::leaves(builder.parquet_schema(), [0]);
    let mut count = 0;
    for batch in builder
        .with_projection(times)
        .with_batch_size(ROWS_PER_GROUP)
        .build()?
    {
        let batch = batch?;
        let times: &TimestampMicrosecondArray = column(&batch, "timestamp")?;
        count += times
            .values()
            .iter()
            .map(|time| i64::from(range.contains(time)))
            .sum::<i64>();
    }
    Ok(count)
}

/// Every line of a segment, newest first.
pub fn decode(body: &Bytes) -> Result<Vec<SegmentLine>, SegmentError> {
    let mut lines = Vec::new();
    scan(body, &(i64::MIN..i64::MAX), |line| {
        lines.push(SegmentLine {
            key: line.key,
            level: line.level,
            run_id: line.run_id.map(str::to_owned),
            message: line.message.to_owned(),
            attributes: line.attributes.map(str::to_owned),
        });
        ControlFlow::Continue(())
    })?;
    Ok(lines)
}

/// Whether a row group may have lines in `range`; yes where it does not say.
pub(super) fn overlaps(group: &RowGroupMetaData, range: &Range<i64>) -> bool {
    match group.column(0).statistics() {
        Some(Statistics::Int64(times)) => {
            times.max_opt().is_none_or(|max| *max >= range.start)
                && times.min_opt().is_none_or(|min| *min < range.end)
        }
        _ => true,
    }
}

/// The columns of a batch of lines. They share its memory.
#[derive(Debug)]
pub(super) struct Columns {
    timestamp: TimestampMicrosecondArray,
    stream: Int64Array,
    offset: Int64Array,
    index: Int32Array,
    level: StringArray,
    run_id: StringArray,
    message: StringArray,
    attributes: StringArray,
}

fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a T, SegmentError> {
    batch
        .column_by_name(name)
        .and_then(|array| array.as_any().downcast_ref())
        .ok_or(SegmentError::Column(name))
}

fn shared<T: Clone + 'static>(batch: &RecordBatch, name: &'static str) -> Result<T, SegmentError> {
    column::<T>(batch, name).cloned()
}

fn optional(array: &StringArray, row: usize) -> Option<&str> {
    (!array.is_null(row)).then(|| array.value(row))
}

fn level(name: &str) -> Result<LogLevel, SegmentError> {
    LogLevel::ALL
        .into_iter()
        .find(|level| level.as_str() == name)
        .ok_or_else(|| SegmentError::Level(name.to_owned()))
}

impl Columns {
    pub(super) fn of(batch: &RecordBatch) -> Result<Self, SegmentError> {
        Ok(Self {
            timestamp: shared(batch, "timestamp")?,
            stream: shared(batch, "stream")?,
            offset: shared(batch, "offset")?,
            index: shared(batch, "index")?,
            level: shared(batch, "level")?,
            run_id: shared(batch, "run_id")?,
            message: shared(batch, "message")?,
            attributes: shared(batch, "attributes")?,
        })
    }

    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        self.timestamp.len()
    }

    pub(super) fn key(&self, row: usize) -> LineKey {
        LineKey {
            micros: self.timestamp.value(row),
            id: LogId {
                stream: self.stream.value(row),
                offset: self.offset.value(row),
                index: self.index.value(row),
            },
        }
    }

    pub(super) fn line(&self, row: usize) -> Result<LineRef<'_>, SegmentError> {
        Ok(LineRef {
            key: self.key(row),
            level: level(self.level.value(row))?,
            run_id: optional(&self.run_id, row),
            message: self.message.value(row),
            source: None,
            attributes: optional(&self.attributes, row),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{LevelSet, encode};

    fn line(micros: i64, n: i64) -> SegmentLine {
        SegmentLine {
            key: LineKey {
                micros,
                id: LogId {
                    stream: 7,
                    offset: n * 100,
                    index: 0,
                },
            },
            level: if n % 3 == 0 {
                LogLevel::Error
            } else {
                LogLevel::Stdout
            },
            run_id: (n % 2 == 0).then(|| format!("run_{n}")),
            message: format!("line {n} with \u{0} and ünïcode"),
            attributes: (n % 5 == 0).then(|| r#"{"k":1}"#.to_owned()),
        }
    }

    #[test]
    fn lines_come_back_as_they_were_newest_first() {
        let count = i64::try_from(ROWS_PER_GROUP).unwrap() * 2 + 10;
        let mut lines: Vec<SegmentLine> = (0..count).map(|n| line((n * 7_919) % count, n)).collect();
        lines.sort_by_key(|l| l.key);
        let refs: Vec<_> = lines.iter().rev().map(SegmentLine::as_ref).collect();
        let segment = encode(&refs).unwrap().unwrap();
        assert_eq!((segment.info.min_time, segment.info.max_time), (0, count - 1));
        assert_eq!(
            segment.info.levels,
            LevelSet::default().with(LogLevel::Error).with(LogLevel::Stdout)
        );
        let mut back = decode(&segment.body).unwrap();
        back.reverse();
        assert!(back == lines);
        let mut times = Vec::new();
        scan(&segment.body, &(5..8), |l| {
            times.push(l.key.micros);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(times, [7, 6, 5]);
    }

    #[test]
    fn no_lines_make_no_segment_and_a_small_one_is_small() {
        assert!(encode(&[]).unwrap().is_none());
        let small = encode(&[line(1, 1).as_ref()]).unwrap().unwrap();
        assert!(small.body.len() < 1_500, "{} bytes", small.body.len());
        assert!(
            scan(&Bytes::from_static(b"not parquet"), &(0..9), |_| {
                ControlFlow::Continue(())
            })
            .is_err()
        );
    }
}
