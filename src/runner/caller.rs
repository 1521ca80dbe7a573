//! Who calls, from the headers of a call.

use axum::http::HeaderMap;
use uuid::Uuid;

use crate::model::SourceType;

/// Header in which a workload names itself.
pub const SOURCE: &str = "x-scriptscope-source";
/// Header that marks a trial: `Test`.
pub const SOURCE_TYPE: &str = "x-scriptscope-source-type";
/// Source of a caller that has not named itself.
pub const ANONYMOUS: &str = "anonymous";
const MAX_SOURCE: usize = 200;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name.
    pub source: String,
    /// Kind.
    pub source_type: SourceType,
    /// W3C trace context; always valid.
    pub traceparent: String,
}

impl Caller {
    /// Reads the headers of a call.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()));
        let source = text(SOURCE).map(|s| clean(&s)).filter(|s| !s.is_empty());
        let is_test =
            text(SOURCE_TYPE).is_some_and(|t| t.trim().eq_ignore_ascii_case(SourceType::Test.as_str()));
        let source_type = match &source {
            _ if is_test => SourceType::Test,
            Some(_) => SourceType::Tool,
            None => SourceType::Api,
        };
        let traceparent = text("traceparent")
            .map(|t| t.trim().to_owned())
            .filter(|t| is_traceparent(t));
        Self {
            source: source.unwrap_or_else(|| ANONYMOUS.to_owned()),
            source_type,
            traceparent: traceparent.unwrap_or_else(new_traceparent),
        }
    }
}

fn clean(name: &str) -> String {
    let name: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_SOURCE)
        .collect();
    name.trim().to_owned()
}

/// Whether the text is a `traceparent` of version 00, as <https://www.w3.org/TR/trace-context/> has it.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else {
        return false;
    };
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    *version == "00" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2) && !zero(trace) && !zero(parent)
}

fn new_traceparent() -> String {
    let parent = Uuid::now_v7().as_u64_pair().1;
    format!("00-{}-{parent:016x}-01", Uuid::now_v7().simple())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn caller(headers: &[(&'static str, &[u8])]) -> Caller {
        let pairs = headers
            .iter()
            .map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_bytes(v).unwrap()));
        Caller::from_headers(&pairs.collect())
    }

    #[test]
    fn a_caller_is_what_its_headers_say() {
        let anonymous = caller(&[]);
        assert_eq!(
            (anonymous.source.as_str(), anonymous.source_type),
            (ANONYMOUS, SourceType::Api)
        );
        let tool = caller(&[(SOURCE, b" billing\t\xff ")]);
        assert_eq!(
            (tool.source.as_str(), tool.source_type),
            ("billing\u{fffd}", SourceType::Tool)
        );
        let test = caller(&[(SOURCE_TYPE, b"test")]);
        assert_eq!(
            (test.source.as_str(), test.source_type),
            (ANONYMOUS, SourceType::Test)
        );
        assert_eq!(caller(&[(SOURCE, &[b'x'; 500])]).source.len(), 200);
        assert_eq!(caller(&[(SOURCE, b"  ")]).source_type, SourceType::Api);
    }

    #[test]
    fn a_valid_trace_goes_on_and_another_is_replaced() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(caller(&[("traceparent", valid.as_bytes())]).traceparent, valid);
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            let made = caller(&[("traceparent", wrong.as_bytes())]).traceparent;
            assert_ne!(made, wrong);
            assert!(is_traceparent(&made), "{made}");
        }
    }
}
