//! Log lines by the hundred thousand: one text for all of them and a row of numbers each, so that a line costs no
//! allocation of its own.

use std::ops::Range;

use jiff::Timestamp;

use super::record::NewLine;
use crate::model::LogLevel;

/// Bytes of a line in a log file, about.
const USUAL_BYTES: usize = 128;

/// Lines in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    rows: Vec<Row>,
    /// Messages, attributes and run ids.
    text: String,
}

#[derive(Clone, Debug)]
struct Row {
    offset: u64,
    micros: i64,
    index: u32,
    level: LogLevel,
    message: Range<usize>,
    /// Empty for none.
    attributes: Range<usize>,
    /// Empty for none.
    run_id: Range<usize>,
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
    /// Attributes of a korelogger span beyond those above, as a JSON object.
    pub attributes: Option<&'a str>,
}

impl Lines {
    /// Makes room for so many bytes of text, and for as many rows as mostly come with it.
    pub fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
        self.rows.reserve(bytes / USUAL_BYTES);
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
        self.text.len() + self.rows.len() * size_of::<Row>()
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
            message,
            attributes,
            run_id,
        });
    }

    /// The lines, in the order in which they were read.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Line<'_>> {
        self.rows.iter().map(|row| Line {
            offset: row.offset,
            index: row.index,
            micros: row.micros,
            level: row.level,
            run_id: self.optional(&row.run_id),
            message: self.part(&row.message),
            attributes: self.optional(&row.attributes),
        })
    }

    fn add(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    /// Lines of one run mostly come one after the other.
    fn run_id(&mut self, id: &str) -> Range<usize> {
        match self.rows.last() {
            Some(last) if self.part(&last.run_id) == id => last.run_id.clone(),
            // As the runs' own ids are kept; see `store::storable`.
            _ if id.contains('\0') => self.add(&id.replace('\0', "\u{fffd}")),
            _ => self.add(id),
        }
    }

    fn part(&self, range: &Range<usize>) -> &str {
        &self.text[range.clone()]
    }

    fn optional(&self, range: &Range<usize>) -> Option<&str> {
        (!range.is_empty()).then(|| self.part(range))
    }
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
