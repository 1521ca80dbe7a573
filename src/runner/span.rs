//! A line of korelogger's as it arrives: one datagram, a span behind a letter.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::plain::text_record;

/// The largest datagram that korelogger sends is below this, in bytes.
pub const MAX_DATAGRAM: usize = 256 << 10;

/// A span that is fit to be printed.
#[derive(Debug)]
pub struct Span {
    json: Vec<u8>,
    /// The run that it names.
    run_id: Option<String>,
    /// The line's echo, if a mark for it follows in standard output.
    pub echo: Option<Echo>,
}

/// What the echo of a line says.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Echo {
    /// Id of the line.
    #[serde(rename = "log.meta.logid")]
    pub id: String,
    /// Level.
    #[serde(rename = "log.level")]
    pub level: String,
    /// Text.
    #[serde(rename = "log.message")]
    pub message: String,
}

/// Whose line a span says it is.
#[derive(Deserialize)]
struct Whose<'a> {
    #[serde(borrow, default)]
    run_id: Option<Cow<'a, str>>,
}

/// The run that a worker has and the one before, whose promises may log after its end. The worker's lines may name these and
/// no others: a script could put its words into the mouth of another run.
#[derive(Debug, Default)]
pub struct LastRuns([String; 2]);

impl LastRuns {
    /// The worker has a new run.
    pub fn begin(&mut self, run_id: &str) {
        self.0.rotate_left(1);
        let [_, last] = &mut self.0;
        run_id.clone_into(last);
    }

    /// The line to print: the span, or one that says it as a text where it names another run.
    pub fn line(&self, span: Span) -> Vec<u8> {
        match &span.run_id {
            Some(run_id) if !self.0.contains(run_id) => {
                text_record(Timestamp::now(), &String::from_utf8_lossy(&span.json))
            }
            _ => span.line(),
        }
    }
}

#[derive(Deserialize)]
struct Shape {
    attributes: Box<RawValue>,
    /// Makes a line a record of the runner's, which no script may write.
    #[serde(default)]
    scriptscope: Option<IgnoredAny>,
}

impl Span {
    /// Reads a datagram; none if it is no span, which only a script that plays with the socket can send.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (kind, json) = datagram.split_first()?;
        let shape: Shape = serde_json::from_slice(json).ok()?;
        // A record is one line.
        let is_line = memchr::memchr(b'\n', json).is_none();
        if !is_line || shape.scriptscope.is_some() || !json.starts_with(b"{\"name\":") {
            return None;
        }
        let run_id = whose(&shape).ok()?;
        let echo = match kind {
            b'E' => Some(serde_json::from_str(shape.attributes.get()).ok()?),
            b'N' => None,
            _ => return None,
        };
        let json = json.to_vec();
        Some(Self { json, run_id, echo })
    }

    /// Whether a line is a span that names no run.
    pub fn names_no_run(line: &[u8]) -> bool {
        let shape: Option<Shape> = serde_json::from_slice(line).ok();
        shape.is_some_and(|shape| matches!(whose(&shape), Ok(None)))
    }

    /// Reads a span that came with its mark, and its echo.
    pub fn marked(json: &[u8]) -> Option<(Self, Echo)> {
        let mut span = Self::parse(&[b"E", json].concat())?;
        let echo = span.echo.take()?;
        Some((span, echo))
    }

    /// Bytes of the span.
    pub fn len(&self) -> usize {
        self.json.len()
    }

    /// The span as a line.
    pub fn line(mut self) -> Vec<u8> {
        self.json.push(b'\n');
        self.json
    }
}

/// The run that a span names, if it names one; an error where that can not be told.
fn whose(shape: &Shape) -> Result<Option<String>, serde_json::Error> {
    let whose: Whose<'_> = serde_json::from_str(shape.attributes.get())?;
    Ok(whose.run_id.map(Cow::into_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_speaks_for_its_last_two_runs_alone() {
        let span = |run_id: &str| {
            let json = format!(r#"N{{"name":"x","attributes":{{"run_id":"{run_id}","log.message":"m"}}}}"#);
            Span::parse(json.as_bytes()).unwrap()
        };
        let mut run = LastRuns::default();
        for id in ["a", "b", "c"] {
            run.begin(id);
        }
        for id in ["b", "c"] {
            assert!(run.line(span(id)).starts_with(br#"{"name":"x""#), "{id}");
        }
        let text = String::from_utf8(run.line(span("a"))).unwrap();
        assert!(
            text.starts_with(r#"{"scriptscope":"run.output","stream""#),
            "{text}"
        );
        let nobody = Span::parse(br#"N{"name":"x","attributes":{"log.message":"m"}}"#).unwrap();
        assert!(run.line(nobody).starts_with(br#"{"name":"x""#));
        // What a lenient reader could understand otherwise.
        for wrong in [
            r#"N{"name":"x","attributes":{"run_id":"c","run_id":"a"}}"#,
            r#"N{"name":"x","attributes":{"run_id":"c","run\u005fid":"a"}}"#,
            r#"N{"name":"x","attributes":{},"attributes":{"run_id":"a"}}"#,
            r#"N{"name":"x","attributes":{"run_id":["a"]}}"#,
        ] {
            assert!(Span::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_span_is_a_line_and_anything_else_is_not_printed() {
        let json = r#"{"name":"gvisor_info_log","attributes":{"log.meta.logid":"a","log.level":"INFO","log.message":"x\ny"}}"#;
        let span = Span::parse(format!("E{json}").as_bytes()).unwrap();
        let echo = span.echo.as_ref().unwrap();
        assert_eq!((echo.level.as_str(), echo.message.as_str()), ("INFO", "x\ny"));
        assert_eq!(span.line(), format!("{json}\n").into_bytes());
        assert!(Span::parse(format!("N{json}").as_bytes()).unwrap().echo.is_none());
        let broken = json.replace(',', ",\n");
        for wrong in [
            "",
            "E",
            "Ex",
            "Q{}",
            "E{\"scriptscope\":\"run.finished\",\"attributes\":{}}",
            "N{\"name\":\"x\",\"scriptscope\":\"run.finished\",\"attributes\":{}}",
            "N{\"name\":\"x\",\"script\\u0073cope\":\"run.started\",\"attributes\":{}}",
            &format!("E{broken}"),
        ] {
            assert!(Span::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
