//! JSON objects printed over many lines, as OpenTelemetry's console exporter does by default.

use jiff::Timestamp;

const MAX_LINES: usize = 200;
const MAX_BYTES: usize = 256 << 10;

/// A line that may be part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldLine {
    pub offset: u64,
    pub time: Timestamp,
    pub text: Vec<u8>,
}

/// The lines of an object that has begun and not ended; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    lines: Vec<HeldLine>,
    bytes: usize,
}

/// What a line is to an object that has begun.
pub(super) enum Place {
    Inside,
    End,
    Outside,
}

impl Block {
    /// Whether a line begins an object over many lines.
    pub fn begins_with(text: &[u8]) -> bool {
        text.trim_ascii_end() == b"{"
    }

    pub fn from_lines(lines: Vec<HeldLine>) -> Option<Self> {
        let bytes = lines.iter().map(|l| l.text.len() + 1).sum();
        (!lines.is_empty()).then_some(Self { lines, bytes })
    }

    pub fn lines(&self) -> &[HeldLine] {
        &self.lines
    }

    pub fn into_lines(self) -> Vec<HeldLine> {
        self.lines
    }

    pub fn place(&self, text: &[u8]) -> Place {
        let inner = text.trim_ascii_start();
        let fits = self.lines.len() < MAX_LINES && self.bytes + text.len() < MAX_BYTES;
        // An object's first line inside is a key, so what is no JSON is let go at once.
        let plausible = self.lines.len() > 1 || inner.starts_with(b"\"");
        if !fits {
            Place::Outside
        } else if text.trim_ascii_end() == b"}" {
            Place::End
        } else if inner.len() < text.len() && plausible {
            Place::Inside
        } else {
            Place::Outside
        }
    }

    pub fn push(&mut self, line: HeldLine) {
        self.bytes += line.text.len() + 1;
        self.lines.push(line);
    }

    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.bytes);
        for line in &self.lines {
            text.extend_from_slice(&line.text);
            text.push(b'\n');
        }
        text
    }
}
