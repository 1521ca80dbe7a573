//! What a runner prints, written down as a container runtime does. Pure.

use jiff::Timestamp;

/// Longer lines are cut into pieces of this many bytes, as runtimes do.
const PIECE: usize = 16 << 10;

/// One of a process's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Output {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Turns what is read of one output into entries of a log.
#[derive(Debug)]
pub struct Framer {
    output: Output,
    /// The beginning of a line whose end has not come yet; below [`PIECE`] bytes.
    unfinished: Vec<u8>,
}

impl Framer {
    /// Nothing was read so far.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            unfinished: Vec::new(),
        }
    }

    /// Adds what was read at `time` to `log`.
    pub fn push(&mut self, mut bytes: &[u8], time: Timestamp, log: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = bytes.len().min(PIECE - self.unfinished.len());
            let (taken, ends) = match memchr::memchr(b'\n', &bytes[..room]) {
                Some(end) => (end, true),
                None => (room, false),
            };
            self.unfinished.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(ends)..];
            if ends || self.unfinished.len() == PIECE {
                self.entry(if ends { b" F " } else { b" P " }, time, log);
            }
        }
    }

    /// Nothing more comes: what is unfinished stays so.
    pub fn end(&mut self, time: Timestamp, log: &mut Vec<u8>) {
        if !self.unfinished.is_empty() {
            self.entry(b" P ", time, log);
        }
    }

    fn entry(&mut self, tag: &[u8], time: Timestamp, log: &mut Vec<u8>) {
        log.extend_from_slice(format!("{time:.9} {}", self.output.name()).as_bytes());
        log.extend_from_slice(tag);
        log.append(&mut self.unfinished);
        log.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ingest::{parse::Parser, record::Record, wire::END_OF_STREAM};

    /// What the ingest reads of the log of these prints, cut into chunks of so many bytes.
    fn read_back(text: &[u8], size: usize) -> Vec<Vec<u8>> {
        let time = Timestamp::from_second(1).unwrap();
        let mut framer = Framer::new(Output::Stdout);
        let mut log = Vec::new();
        for chunk in text.chunks(size) {
            framer.push(chunk, time, &mut log);
        }
        framer.end(time, &mut log);
        log.extend_from_slice(END_OF_STREAM);
        let mut parser = Parser::new(0, time);
        parser.feed(&Bytes::from(log));
        let records = parser.finish().records.into_iter();
        let lines = records.map(|record| match record {
            Record::Line(line) => line.message.into_bytes(),
            other => panic!("{other:?}"),
        });
        lines.collect()
    }

    #[test]
    fn every_line_is_read_back_however_it_came() {
        let long = "x".repeat(3 * PIECE);
        let just = "y".repeat(PIECE);
        let text = format!("one\n\n{long}\n{just}\n two \nno end");
        let lines: Vec<&[u8]> = text.split('\n').map(str::as_bytes).collect();
        for size in [1, 7, 1_000, PIECE, 1 << 20] {
            assert_eq!(read_back(text.as_bytes(), size), lines, "{size}");
        }
    }
}
