//! A line of korelogger's as it arrives: one datagram, a span behind a letter.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// The largest datagram that korelogger sends is below this, in bytes.
pub const MAX_DATAGRAM: usize = 256 << 10;

/// A span that is fit to be printed.
#[derive(Debug)]
pub struct Span {
    json: Vec<u8>,
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
        let echo = match kind {
            b'E' => Some(serde_json::from_str(shape.attributes.get()).ok()?),
            b'N' => None,
            _ => return None,
        };
        let json = json.to_vec();
        Some(Self { json, echo })
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

#[cfg(test)]
mod tests {
    use super::*;

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
