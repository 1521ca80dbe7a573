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
/// What a `tracestate` may have, by the standard.
const MAX_TRACESTATE: usize = 512;
const MAX_TRACESTATE_MEMBERS: usize = 32;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name.
    pub source: String,
    /// Kind.
    pub source_type: SourceType,
    /// W3C trace context; always valid.
    pub traceparent: String,
    /// What other tracing systems have added to it.
    pub tracestate: Option<String>,
}

impl Caller {
    /// Reads the headers of a call; `key` is the name of the API key that it showed.
    pub fn of(headers: &HeaderMap, key: Option<&str>) -> Self {
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
        // It says something about the trace it came with, and about no other.
        let tracestate = traceparent.as_ref().and_then(|_| tracestate(headers));
        let source = source.or_else(|| key.map(clean));
        Self {
            source: source.unwrap_or_else(|| ANONYMOUS.to_owned()),
            source_type,
            traceparent: traceparent.unwrap_or_else(new_traceparent),
            tracestate,
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

/// The `tracestate` headers as one. What is too long or no `key=value` is left out as a whole.
fn tracestate(headers: &HeaderMap) -> Option<String> {
    let texts: Result<Vec<&str>, _> = headers.get_all("tracestate").iter().map(|v| v.to_str()).collect();
    let members: Vec<&str> = texts
        .ok()?
        .into_iter()
        .flat_map(|text| text.split(','))
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
        .collect();
    let is_member = |member: &&str| {
        member
            .split_once('=')
            .is_some_and(|(key, value)| !key.is_empty() && !value.is_empty() && !value.contains('='))
    };
    let state = members.join(",");
    let fits = members.len() <= MAX_TRACESTATE_MEMBERS && state.len() <= MAX_TRACESTATE;
    (!state.is_empty() && fits && members.iter().all(is_member)).then_some(state)
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
        Caller::of(&pairs.collect(), None)
    }

    #[test]
    fn a_key_is_the_source_of_a_caller_that_does_not_name_itself() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let pairs = headers
                .iter()
                .map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v)));
            let caller = Caller::of(&pairs.collect(), Some("partner"));
            (caller.source, caller.source_type)
        };
        assert_eq!(of(&[]), ("partner".into(), SourceType::Api));
        assert_eq!(of(&[(SOURCE, "billing")]), ("billing".into(), SourceType::Tool));
        assert_eq!(of(&[(SOURCE_TYPE, "Test")]), ("partner".into(), SourceType::Test));
    }

    #[test]
    fn a_trace_keeps_its_state_and_another_states_are_left_out() {
        let valid = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_slice();
        let state = |states: &[&'static [u8]], parent| {
            let mut headers = vec![("traceparent", parent)];
            headers.extend(states.iter().map(|state| ("tracestate", *state)));
            let pairs = headers
                .iter()
                .map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_bytes(v).unwrap()));
            let mut map = HeaderMap::new();
            for (name, value) in pairs.collect::<Vec<(axum::http::HeaderName, HeaderValue)>>() {
                map.append(name, value);
            }
            Caller::of(&map, None).tracestate
        };
        assert_eq!(
            state(&[b"a=1, b@c=2", b"d=3"], valid).as_deref(),
            Some("a=1,b@c=2,d=3")
        );
        assert_eq!(state(&[b"a=1"], b"none"), None, "of no trace");
        for wrong in [
            b"a".as_slice(),
            b"=1",
            b"a=",
            b" , ",
            b"a=1=2",
            &[b'x'; 600],
            b"a=\xff",
        ] {
            assert_eq!(state(&[wrong], valid), None, "{wrong:?}");
        }
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
