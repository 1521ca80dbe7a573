//! Appends made ready before any lock is taken: payloads compressed, lines encoded, everything checked that can be.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::{Append, Gap, LastWord, PodRecord, StoreError, payload};
use crate::{
    ingest::{
        record::{NewLine, Record, RunFinished, RunStarted},
        wire::Position,
    },
    model::{LogId, LogLevel, RunStatus},
    segment::{self, LineKey, LineRef, Segment, SegmentLine},
};

const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// The hour since the epoch in which a moment lies.
pub fn hour_of(micros: i64) -> i64 {
    micros.div_euclid(MICROS_PER_HOUR)
}

/// Whose stream it is. Never changes.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Number of the script in the store.
    pub script_id: i64,
    /// The pod.
    pub pod: PodRecord,
}

/// A beginning of a run, as it is kept.
#[derive(Clone, Debug)]
pub struct Start {
    /// Id of the run.
    pub run_id: String,
    /// When, microseconds.
    pub executed_at: i64,
    /// Function called.
    pub function: String,
    /// Code of the source type.
    pub source_type: u8,
    /// Caller.
    pub source: String,
    /// Trace context.
    pub traceparent: Option<String>,
    /// Packed input.
    pub input: Option<Vec<u8>>,
}

/// An end of a run, as it is kept.
#[derive(Clone, Debug)]
pub struct End {
    /// Id of the run.
    pub run_id: String,
    /// When, microseconds.
    pub finished_at: i64,
    /// When it must have begun, should nothing else say so.
    pub began_at: i64,
    /// `Success` or `Failed`.
    pub status: RunStatus,
    /// Successful runs only.
    pub response_time: Option<i64>,
    /// Failed runs only.
    pub reason: Option<String>,
    /// Packed output.
    pub output: Option<Vec<u8>>,
    /// Packed error.
    pub error: Option<Vec<u8>>,
}

/// What happened to a run.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// It began.
    Start(Start),
    /// It ended.
    End(End),
}

impl RunEvent {
    /// The run.
    pub fn run_id(&self) -> &str {
        match self {
            Self::Start(start) => &start.run_id,
            Self::End(end) => &end.run_id,
        }
    }
}

/// One append, ready.
#[derive(Debug)]
pub struct PreparedAppend {
    /// Number of the stream.
    pub stream: i64,
    /// Whose it is; none where the store does not know the stream.
    pub owner: Option<Arc<Owner>>,
    /// The offset that must be the committed one.
    pub expected_offset: i64,
    /// Offset of the new position.
    pub offset: i64,
    /// First byte of the new position's file.
    pub file_start: i64,
    /// The new position.
    pub position: Position,
    /// The new carry.
    pub carry: Vec<u8>,
    /// Bytes lost before it, and when that was.
    pub gap: Option<(Gap, i64)>,
    /// What the stream says last, if it does.
    pub last_word: Option<LastWord>,
    /// What happened to runs, in order.
    pub events: Vec<RunEvent>,
    /// The lines.
    pub lines: Vec<SegmentLine>,
    /// Lines per hour and level.
    pub line_counts: BTreeMap<(i64, LogLevel), i64>,
}

/// The lines of one script in a batch.
#[derive(Debug)]
pub struct PreparedSegment {
    /// Number of the script.
    pub script_id: i64,
    /// Which appends of the batch have lines in it.
    pub members: Vec<usize>,
    /// The lines of all members.
    pub segment: Segment,
}

/// A batch of appends, ready.
#[derive(Debug, Default)]
pub struct Batch {
    /// The appends.
    pub appends: Vec<PreparedAppend>,
    /// Their lines.
    pub segments: Vec<PreparedSegment>,
}

impl Batch {
    /// Makes appends ready; `owners` are those of their streams, in the same order. Takes CPU time: not for the thread
    /// of an async task.
    pub fn prepare(
        appends: Vec<Append>,
        owners: Vec<Option<Arc<Owner>>>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let appends = appends
            .into_iter()
            .zip(owners)
            .map(|(append, owner)| prepare_append(append, owner, now))
            .collect::<Result<Vec<_>, _>>()?;
        let mut members: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (n, append) in appends.iter().enumerate().filter(|(_, a)| !a.lines.is_empty()) {
            if let Some(owner) = &append.owner {
                members.entry(owner.script_id).or_default().push(n);
            }
        }
        let mut batch = Self {
            appends,
            segments: Vec::new(),
        };
        for (script_id, members) in members {
            if let Some(segment) = batch.encode(&members)? {
                batch.segments.push(PreparedSegment {
                    script_id,
                    members,
                    segment,
                });
            }
        }
        Ok(batch)
    }

    /// How much is in it: lines and events of runs.
    pub fn items(&self) -> usize {
        self.appends
            .iter()
            .map(|append| append.lines.len() + append.events.len())
            .sum()
    }

    /// The lines of these appends as a segment.
    pub fn encode(&self, members: &[usize]) -> Result<Option<Segment>, StoreError> {
        let mut lines: Vec<LineRef<'_>> = members
            .iter()
            .filter_map(|&n| self.appends.get(n))
            .flat_map(|append| append.lines.iter().map(SegmentLine::as_ref))
            .collect();
        Ok(segment::encode(&mut lines)?)
    }
}

fn prepare_append(
    append: Append,
    owner: Option<Arc<Owner>>,
    now: Timestamp,
) -> Result<PreparedAppend, StoreError> {
    let stream = append.stream;
    let number = |offset: u64| {
        i64::try_from(offset)
            .map_err(|_| StoreError::Unusable(format!("offset {offset} of stream {stream} is too large")))
    };
    if append.position.offset < append.expected_offset {
        return Err(StoreError::Unusable(format!(
            "stream {stream} can not go back from offset {} to {}",
            append.expected_offset, append.position.offset
        )));
    }
    let (mut events, mut lines, mut line_counts) = (Vec::new(), Vec::new(), BTreeMap::new());
    for record in append.records {
        match record {
            Record::RunStarted(started) => events.push(RunEvent::Start(start(started))),
            Record::RunFinished(finished) => events.extend(end(finished).map(RunEvent::End)),
            Record::Line(new) => {
                let line = line(stream, new)?;
                *line_counts
                    .entry((hour_of(line.key.micros), line.level))
                    .or_insert(0) += 1;
                lines.push(line);
            }
            // Said by the append's last word.
            Record::RunnerStopped(_) => {}
        }
    }
    let time = lines.first().map_or(now.as_microsecond(), |line| line.key.micros);
    Ok(PreparedAppend {
        stream,
        owner,
        expected_offset: number(append.expected_offset)?,
        offset: number(append.position.offset)?,
        file_start: number(append.position.file_start)?,
        position: append.position,
        carry: append.carry,
        gap: append.gap.map(|gap| (gap, time)),
        last_word: append.last_word,
        events,
        lines,
        line_counts,
    })
}

fn start(started: RunStarted) -> Start {
    Start {
        run_id: started.run_id,
        executed_at: started.time.as_microsecond(),
        function: started.function,
        source_type: started.source_type.code(),
        source: started.source,
        traceparent: started.traceparent,
        input: started.input.map(|json| payload::pack(json.get())),
    }
}

/// The end as it is kept; none if the record does not speak of an end.
fn end(finished: RunFinished) -> Option<End> {
    let duration = finished.duration_micros.max(0);
    let finished_at = finished.time.as_microsecond();
    let success = match finished.status {
        RunStatus::Success => true,
        RunStatus::Failed => false,
        RunStatus::InProgress => return None,
    };
    Some(End {
        run_id: finished.run_id,
        finished_at,
        began_at: finished_at
            .saturating_sub(duration)
            .max(Timestamp::MIN.as_microsecond()),
        status: finished.status,
        response_time: success.then_some(duration),
        reason: finished
            .error
            .as_ref()
            .filter(|_| !success)
            .map(|e| e.reason.clone()),
        output: finished.output.map(|json| payload::pack(json.get())),
        error: finished
            .error
            .and_then(|error| serde_json::to_string(&error).ok())
            .map(|json| payload::pack(&json)),
    })
}

fn line(stream: i64, new: NewLine) -> Result<SegmentLine, StoreError> {
    let too_large = || {
        StoreError::Unusable(format!(
            "a line of stream {stream} lies beyond what can be numbered"
        ))
    };
    Ok(SegmentLine {
        key: LineKey {
            micros: new.time.as_microsecond(),
            id: LogId {
                stream,
                offset: i64::try_from(new.offset).map_err(|_| too_large())?,
                index: i32::try_from(new.index).map_err(|_| too_large())?,
            },
        },
        level: new.level,
        run_id: new.run_id,
        message: new.message,
        attributes: new.attributes,
    })
}
