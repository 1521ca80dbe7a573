//! Lines to a Parquet file.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use arrow_array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
    builder::{StringBuilder, StringViewBuilder},
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use foldhash::quality::RandomState;
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
        Field::new("message", DataType::Utf8View, false),
        Field::new("attributes", DataType::Utf8, true),
    ]))
});

/// Writes lines as a segment, in whatever order they come; none where there is no line.
pub fn encode(lines: &[LineRef<'_>]) -> Result<Option<Segment>, SegmentError> {
    encode_shared(lines, &[])
}

/// The same of lines of which messages are parts of `texts`: these are not copied.
pub fn encode_shared(lines: &[LineRef<'_>], texts: &[Bytes]) -> Result<Option<Segment>, SegmentError> {
    let order = order(lines);
    let (Some(&first), Some(&last)) = (order.first(), order.last()) else {
        return Ok(None);
    };
    let (first, last) = (&lines[first], &lines[last]);
    let runs = distinct_runs(lines);
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
        .with_properties(properties(lines)?)
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&SCHEMA), options)?;
    let mut group: Vec<&LineRef<'_>> = Vec::with_capacity(ROWS_PER_GROUP.min(lines.len()));
    for rows in order.chunks(ROWS_PER_GROUP) {
        group.clear();
        group.extend(rows.iter().map(|&row| &lines[row]));
        writer.write(&batch(&group, texts)?)?;
    }
    Ok(Some(Segment {
        info,
        body: Bytes::from(writer.into_inner()?),
    }))
}

/// Places of the lines, the oldest line first. The lines are a few stretches in order each (one a stream), which a merge
/// sort makes use of; numbers are sorted in their stead, since they are a fraction of a line's size.
fn order(lines: &[LineRef<'_>]) -> Vec<usize> {
    if lines.is_sorted_by_key(|line| line.key) {
        return (0..lines.len()).collect();
    }
    let mut keys: Vec<(i64, usize)> = lines.iter().map(|line| line.key.micros).zip(0..).collect();
    keys.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| lines[a.1].key.cmp(&lines[b.1].key)));
    keys.into_iter().map(|(_, place)| place).collect()
}

/// The runs that lines belong to. Those of one run mostly come one after the other.
fn distinct_runs<'a>(lines: &[LineRef<'a>]) -> HashSet<&'a str, RandomState> {
    let mut runs = HashSet::default();
    let mut last = None;
    for line in lines {
        if line.run_id != last {
            runs.extend(line.run_id);
            last = line.run_id;
        }
    }
    runs
}

fn properties(lines: &[LineRef<'_>]) -> Result<WriterProperties, SegmentError> {
    let column = |name: &str| ColumnPath::from(name);
    // Numbers are packed already; of texts that no line has there is nothing to compress, and a compressor takes memory.
    let numbers = ["timestamp", "stream", "offset", "index"];
    let without_attributes = lines.iter().all(|line| line.attributes.is_none());
    let without_runs = lines.iter().all(|line| line.run_id.is_none());
    let mut uncompressed = numbers.to_vec();
    uncompressed.extend(without_attributes.then_some("attributes"));
    uncompressed.extend(without_runs.then_some("run_id"));
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
    for name in numbers {
        builder = builder.set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in uncompressed {
        builder = builder.set_column_compression(column(name), Compression::UNCOMPRESSED);
    }
    Ok(builder.build())
}

/// The messages, as views of the texts that they are part of.
fn messages(lines: &[&LineRef<'_>], texts: &[Bytes]) -> Result<StringViewArray, SegmentError> {
    let mut array = StringViewBuilder::with_capacity(lines.len());
    for text in texts {
        array.append_block(text.clone().into());
    }
    for line in lines {
        let text = line
            .source
            .and_then(|source| Some((source, texts.get(source as usize)?)));
        match text.and_then(|(source, text)| Some((source, offset_in(text, line.message)?))) {
            Some((source, offset)) => {
                let length = u32::try_from(line.message.len()).unwrap_or(u32::MAX);
                array.try_append_view(source, offset, length)?;
            }
            None => array.append_value(line.message),
        }
    }
    Ok(array.finish())
}

/// Where in the memory of a text a part of it begins.
fn offset_in(text: &Bytes, part: &str) -> Option<u32> {
    let offset = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let is_part = offset + part.len() <= text.len();
    u32::try_from(offset).ok().filter(|_| is_part)
}

fn batch(lines: &[&LineRef<'_>], texts: &[Bytes]) -> Result<RecordBatch, SegmentError> {
    fn text<'a>(lines: &[&LineRef<'a>], value: fn(&LineRef<'a>) -> Option<&'a str>) -> ArrayRef {
        let bytes = lines.iter().map(|line| value(line).map_or(0, str::len)).sum();
        let mut array = StringBuilder::with_capacity(lines.len(), bytes);
        for line in lines {
            array.append_option(value(line));
        }
        Arc::new(array.finish())
    }
    let integers = |value: fn(&LineRef<'_>) -> i64| lines.iter().map(move |line| value(line));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(integers(|l| l.key.micros)).with_timezone("UTC"),
        ),
        Arc::new(Int64Array::from_iter_values(integers(|l| l.key.id.stream))),
        Arc::new(Int64Array::from_iter_values(integers(|l| l.key.id.offset))),
        Arc::new(Int32Array::from_iter_values(lines.iter().map(|l| l.key.id.index))),
        text(lines, |l| Some(l.level.as_str())),
        text(lines, |l| l.run_id),
        Arc::new(messages(lines, texts)?),
        text(lines, |l| l.attributes),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
}
