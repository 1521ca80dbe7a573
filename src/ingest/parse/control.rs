//! The runner's records: one JSON object a line with the key `scriptscope`.

use std::{borrow::Cow, sync::LazyLock};

use jiff::Timestamp;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{claimed_time, field, parse_lenient, payload, present, without_line_end};
use crate::{
    ingest::{
        lines::Line,
        record::{Record, Records, RunFinished, RunStarted, RunnerStopped},
    },
    model::{LogLevel, RunError, RunStatus, SourceType},
};

/// Longest run id kept, in bytes.
pub(super) const MAX_RUN_ID: usize = 128;
const MAX_NAME: usize = 256;
const MAX_TOKEN: usize = 256;
const MAX_TRACEPARENT: usize = 128;
const MAX_ERROR_MESSAGE: usize = 64 << 10;
const MAX_TRACEBACK: usize = 256 << 10;

/// Where a line stands and when the runtime took it.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub offset: u64,
    pub time: Timestamp,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    scriptscope: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Started<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    run_id: Cow<'a, str>,
    #[serde(borrow)]
    function: Cow<'a, str>,
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    source_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(default)]
    input_truncated: bool,
}

#[derive(Deserialize)]
struct Output<'a> {
    /// Absent of lines that were printed outside any run.
    #[serde(borrow, default)]
    run_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    lines: Vec<(Text<'a>, Text<'a>)>,
}

/// Within other types serde borrows a `Cow` only when told so at the `Cow` itself.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Finished<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    run_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    duration_us: i64,
    #[serde(borrow, default, deserialize_with = "present")]
    output: Option<&'a RawValue>,
    #[serde(default)]
    output_truncated: bool,
    #[serde(default)]
    error: Option<RunError>,
}

#[derive(Deserialize)]
struct Stopped<'a> {
    #[serde(borrow, default)]
    token: Cow<'a, str>,
}

/// Whether a line may be a record, at the price of a search.
pub(super) fn is_candidate(text: &[u8]) -> bool {
    static KEY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(br#""scriptscope""#));
    // As the runner writes it, or with the key anywhere.
    text.starts_with(br#"{"scriptscope""#) || (text.starts_with(b"{") && KEY.find(text).is_some())
}

/// Whether a record says that a runner writes what follows.
pub(super) fn begins_runner(text: &[u8]) -> bool {
    text.starts_with(br#"{"scriptscope":"runner.started""#)
}

/// Adds what a line says; of one that only the runner's own machinery is interested in, nothing. False if the line is not a
/// record, or one that is not as it should be.
pub(super) fn parse(text: &[u8], origin: Origin, records: &mut Records) -> bool {
    parse_lenient(text, |text| parse_strict(text, origin, records)).is_some()
}

fn parse_strict(text: &[u8], origin: Origin, records: &mut Records) -> Option<()> {
    // Once for the whole line, instead of string by string.
    let text = str::from_utf8(text).ok()?;
    let kind = match Kind::at_the_front(text) {
        Some(kind) => Cow::Borrowed(kind),
        None => serde_json::from_str::<Kind<'_>>(text).ok()?.scriptscope,
    };
    match &*kind {
        "run.started" => records.push(started(serde_json::from_str(text).ok()?, origin)?),
        "run.output" => output(serde_json::from_str(text).ok()?, origin, records)?,
        "run.finished" => records.push(finished(serde_json::from_str(text).ok()?, origin)?),
        "runner.stopped" => records.push(stopped(&serde_json::from_str(text).ok()?)?),
        other if other.starts_with("runner.") => {}
        _ => return None,
    }
    Some(())
}

impl Kind<'_> {
    /// The kind of a record as the runner writes it, without parsing the whole line for it.
    fn at_the_front(text: &str) -> Option<&'static str> {
        let rest = text.strip_prefix(r#"{"scriptscope":""#)?;
        ["run.started", "run.output", "run.finished"]
            .into_iter()
            .find(|kind| rest.strip_prefix(kind).is_some_and(|rest| rest.starts_with('"')))
    }
}

fn started(record: Started<'_>, origin: Origin) -> Option<Record> {
    Some(Record::RunStarted(RunStarted {
        run_id: run_id(&record.run_id)?,
        time: claimed_time(&record.time, origin.time)?,
        function: field(&record.function, MAX_NAME),
        source_type: match record.source_type {
            Some(name) => name.parse().ok()?,
            None => SourceType::Api,
        },
        source: record.source.map(|s| field(&s, MAX_NAME)).unwrap_or_default(),
        traceparent: record.traceparent.map(|t| field(&t, MAX_TRACEPARENT)),
        input: payload(record.input),
        input_truncated: record.input_truncated,
    }))
}

fn output(record: Output<'_>, origin: Origin, records: &mut Records) -> Option<()> {
    let level = match &*record.stream {
        "stdout" => LogLevel::Stdout,
        "stderr" => LogLevel::Stderr,
        _ => return None,
    };
    let run_id = match record.run_id {
        Some(id) => Some(run_id(&id)?),
        None => None,
    };
    for ((Text(time), Text(text)), index) in record.lines.iter().zip(0_u32..) {
        records.lines.push(&Line {
            offset: origin.offset,
            index,
            micros: claimed_time(time, origin.time)
                .unwrap_or(origin.time)
                .as_microsecond(),
            level,
            run_id: run_id.as_deref(),
            message: without_line_end(text),
            source: None,
            attributes: None,
        });
    }
    Some(())
}

fn finished(record: Finished<'_>, origin: Origin) -> Option<Record> {
    let status = match &*record.status {
        "Success" => RunStatus::Success,
        "Failed" => RunStatus::Failed,
        _ => return None,
    };
    if record.duration_us < 0 {
        return None;
    }
    // A failed run returns nothing; a `null` there is no result.
    let output = record
        .output
        .filter(|raw| status == RunStatus::Success || raw.get() != "null");
    Some(Record::RunFinished(RunFinished {
        run_id: run_id(&record.run_id)?,
        time: claimed_time(&record.time, origin.time)?,
        status,
        duration_micros: record.duration_us,
        output: payload(output),
        output_truncated: record.output_truncated,
        error: record.error.map(bounded),
    }))
}

fn stopped(record: &Stopped<'_>) -> Option<Record> {
    let token = record.token.to_string();
    (token.len() <= MAX_TOKEN).then_some(Record::RunnerStopped(RunnerStopped { token }))
}

/// A run's id as it is kept; none for the empty one.
pub(super) fn run_id(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| field(text, MAX_RUN_ID))
}

fn bounded(error: RunError) -> RunError {
    RunError {
        reason: field(&error.reason, MAX_NAME),
        kind: error.kind.map(|kind| field(&kind, MAX_NAME)),
        message: field(&error.message, MAX_ERROR_MESSAGE),
        traceback: error.traceback.map(|text| field(&text, MAX_TRACEBACK)),
    }
}
