//! korelogger's spans, in the shape that OpenTelemetry's console exporter prints.

use std::{borrow::Cow, fmt, sync::LazyLock};

use memchr::memmem::Finder;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    control::{self, Origin},
    json::{claimed_time, is_too_deep, parse_lenient, without_line_end},
};
use crate::{ingest::lines::Line, model::LogLevel};

/// Room for the attributes that a span mostly has.
const USUAL_BYTES: usize = 512;

/// A log line that a span carries.
pub(super) struct SpanLine<'a> {
    pub line: Line<'a>,
    /// What korelogger prints beside the span: level and message, as they are in the span.
    pub echo: (&'a str, &'a str),
}

#[derive(Deserialize)]
struct Span<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    start_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    attributes: Attributes<'a>,
}

/// A span's attributes.
#[derive(Default)]
struct Attributes<'a> {
    message: Option<&'a RawValue>,
    level: Option<&'a RawValue>,
    run_id: Option<&'a RawValue>,
    /// All others as they were written: the members of a JSON object, each behind a comma.
    others: String,
}

impl<'de: 'a, 'a> Deserialize<'de> for Attributes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AttributesVisitor)
    }
}

struct AttributesVisitor;

impl<'de> Visitor<'de> for AttributesVisitor {
    type Value = Attributes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the attributes of a span")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Attributes {
            others: String::with_capacity(USUAL_BYTES),
            ..Attributes::default()
        };
        // As raw text, so that a name goes into `others` as it was written.
        while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            match string(name).as_deref() {
                Some("log.message") => found.message = Some(value),
                Some("log.level") => found.level = Some(value),
                Some("run_id") => found.run_id = Some(value),
                _ => found.add(name, value),
            }
        }
        Ok(found)
    }
}

impl Attributes<'_> {
    fn add(&mut self, name: &RawValue, value: &RawValue) {
        let (name, value) = (name.get(), value.get());
        self.others.push(',');
        self.others.push_str(name);
        self.others.push(':');
        self.others.push_str(value);
    }
}

/// Whether a line may be a span, at the price of a search.
pub(super) fn is_candidate(text: &[u8]) -> bool {
    static KEY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(br#""log.message""#));
    text.starts_with(b"{") && KEY.find(text).is_some()
}

/// Shows the log line in a span to `take`; says whether the text was one.
pub(super) fn read(text: &[u8], origin: Origin, mut take: impl FnMut(&SpanLine<'_>)) -> bool {
    parse_lenient(text, |text| read_strict(text, origin, &mut take)).is_some()
}

fn read_strict(text: &[u8], origin: Origin, take: &mut impl FnMut(&SpanLine<'_>)) -> Option<()> {
    let text = std::str::from_utf8(text).ok()?;
    let span: Span<'_> = serde_json::from_str(text).ok()?;
    let named = span
        .name
        .as_deref()
        .and_then(|name| name.strip_prefix("gvisor_")?.strip_suffix("_log"));
    let mut attributes = span.attributes;
    let message = string(attributes.message?)?;
    // The level's own name stands in for a missing `log.level`: `gvisor_error_log`.
    let level_name = match attributes.level {
        Some(raw) => string(raw)?,
        None => Cow::Owned(named?.to_ascii_uppercase()),
    };
    let run_id = attributes.run_id.and_then(|raw| control::run_id(&string(raw)?));
    if let (None, Some(raw)) = (&run_id, attributes.run_id) {
        // No id of a run, so an attribute like others.
        attributes.others.push_str(",\"run_id\":");
        attributes.others.push_str(raw.get());
    }
    let others = (!attributes.others.is_empty()).then(|| {
        attributes.others.replace_range(..1, "{");
        attributes.others.push('}');
        attributes.others
    });
    let time = span
        .start_time
        .and_then(|text| claimed_time(&text, origin.time))
        .unwrap_or(origin.time);
    take(&SpanLine {
        line: Line {
            offset: origin.offset,
            index: 0,
            micros: time.as_microsecond(),
            level: level(&level_name),
            run_id: run_id.as_deref(),
            message: without_line_end(&message),
            source: None,
            attributes: others.as_deref().filter(|json| !is_too_deep(json)),
        },
        echo: (&level_name, &message),
    });
    Some(())
}

/// The string that a JSON value is.
fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    // It is valid JSON already, so without a backslash it is what it looks like.
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw.get()).map(Cow::Owned).ok()
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
