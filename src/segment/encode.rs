//! Lines to a Parquet file.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};

use super::{LevelSet, LineRef, ROWS_PER_GROUP, RunSet, Segment, SegmentError, SegmentInfo};

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(
            "timestamp",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            false,
        ),
        Field::new("stream", DataType::Int64, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("index", DataType::Int32, false),
        Field::new("level", DataType::Utf8, false),
        Field::new("run_id", DataType::Utf8, true),
        Field::new("message", DataType::Utf8, false),
        Field::new("attributes", DataType::Utf8, true),
    ]))
});

/// Writes lines as a segment; none where there is no line. Sorts them.
pub fn encode(lines: &mut [LineRef<'_>]) -> Result<Option<Segment>, SegmentError> {
    lines.sort_unstable_by_key(|line| line.key);
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
        return Ok(None);
    };
    let runs: HashSet<&str> = lines.iter().filter_map(|line| line.run_id).collect();
    let info = SegmentInfo {
        min_time: first.key.micros,
        max_time: last.key.micros,
        lines: lines.len(),
        levels: lines
            .iter()
            .fold(LevelSet::default(), |set, line| set.with(line.level)),
        text_bytes: lines.iter().map(LineRef::text_bytes).sum(),
        runs: RunSet::new(runs.iter().copied(), runs.len())?,
    };
    // The Arrow schema is left out: it is about 1 KB, more than many a small segment, and nothing here needs it.
    let options = ArrowWriterOptions::new()
        .with_properties(properties()?)
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&SCHEMA), options)?;
    for group in lines.chunks(ROWS_PER_GROUP) {
        writer.write(&batch(group)?)?;
    }
    Ok(Some(Segment {
        info,
        body: Bytes::from(writer.into_inner()?),
    }))
}

fn properties() -> Result<WriterProperties, SegmentError> {
    let column = |name: &str| ColumnPath::from(name);
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(column("timestamp"), EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(false)
        .set_created_by("scriptscope".to_owned());
    for name in ["level", "run_id"] {
        builder = builder.set_column_dictionary_enabled(column(name), true);
    }
    for name in ["timestamp", "stream", "offset", "index"] {
        builder = builder.set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    Ok(builder.build())
}

fn batch(lines: &[LineRef<'_>]) -> Result<RecordBatch, SegmentError> {
    fn text<'a>(lines: &'a [LineRef<'_>], value: fn(&LineRef<'a>) -> Option<&'a str>) -> ArrayRef {
        Arc::new(lines.iter().map(value).collect::<StringArray>())
    }
    let integers = |value: fn(&LineRef<'_>) -> i64| lines.iter().map(value);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(integers(|l| l.key.micros)).with_timezone("UTC"),
        ),
        Arc::new(Int64Array::from_iter_values(integers(|l| l.key.id.stream))),
        Arc::new(Int64Array::from_iter_values(integers(|l| l.key.id.offset))),
        Arc::new(Int32Array::from_iter_values(lines.iter().map(|l| l.key.id.index))),
        text(lines, |l| Some(l.level.as_str())),
        text(lines, |l| l.run_id),
        text(lines, |l| Some(l.message)),
        text(lines, |l| l.attributes),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
}
