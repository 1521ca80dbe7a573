//! JSON that strangers wrote: bounded, repaired where a logger got the encoding wrong, never trusted.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::time;

/// Deeper nesting is cut from payloads, since readers of JSON refuse it (most at 128 levels).
const MAX_DEPTH: usize = 100;
/// What takes the place of a payload that is nested too deeply.
const TOO_DEEP: &str = r#""[cut: nested deeper than 100 levels]""#;

/// Parses `text`; where that fails, once more with invalid UTF-8 and unpaired surrogates replaced by U+FFFD.
pub(super) fn parse_lenient<T>(text: &[u8], mut parse: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    parse(text).or_else(|| {
        let repaired = replace_lone_surrogates(&String::from_utf8_lossy(text));
        (repaired.as_bytes() != text)
            .then(|| parse(repaired.as_bytes()))
            .flatten()
    })
}

/// Replaces `\uD800`-like escapes that have no partner.
fn replace_lone_surrogates(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match (surrogate(rest), rest.get(6..).and_then(surrogate)) {
            (Some(Half::High), Some(Half::Low)) => 12,
            (Some(_), _) => {
                out.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            // A backslash and what it escapes.
            (None, _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

enum Half {
    High,
    Low,
}

fn surrogate(text: &str) -> Option<Half> {
    let code = text.get(..6)?.strip_prefix("\\u")?;
    match u16::from_str_radix(code, 16).ok()? {
        0xD800..0xDC00 => Some(Half::High),
        0xDC00..0xE000 => Some(Half::Low),
        _ => None,
    }
}

/// Levels of nesting in valid JSON.
pub(super) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether JSON is nested more deeply than readers take.
pub(super) fn is_too_deep(json: &str) -> bool {
    // Each level takes two bytes, and a bracket to begin with.
    json.len() > 2 * MAX_DEPTH
        && memchr::memchr2_iter(b'{', b'[', json.as_bytes()).count() > MAX_DEPTH
        && depth(json) > MAX_DEPTH
}

/// A payload to keep; replaced where it is nested too deeply.
pub(super) fn payload(raw: Option<&RawValue>) -> Option<Box<RawValue>> {
    let raw = raw?;
    if is_too_deep(raw.get()) {
        return RawValue::from_string(TOO_DEEP.to_owned()).ok();
    }
    Some(raw.to_owned())
}

/// Keeps `null` apart from absence.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A name or id: at most `limit` bytes, without NUL (which databases refuse).
pub(super) fn field(text: &str, limit: usize) -> String {
    let cut = cut_at(text, limit);
    if memchr::memchr(0, cut.as_bytes()).is_some() {
        cut.replace('\0', "\u{FFFD}")
    } else {
        cut.to_owned()
    }
}

/// The beginning of `text`, at most `limit` bytes, ending between two characters.
fn cut_at(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Text of a line, without a line end.
pub(super) fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// The time that a record claims, if it makes sense next to `printed`, the time at which the runtime took the line:
/// a time of the far past or the future would be deleted at once or never.
pub(super) fn claimed_time(text: &str, printed: Timestamp) -> Option<Timestamp> {
    const EARLIEST_SECOND: i64 = 946_684_800; // 2000-01-01
    const AHEAD_SECONDS: i64 = 3_600;
    let time = time::parse(text.as_bytes())?;
    let sane = EARLIEST_SECOND..=printed.as_second().saturating_add(AHEAD_SECONDS);
    Some(if sane.contains(&time.as_second()) {
        time
    } else {
        printed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_and_bad_utf8_are_replaced_and_pairs_kept() {
        let text = |json: &[u8]| parse_lenient(json, |j| serde_json::from_slice::<String>(j).ok());
        assert_eq!(text(br#""a\ud83d\ude00b""#).as_deref(), Some("a\u{1F600}b"));
        assert_eq!(text(br#""a\ud83db""#).as_deref(), Some("a\u{FFFD}b"));
        assert_eq!(text(br#""a\ude00\ud83d""#).as_deref(), Some("a\u{FFFD}\u{FFFD}"));
        assert_eq!(text(br#""\\ud83d \ud83d""#).as_deref(), Some("\\ud83d \u{FFFD}"));
        assert_eq!(text(b"\"a\xffb\"").as_deref(), Some("a\u{FFFD}b"));
        assert_eq!(text(b"\"a\xffb\\"), None);
    }

    #[test]
    fn depth_ignores_brackets_in_strings() {
        assert_eq!(depth(r#"{"a":["[[[\"[[",[1]]}"#), 3);
        assert_eq!(depth("7"), 0);
    }

    #[test]
    fn fields_are_cut_between_characters() {
        assert_eq!(field("grün", 3), "gr");
        assert_eq!(field("a\0b", 10), "a\u{FFFD}b");
    }
}
