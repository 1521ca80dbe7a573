//! What a script's pod says, once parsed: events of runs and log lines. The parser makes these, the store keeps them.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::lines::{Line, Lines};
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

/// What a stretch of a stream says. Lines are many, so they lie in columns; the order of the whole is kept.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// The lines.
    pub lines: Lines,
    /// What happened to runs, each with the number of lines before it.
    events: Vec<(usize, Event)>,
    /// Set where the runner has said that it ends.
    pub stopped: Option<RunnerStopped>,
}

/// Something that happened to a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// It began.
    Started(RunStarted),
    /// It ended.
    Finished(RunFinished),
}

impl Records {
    /// Adds what comes next.
    pub fn push(&mut self, record: Record) {
        match record {
            Record::RunStarted(run) => self.event(Event::Started(run)),
            Record::RunFinished(run) => self.event(Event::Finished(run)),
            Record::Line(line) => self.lines.push(&line.as_line()),
            Record::RunnerStopped(stopped) => self.stopped = Some(stopped),
        }
    }

    fn event(&mut self, event: Event) {
        self.events.push((self.lines.len(), event));
    }

    /// What happened to runs, in order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &Event> {
        self.events.iter().map(|(_, event)| event)
    }

    /// What happened to runs, and the lines, each in order.
    pub fn into_parts(self) -> (impl ExactSizeIterator<Item = Event>, Lines) {
        (self.events.into_iter().map(|(_, event)| event), self.lines)
    }

    /// Memory that the records take, bytes, about.
    pub fn bytes(&self) -> usize {
        let json = |json: &Option<Box<RawValue>>| json.as_ref().map_or(0, |json| json.get().len());
        let event = |event: &Event| match event {
            Event::Started(run) => json(&run.input),
            Event::Finished(run) => {
                let error = run.error.as_ref();
                let traceback = error.and_then(|error| error.traceback.as_ref());
                json(&run.output)
                    + error.map_or(0, |error| error.message.len())
                    + traceback.map_or(0, String::len)
            }
        };
        let events: usize = self
            .events()
            .map(|e| event(e) + size_of::<(usize, Event)>())
            .sum();
        self.lines.bytes() + events
    }
}

impl Extend<Record> for Records {
    fn extend<T: IntoIterator<Item = Record>>(&mut self, records: T) {
        records.into_iter().for_each(|record| self.push(record));
    }
}

impl From<Vec<Record>> for Records {
    fn from(records: Vec<Record>) -> Self {
        let mut all = Self::default();
        all.extend(records);
        all
    }
}

/// Runs and lines in order. Meant for tests and the like: each line is copied.
impl IntoIterator for Records {
    type Item = Record;
    type IntoIter = std::vec::IntoIter<Record>;

    fn into_iter(self) -> Self::IntoIter {
        let mut events = self.events.into_iter().peekable();
        let mut all = Vec::with_capacity(self.lines.len() + events.len());
        let mut lines = self.lines.iter().map(|line: Line<'_>| line.to_new_line());
        for n in 0..=self.lines.len() {
            while let Some((_, event)) = events.next_if(|(before, _)| *before == n) {
                all.push(match event {
                    Event::Started(run) => Record::RunStarted(run),
                    Event::Finished(run) => Record::RunFinished(run),
                });
            }
            all.extend(lines.next().map(Record::Line));
        }
        all.into_iter()
    }
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
    /// The arguments are left out since they were too large.
    pub input_truncated: bool,
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
    /// The result is left out since it was too large.
    pub output_truncated: bool,
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
