//! What a script's pod says, once parsed: events of runs and log lines. The parser makes these, the store keeps them.

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::model::{LogLevel, RunError, RunStatus, SourceType};

/// Something that happened, at a byte offset of a stream.
#[derive(Clone, Debug)]
pub enum Record {
    /// A run began.
    RunStarted(RunStarted),
    /// A run ended.
    RunFinished(RunFinished),
    /// A line was printed or logged.
    Line(NewLine),
    /// The runner ends, and nothing follows.
    RunnerStopped(RunnerStopped),
}

/// The runner ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerStopped {
    /// To be said back to the runner when this record is committed; empty where it gave none.
    pub token: String,
}

/// A run began.
#[derive(Clone, Debug)]
pub struct RunStarted {
    /// Id of the run.
    pub run_id: String,
    /// When.
    pub time: Timestamp,
    /// Function called.
    pub function: String,
    /// Kind of caller.
    pub source_type: SourceType,
    /// Caller.
    pub source: String,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Arguments.
    pub input: Option<Box<RawValue>>,
}

/// A run ended.
#[derive(Clone, Debug)]
pub struct RunFinished {
    /// Id of the run.
    pub run_id: String,
    /// When.
    pub time: Timestamp,
    /// `Success` or `Failed`.
    pub status: RunStatus,
    /// Microseconds from call to answer.
    pub duration_micros: i64,
    /// Result.
    pub output: Option<Box<RawValue>>,
    /// Why it failed.
    pub error: Option<RunError>,
}

/// A line to store. Its id is the stream's number, `offset` and `index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLine {
    /// Offset in the stream of the record the line is from.
    pub offset: u64,
    /// Place of the line within the record.
    pub index: u32,
    /// When it was printed.
    pub time: Timestamp,
    /// Level.
    pub level: LogLevel,
    /// Run it belongs to.
    pub run_id: Option<String>,
    /// Text, without a line end.
    pub message: String,
    /// Attributes of a korelogger span beyond those above, as a JSON object.
    pub attributes: Option<String>,
}
