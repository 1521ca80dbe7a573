//! korelogger's spans, in the shape that OpenTelemetry's console exporter prints.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    control::{self, Origin},
    json::{claimed_time, is_too_deep, line_text, parse_lenient},
};
use crate::{ingest::record::NewLine, model::LogLevel};

/// A log line that a span carries.
pub(super) struct SpanLine {
    pub line: NewLine,
    /// What korelogger prints beside the span: `LEVEL :: message`.
    pub echo: String,
}

#[derive(Deserialize)]
struct Span<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    start_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    attributes: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

/// Whether a line may be a span, at the price of a search.
pub(super) fn is_candidate(text: &[u8]) -> bool {
    text.starts_with(b"{") && memchr::memmem::find(text, br#""log.message""#).is_some()
}

/// The log line in a span; none if the text is anything else.
pub(super) fn parse(text: &[u8], origin: Origin) -> Option<SpanLine> {
    parse_lenient(text, |text| parse_strict(text, origin))
}

fn parse_strict(text: &[u8], origin: Origin) -> Option<SpanLine> {
    let span: Span<'_> = serde_json::from_slice(text).ok()?;
    let named = span
        .name
        .as_deref()
        .and_then(|name| name.strip_prefix("gvisor_")?.strip_suffix("_log"));
    let mut attributes = span.attributes;
    let message = string(attributes.remove("log.message")?)?;
    // The level's own name stands in for a missing `log.level`: `gvisor_error_log`.
    let level_name = match attributes.remove("log.level") {
        Some(raw) => string(raw)?.into_owned(),
        None => named?.to_ascii_uppercase(),
    };
    let run_id = attributes
        .get("run_id")
        .and_then(|raw| control::run_id(&string(raw)?));
    if run_id.is_some() {
        attributes.remove("run_id");
    }
    let attributes = (!attributes.is_empty())
        .then(|| serde_json::to_string(&attributes).ok())
        .flatten()
        .filter(|json| !is_too_deep(json));
    let echo = format!("{level_name} :: {message}");
    Some(SpanLine {
        line: NewLine {
            offset: origin.offset,
            index: 0,
            time: span
                .start_time
                .and_then(|text| claimed_time(&text, origin.time))
                .unwrap_or(origin.time),
            level: level(&level_name),
            run_id,
            message: line_text(message),
            attributes,
        },
        echo,
    })
}

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    // A bare `Cow` would always be owned: serde borrows only into fields.
    serde_json::from_str::<&str>(raw.get())
        .map(Cow::Borrowed)
        .or_else(|_| serde_json::from_str::<String>(raw.get()).map(Cow::Owned))
        .ok()
}

fn level(name: &str) -> LogLevel {
    let is = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n));
    if is(&["DEBUG", "TRACE"]) {
        LogLevel::Debug
    } else if is(&["WARNING", "WARN"]) {
        LogLevel::Warning
    } else if is(&["ERROR", "CRITICAL", "FATAL"]) {
        LogLevel::Error
    } else {
        LogLevel::Info
    }
}
