//! Several segments to one.

use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{LineRef, ROWS_PER_GROUP, Segment, SegmentError, encode, scan::Columns};

/// The lines of all bodies as one segment; none where there is no line.
pub fn merge(bodies: &[Bytes]) -> Result<Option<Segment>, SegmentError> {
    let mut batches: Vec<Columns> = Vec::new();
    for body in bodies {
        let reader = ParquetRecordBatchReaderBuilder::try_new(body.clone())?
            .with_batch_size(ROWS_PER_GROUP)
            .build()?;
        for batch in reader {
            batches.push(Columns::of(&batch?)?);
        }
    }
    let rows = batches.iter().map(Columns::len).sum();
    let mut lines: Vec<LineRef<'_>> = Vec::with_capacity(rows);
    for columns in &batches {
        for row in 0..columns.len() {
            lines.push(columns.line(row)?);
        }
    }
    encode(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{LogId, LogLevel},
        segment::{LineKey, SegmentLine, decode},
    };

    #[test]
    fn merged_segments_hold_the_lines_of_all_in_order() {
        let line = |n: i64| SegmentLine {
            key: LineKey {
                micros: n,
                id: LogId {
                    stream: n % 3,
                    offset: n * 10,
                    index: 0,
                },
            },
            level: LogLevel::ALL[usize::try_from(n % 6).unwrap()],
            run_id: (n % 2 == 0).then(|| format!("run_{}", n / 10)),
            message: format!("line {n}"),
            attributes: (n % 5 == 0).then(|| r#"{"k":1}"#.to_owned()),
        };
        let count = i64::try_from(ROWS_PER_GROUP).unwrap() + 100;
        let bodies: Vec<Bytes> = (0..3)
            .map(|part| {
                let lines: Vec<SegmentLine> = (part..count).step_by(3).map(line).collect();
                let refs: Vec<_> = lines.iter().map(SegmentLine::as_ref).collect();
                encode(&refs).unwrap().unwrap().body
            })
            .collect();
        let merged = merge(&bodies).unwrap().unwrap();
        let expected: Vec<SegmentLine> = (0..count).rev().map(line).collect();
        assert!(decode(&merged.body).unwrap() == expected);
        assert_eq!(merged.info.lines, expected.len());
        assert!(merged.info.runs.may_contain("run_0"));
        assert!(merge(&[]).unwrap().is_none());
    }
}
