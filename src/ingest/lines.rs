//! Log lines by the hundred thousand: a row of numbers each, and their texts where they were received or, where they do
//! not stand there as they are, one behind the other. So a line costs no allocation of its own, and mostly no copy.

use bytes::Bytes;
use bytestring::ByteString;
use jiff::Timestamp;

use super::record::NewLine;
use crate::model::LogLevel;

/// Bytes of a line in a log file, about.
const USUAL_BYTES: usize = 128;

/// Lines in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    rows: Vec<Row>,
    /// What was received and has messages in it.
    received: Vec<ByteString>,
    /// What is being read, until a message is found in it.
    arriving: Option<ByteString>,
    /// Whether what is being read is the last of `received`.
    is_shared: bool,
    /// Attributes, run ids and the other messages.
    text: String,
}

#[derive(Clone, Debug)]
struct Row {
    offset: u64,
    micros: i64,
    index: u32,
    level: LogLevel,
    /// Place of the message's text among what was received, or [`OWN`].
    source: u32,
    message: Span,
    /// Empty for none.
    attributes: Span,
    /// Empty for none.
    run_id: Span,
}

/// For a message that lies in the lines' own text.
const OWN: u32 = u32::MAX;

/// Part of a text. Those of a batch have a few MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(start: usize, end: usize) -> Self {
        let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            start: number(start),
            end: number(end),
        }
    }

    fn of_text(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// A line of [`Lines`]; the fields are those of [`NewLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Offset in the stream of the record the line is from.
    pub offset: u64,
    /// Place of the line within the record.
    pub index: u32,
    /// When it was printed, microseconds since the epoch.
    pub micros: i64,
    /// Level.
    pub level: LogLevel,
    /// Run it belongs to.
    pub run_id: Option<&'a str>,
    /// Text, without a line end.
    pub message: &'a str,
    /// Which of [`Lines::texts`] the message is part of.
    pub source: Option<u32>,
    /// Attributes of a korelogger span beyond those above, as a JSON object.
    pub attributes: Option<&'a str>,
}

impl Lines {
    /// Makes room for texts of so many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
    }

    /// What is read from now on, in which the next messages may lie; and makes room for as many lines as it mostly has.
    /// What is no text is not kept.
    pub fn receive(&mut self, received: &Bytes) {
        self.arriving = ByteString::try_from(received.clone()).ok();
        self.is_shared = false;
        if self.arriving.is_none() {
            self.text.reserve(received.len());
        }
        self.rows.reserve(received.len() / USUAL_BYTES);
    }

    /// What was read last is over.
    pub fn end_of_received(&mut self) {
        self.arriving = None;
        self.is_shared = false;
    }

    /// Texts in which messages lie.
    pub fn texts(&self) -> impl Iterator<Item = &Bytes> {
        self.received.iter().map(ByteString::as_bytes)
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory that the lines take, bytes.
    pub fn bytes(&self) -> usize {
        let received: usize = self.received.iter().map(|text| text.len()).sum();
        received + self.text.len() + self.rows.len() * size_of::<Row>()
    }

    /// Adds a line. An empty run id or attribute text counts as none.
    pub fn push(&mut self, line: &Line<'_>) {
        let run_id = self.run_id(line.run_id.unwrap_or_default());
        let message = self.add(line.message);
        let attributes = self.add(line.attributes.unwrap_or_default());
        self.rows.push(Row {
            offset: line.offset,
            micros: line.micros,
            index: line.index,
            level: line.level,
            source: OWN,
            message,
            attributes,
            run_id,
        });
    }

    /// Adds a line that is no more than a message, without a copy of it. Not where `message` is no part of what is being read.
    #[must_use]
    pub fn push_received(&mut self, offset: u64, micros: i64, level: LogLevel, message: &[u8]) -> bool {
        let reading = if self.is_shared {
            self.received.last()
        } else {
            self.arriving.as_ref()
        };
        let Some(message) = reading.and_then(|text| span_in(text, message)) else {
            return false;
        };
        if !self.is_shared {
            self.received.extend(self.arriving.take());
            self.is_shared = true;
        }
        self.rows.push(Row {
            offset,
            micros,
            index: 0,
            level,
            source: Span::of(self.received.len() - 1, 0).start,
            message,
            attributes: Span::default(),
            run_id: Span::default(),
        });
        true
    }

    /// The lines, in the order in which they were read.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Line<'_>> {
        self.rows.iter().map(|row| Line {
            offset: row.offset,
            index: row.index,
            micros: row.micros,
            level: row.level,
            run_id: self.optional(row.run_id),
            message: row.message.of_text(self.source(row.source)),
            source: (row.source != OWN).then_some(row.source),
            attributes: self.optional(row.attributes),
        })
    }

    fn source(&self, source: u32) -> &str {
        self.received
            .get(source as usize)
            .map_or(&*self.text, |text| &**text)
    }

    fn add(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(text);
        Span::of(start, self.text.len())
    }

    /// Lines of one run mostly come one after the other.
    fn run_id(&mut self, id: &str) -> Span {
        match self.rows.last() {
            Some(last) if last.run_id.of_text(&self.text) == id => last.run_id,
            // As the runs' own ids are kept; see `store::storable`.
            _ if id.contains('\0') => self.add(&id.replace('\0', "\u{fffd}")),
            _ => self.add(id),
        }
    }

    fn optional(&self, span: Span) -> Option<&str> {
        (span != Span::default())
            .then(|| span.of_text(&self.text))
            .filter(|text| !text.is_empty())
    }
}

/// Where in a text a part of its memory lies; none if it is no such part, or cuts a character.
fn span_in(text: &str, part: &[u8]) -> Option<Span> {
    let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let end = start + part.len();
    let is_part = end <= text.len() && text.is_char_boundary(start) && text.is_char_boundary(end);
    is_part.then(|| Span::of(start, end))
}

impl NewLine {
    /// The line, borrowed.
    pub fn as_line(&self) -> Line<'_> {
        Line {
            offset: self.offset,
            index: self.index,
            micros: self.time.as_microsecond(),
            level: self.level,
            run_id: self.run_id.as_deref(),
            message: &self.message,
            source: None,
            attributes: self.attributes.as_deref(),
        }
    }
}

impl Line<'_> {
    /// The line, owned.
    pub fn to_new_line(&self) -> NewLine {
        NewLine {
            offset: self.offset,
            index: self.index,
            // It was made from a time.
            time: Timestamp::from_microsecond(self.micros).unwrap_or_default(),
            level: self.level,
            run_id: self.run_id.map(str::to_owned),
            message: self.message.to_owned(),
            attributes: self.attributes.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_where_they_were_received() {
        let mut lines = Lines::default();
        let first = Bytes::from("one größe\ntwo\n");
        lines.receive(&first);
        assert!(lines.push_received(1, 10, LogLevel::Stdout, &first[0..11]));
        assert!(
            !lines.push_received(2, 20, LogLevel::Stdout, &first[0..7]),
            "half a letter"
        );
        assert!(!lines.push_received(2, 20, LogLevel::Stdout, b"elsewhere"));
        lines.push(&Line {
            offset: 2,
            index: 0,
            micros: 20,
            level: LogLevel::Info,
            run_id: Some("run"),
            message: "a copy",
            source: None,
            attributes: None,
        });
        assert!(lines.push_received(3, 30, LogLevel::Stderr, &first[12..15]));
        let second = Bytes::from("three\n");
        lines.receive(&second);
        assert!(
            !lines.push_received(4, 40, LogLevel::Stdout, &first[12..15]),
            "of before"
        );
        assert!(lines.push_received(4, 40, LogLevel::Stdout, &second[..5]));
        lines.receive(&Bytes::from_static(b"\xff\n"));
        lines.end_of_received();
        assert!(!lines.push_received(5, 50, LogLevel::Stdout, &second[..5]));
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.offset, line.message, line.run_id))
            .collect();
        let expected = [
            (1, "one größe", None),
            (2, "a copy", Some("run")),
            (3, "two", None),
            (4, "three", None),
        ];
        assert_eq!(found, expected);
        assert_eq!(lines.texts().collect::<Vec<_>>(), [&first, &second]);
    }

    #[test]
    fn lines_come_back_as_they_were() {
        let lines: Vec<NewLine> = (0..6_u32)
            .map(|n| NewLine {
                offset: u64::from(n) * 100,
                index: n % 2,
                time: Timestamp::from_microsecond(1_000_000 + i64::from(n)).unwrap(),
                level: LogLevel::ALL[n as usize],
                run_id: (n > 1).then(|| format!("run_{}", n / 4)),
                message: "m".repeat(n as usize),
                attributes: (n % 3 == 1).then(|| format!(r#"{{"n":{n}}}"#)),
            })
            .collect();
        let mut columns = Lines::default();
        for line in &lines {
            columns.push(&line.as_line());
        }
        let back: Vec<NewLine> = columns.iter().map(|line| line.to_new_line()).collect();
        assert_eq!(back, lines);
    }
}
