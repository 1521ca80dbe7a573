//! Rows as Parquet. Pure.

use std::{io::Write, sync::Arc};

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    builder::StringBuilder,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};

use serde_json::value::RawValue;

use crate::model::{LogLine, RunDetail};

use super::{
    columns::{Columns, LogColumn, RunColumn},
    csv::{error_text, trace_id},
    rows::Rows,
};

/// Rows in a row group at most.
const GROUP_ROWS: usize = 131_072;
/// Bytes that a row group has in memory at most, about.
const GROUP_BYTES: usize = 32 << 20;
const ZSTD_LEVEL: i32 = 1;

/// A Parquet file that is being written. It is complete once [`ParquetFile::finish`] has returned.
///
/// Texts are UTF-8 as they are; times are microseconds of UTC; the response time is a double of milliseconds, the unit it
/// has in a CSV file, and null where there is none.
pub struct ParquetFile<W: Write + Send> {
    columns: Columns,
    schema: Arc<Schema>,
    writer: ArrowWriter<W>,
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One of few texts.
    Word,
    /// Any text.
    Text,
    Number,
    Milliseconds,
    Time,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file.
    pub fn new(columns: Columns, out: W) -> Result<Self, ParquetError> {
        let kinds: Vec<(&str, Kind, bool)> = match &columns {
            Columns::Runs(columns) => columns
                .iter()
                .map(|c| (c.as_str(), of_runs(*c).0, of_runs(*c).1))
                .collect(),
            Columns::Logs(columns) => columns
                .iter()
                .map(|c| (c.as_str(), of_logs(*c).0, of_logs(*c).1))
                .collect(),
        };
        let fields: Vec<Field> = kinds
            .iter()
            .map(|(name, kind, nullable)| Field::new(*name, kind.data_type(), *nullable))
            .collect();
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_created_by("scriptscope".to_owned());
        for (name, kind, _) in &kinds {
            let path = ColumnPath::new(vec![(*name).to_owned()]);
            properties = match kind {
                Kind::Word | Kind::Milliseconds => properties,
                // Few are there twice.
                Kind::Text => properties.set_column_dictionary_enabled(path, false),
                Kind::Number | Kind::Time => properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            };
        }
        let schema = Arc::new(Schema::new(fields));
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties.build()))?;
        Ok(Self {
            columns,
            schema,
            writer,
        })
    }

    /// Takes rows. Nothing of rows that the columns are not of.
    pub fn rows(&mut self, rows: &Rows) -> Result<(), ParquetError> {
        let arrays: Vec<ArrayRef> = match (&self.columns, rows) {
            (Columns::Runs(columns), Rows::Runs(runs)) => {
                columns.iter().map(|column| run_array(runs, *column)).collect()
            }
            (Columns::Logs(columns), Rows::Lines(lines)) => {
                columns.iter().map(|column| line_array(lines, *column)).collect()
            }
            _ => return Ok(()),
        };
        if rows.is_empty() {
            return Ok(());
        }
        self.writer
            .write(&RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)?;
        if self.writer.in_progress_size() > GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    /// Writes what is left, and gives back what was written to.
    pub fn finish(self) -> Result<W, ParquetError> {
        self.writer.into_inner()
    }
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Word | Self::Text => DataType::Utf8,
            Self::Number => DataType::Int64,
            Self::Milliseconds => DataType::Float64,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// What a column of runs holds, and whether it may hold nothing.
fn of_runs(column: RunColumn) -> (Kind, bool) {
    match column {
        RunColumn::RunId => (Kind::Text, false),
        RunColumn::Status
        | RunColumn::SourceType
        | RunColumn::Function
        | RunColumn::Source
        | RunColumn::DeploymentId => (Kind::Word, false),
        RunColumn::DeploymentVersion => (Kind::Number, false),
        RunColumn::ResponseTime => (Kind::Milliseconds, true),
        RunColumn::ExecutedOn => (Kind::Time, false),
        RunColumn::FinishedOn => (Kind::Time, true),
        RunColumn::Reason | RunColumn::Error | RunColumn::Traceback => (Kind::Word, true),
        RunColumn::TraceId | RunColumn::Input | RunColumn::Output => (Kind::Text, true),
    }
}

/// The same of log lines.
fn of_logs(column: LogColumn) -> (Kind, bool) {
    match column {
        LogColumn::LogId | LogColumn::LogMessage => (Kind::Text, false),
        LogColumn::LogLevel => (Kind::Word, false),
        LogColumn::Timestamp => (Kind::Time, false),
        LogColumn::RunId => (Kind::Word, true),
        LogColumn::Attributes => (Kind::Text, true),
    }
}

fn run_array(runs: &[RunDetail], column: RunColumn) -> ArrayRef {
    let text = |value: fn(&RunDetail) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(runs.iter().map(value)))
    };
    let optional = |value: fn(&RunDetail) -> Option<&str>| -> ArrayRef {
        Arc::new(runs.iter().map(value).collect::<StringArray>())
    };
    match column {
        RunColumn::RunId => text(|r| &r.run.run_id),
        RunColumn::Status => text(|r| r.run.status.as_str()),
        RunColumn::DeploymentVersion => Arc::new(Int64Array::from_iter_values(
            runs.iter().map(|r| r.run.deployment_version),
        )),
        RunColumn::ResponseTime => Arc::new(
            runs.iter()
                .map(|r| r.run.response_time_micros.map(as_milliseconds))
                .collect::<Float64Array>(),
        ),
        RunColumn::Function => text(|r| &r.run.function),
        RunColumn::ExecutedOn => times(runs.iter().map(|r| Some(r.run.executed_on))),
        RunColumn::SourceType => text(|r| r.run.source_type.as_str()),
        RunColumn::Source => text(|r| &r.run.source),
        RunColumn::FinishedOn => times(runs.iter().map(|r| r.run.finished_at)),
        RunColumn::Reason => optional(|r| r.run.reason.as_deref()),
        RunColumn::DeploymentId => text(|r| &r.run.deployment_id),
        RunColumn::TraceId => optional(trace_id),
        RunColumn::Input => optional(|r| r.input.as_deref().map(RawValue::get)),
        RunColumn::Output => optional(|r| r.output.as_deref().map(RawValue::get)),
        RunColumn::Error => Arc::new(runs.iter().map(error_text).collect::<StringArray>()),
        RunColumn::Traceback => optional(|r| r.error.as_ref()?.traceback.as_deref()),
    }
}

fn line_array(lines: &[LogLine], column: LogColumn) -> ArrayRef {
    let optional = |value: fn(&LogLine) -> Option<&str>| -> ArrayRef {
        Arc::new(lines.iter().map(value).collect::<StringArray>())
    };
    match column {
        LogColumn::LogId => {
            use std::fmt::Write as _;
            let mut ids = StringBuilder::new();
            for line in lines {
                // Writing to a builder can not fail.
                let _ = write!(ids, "{}", line.log_id);
                ids.append_value("");
            }
            Arc::new(ids.finish())
        }
        LogColumn::LogLevel => Arc::new(StringArray::from_iter_values(
            lines.iter().map(|line| line.level.as_str()),
        )),
        LogColumn::LogMessage => Arc::new(StringArray::from_iter_values(
            lines.iter().map(|line| line.message.as_str()),
        )),
        LogColumn::Timestamp => times(lines.iter().map(|line| Some(line.timestamp))),
        LogColumn::RunId => optional(|line| line.run_id.as_deref()),
        LogColumn::Attributes => optional(|line| line.attributes.as_deref()),
    }
}

fn times(times: impl Iterator<Item = Option<jiff::Timestamp>>) -> ArrayRef {
    let micros = times.map(|time| time.map(jiff::Timestamp::as_microsecond));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// Exact up to 285 years.
#[allow(clippy::cast_precision_loss)]
fn as_milliseconds(micros: i64) -> f64 {
    micros as f64 / 1_000.0
}
