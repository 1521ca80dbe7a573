//! Appends made ready before any lock is taken: payloads compressed, lines encoded, everything checked that can be.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{
    Append, AppendOutcome, CloseRuns, Gap, LastWord, PodRecord, StoreError, payload, run_changes::StoredRun,
};
use crate::{
    ingest::{
        lines::Lines,
        record::{Event, RunFinished, RunStarted},
        wire::{Position, StreamKey},
    },
    model::{LogId, LogLevel, RunError, RunStatus},
    segment::{self, LineKey, LineRef, Segment},
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
    /// The lines; all can be numbered.
    pub lines: Lines,
    /// Lines per hour and level.
    pub line_counts: BTreeMap<(i64, LogLevel), i64>,
}

impl PreparedAppend {
    /// Whether it brings anything besides a new position.
    pub fn is_visible(&self) -> bool {
        !(self.lines.is_empty() && self.events.is_empty() && self.gap.is_none())
    }
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

    /// Its segments, each with the number of its script, with the lines of those appends only (by their places) that are
    /// stored: a segment with lines of another is written anew without them.
    pub fn segments_of(&self, stored: &[bool]) -> Result<Vec<(i64, Cow<'_, Segment>)>, StoreError> {
        let is_in = |n: &usize| stored.get(*n).copied().unwrap_or(false);
        let mut found = Vec::with_capacity(self.segments.len());
        for prepared in &self.segments {
            if prepared.members.iter().all(is_in) {
                found.push((prepared.script_id, Cow::Borrowed(&prepared.segment)));
                continue;
            }
            let members: Vec<usize> = prepared.members.iter().copied().filter(|n| is_in(n)).collect();
            if let Some(segment) = self.encode(&members)? {
                found.push((prepared.script_id, Cow::Owned(segment)));
            }
        }
        Ok(found)
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
        let members = members.iter().filter_map(|&n| self.appends.get(n));
        let count = members.clone().map(|append| append.lines.len()).sum();
        let mut lines: Vec<LineRef<'_>> = Vec::with_capacity(count);
        let mut texts: Vec<Bytes> = Vec::new();
        for append in members {
            let before = u32::try_from(texts.len()).unwrap_or(u32::MAX);
            lines.extend(append.line_refs(before));
            texts.extend(append.lines.texts().cloned());
        }
        Ok(segment::encode_shared(&lines, &texts)?)
    }
}

impl PreparedAppend {
    /// The lines, where the texts of others come `before` theirs.
    fn line_refs(&self, before: u32) -> impl Iterator<Item = LineRef<'_>> {
        self.lines.iter().map(move |line| LineRef {
            key: LineKey {
                micros: line.micros,
                id: LogId {
                    stream: self.stream,
                    // Both were found to fit when the append was made ready.
                    offset: i64::try_from(line.offset).unwrap_or(i64::MAX),
                    index: i32::try_from(line.index).unwrap_or(i32::MAX),
                },
            },
            level: line.level,
            run_id: line.run_id,
            message: line.message,
            source: line.source.and_then(|source| source.checked_add(before)),
            attributes: line.attributes,
        })
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
    let (records, lines) = append.records.into_parts();
    let line_counts = count_lines(stream, &lines)?;
    let events = records.filter_map(|event| match event {
        Event::Started(started) => Some(RunEvent::Start(start(started))),
        Event::Finished(finished) => end(finished).map(RunEvent::End),
    });
    let events = events.collect();
    let time = lines
        .iter()
        .next()
        .map_or(now.as_microsecond(), |line| line.micros);
    let mut position = append.position;
    position.file = storable(position.file);
    Ok(PreparedAppend {
        stream,
        owner,
        expected_offset: number(append.expected_offset)?,
        offset: number(position.offset)?,
        file_start: number(position.file_start)?,
        position,
        carry: append.carry,
        gap: append.gap.map(|gap| {
            let reason = storable(gap.reason);
            (Gap { reason, ..gap }, time)
        }),
        last_word: append.last_word.map(|word| match word {
            LastWord::RunnerStopped { token } => LastWord::RunnerStopped {
                token: storable(token),
            },
            LastWord::EndOfFiles => LastWord::EndOfFiles,
        }),
        events,
        lines,
        line_counts,
    })
}

/// A text as every database can keep it: Postgres has no NUL in its texts, so none has.
pub fn storable(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

/// What went in or came out; or that it did, and was too large.
fn packed(json: Option<Box<RawValue>>, truncated: bool) -> Option<Vec<u8>> {
    match json {
        Some(json) => Some(payload::pack(json.get())),
        None => truncated.then(payload::truncated),
    }
}

fn start(started: RunStarted) -> Start {
    Start {
        run_id: storable(started.run_id),
        executed_at: started.time.as_microsecond(),
        function: storable(started.function),
        source_type: started.source_type.code(),
        source: storable(started.source),
        traceparent: started.traceparent.map(storable),
        input: packed(started.input, started.input_truncated),
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
        run_id: storable(finished.run_id),
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
            .map(|e| storable(e.reason.clone())),
        output: packed(finished.output, finished.output_truncated),
        error: finished
            .error
            .and_then(|error| serde_json::to_string(&error).ok())
            .map(|json| payload::pack(&json)),
    })
}

/// Lines per hour and level; fails where a line can not be numbered.
fn count_lines(stream: i64, lines: &Lines) -> Result<BTreeMap<(i64, LogLevel), i64>, StoreError> {
    let mut counts = BTreeMap::new();
    // Nearly all lines are of the hour and level of the line before.
    let mut current: Option<(i64, LogLevel, i64)> = None;
    for line in lines.iter() {
        if i64::try_from(line.offset).is_err() || i32::try_from(line.index).is_err() {
            return Err(StoreError::Unusable(format!(
                "a line of stream {stream} lies beyond what can be numbered"
            )));
        }
        let hour = hour_of(line.micros);
        match &mut current {
            Some((of, level, count)) if (*of, *level) == (hour, line.level) => *count += 1,
            _ => {
                if let Some((hour, level, count)) = current.replace((hour, line.level, 1)) {
                    *counts.entry((hour, level)).or_insert(0) += count;
                }
            }
        }
    }
    if let Some((hour, level, count)) = current {
        *counts.entry((hour, level)).or_insert(0) += count;
    }
    Ok(counts)
}

/// About how much memory appends take, in KiB; never more than there is room for.
pub fn kib(appends: &[Append], room: u32) -> u32 {
    let bytes: usize = appends
        .iter()
        .map(|append| append.carry.len() + append.records.bytes())
        .sum();
    u32::try_from(bytes.div_ceil(1024)).map_or(room, |kib| kib.clamp(1, room))
}

/// What becomes of an append, given how far each stream is committed; notes the new position.
pub fn decide(append: &PreparedAppend, positions: &mut HashMap<i64, (i64, Position)>) -> AppendOutcome {
    match positions.get_mut(&append.stream) {
        Some((offset, _)) if *offset == append.expected_offset && append.owner.is_some() => {
            let position = append.position.clone();
            positions.insert(append.stream, (append.offset, position.clone()));
            AppendOutcome::Committed(position)
        }
        Some((_, position)) if append.owner.is_some() => AppendOutcome::Conflict(position.clone()),
        _ => AppendOutcome::Unknown,
    }
}

/// The first whole microsecond that is not before `time`.
pub fn micros_up(time: Timestamp) -> i64 {
    let floor = time.as_microsecond();
    floor + i64::from(Timestamp::from_microsecond(floor).is_ok_and(|floor| floor < time))
}

/// Runs that a pod left in progress, with the end that is forced on each.
pub fn forced_ends(
    open: impl IntoIterator<Item = (String, StoredRun)>,
    close_runs: &CloseRuns,
) -> (Vec<StoredRun>, Vec<End>) {
    let ended = open.into_iter().map(|(id, run)| {
        let end = forced_end(id, &run, close_runs);
        (run, end)
    });
    ended.unzip()
}

/// The end of a run that a pod left in progress.
fn forced_end(run_id: String, run: &StoredRun, close_runs: &CloseRuns) -> End {
    let error = RunError {
        reason: close_runs.reason.clone(),
        kind: None,
        message: close_runs.message.clone(),
        traceback: None,
    };
    End {
        run_id,
        // The clocks of two machines: a run never ends before it began.
        finished_at: close_runs.time.as_microsecond().max(run.executed_at),
        began_at: run.executed_at,
        status: RunStatus::Failed,
        response_time: None,
        reason: Some(storable(close_runs.reason.clone())),
        output: None,
        error: serde_json::to_string(&error)
            .ok()
            .map(|json| payload::pack(&json)),
    }
}

/// Whether a stream is what the registered pod prints as the script.
pub fn belongs(key: &StreamKey, pod: &PodRecord) -> bool {
    key.container == pod.container && key.pod == pod.name && key.namespace == pod.script.namespace
}
