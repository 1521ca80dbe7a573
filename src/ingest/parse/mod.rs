//! From the bytes of a container's log files to records. Pure: the same bytes give the same records, however they are
//! cut into chunks.
//!
//! Layers: entries of the runtime's format ([`cri`]), whole lines joined from them ([`assemble`]), and what a line says:
//! a record of the runner ([`control`]), a span of korelogger ([`span`], over many lines [`block`]) or plain text.

mod assemble;
mod block;
mod carry;
mod control;
mod cri;
mod echo;
mod json;
mod span;
#[cfg(test)]
mod tests;
mod time;

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use self::{
    assemble::Whole,
    block::{Block, HeldLine, Place},
    carry::State,
    control::Origin,
    cri::Output,
    time::Clock,
};
use super::{lines::Line, record::Records};
use crate::model::LogLevel;

pub use self::carry::{CarryError, unfinished_from};

/// Reads a stream from some offset on.
#[derive(Debug)]
pub struct Parser {
    state: State,
    offset: u64,
    received: Timestamp,
    clock: Clock,
    records: Records,
    newest: Option<Timestamp>,
}

/// What the bytes said.
#[derive(Debug)]
pub struct Parsed {
    /// What happened, in order.
    pub records: Records,
    /// What the next parser of this stream must be given.
    pub carry: Vec<u8>,
    /// Offset in the stream of the byte after the last one read.
    pub offset: u64,
    /// The latest time at which the runtime took a line.
    pub newest: Option<Timestamp>,
}

impl Parser {
    /// Goes on at `offset` (in bytes of the stream), where an earlier parser left `carry`. `received` dates lines that
    /// carry no time of their own and follow none that does.
    pub fn resume(carry: &[u8], offset: u64, received: Timestamp) -> Result<Self, CarryError> {
        Ok(Self {
            state: State::decode(carry)?,
            ..Self::new(offset, received)
        })
    }

    /// Begins at `offset` with nothing left from before.
    pub fn new(offset: u64, received: Timestamp) -> Self {
        Self {
            state: State::default(),
            offset,
            received,
            clock: Clock::default(),
            records: Records::default(),
            newest: None,
        }
    }

    /// Reads the next bytes of the stream. They end with a line end, but for a last line that its writer never ended.
    pub fn feed(&mut self, bytes: &Bytes) {
        // Plain messages are most of the bytes and stay where they are; of records little is kept.
        if cri::is_object(bytes) {
            self.records.lines.reserve(bytes.len() / 2);
        } else {
            self.records.lines.receive(bytes);
        }
        let mut rest = &**bytes;
        while !rest.is_empty() {
            let (line, length) = match memchr::memchr(b'\n', rest) {
                Some(end) => (&rest[..end], end + 1),
                None => (rest, rest.len()),
            };
            let offset = self.offset;
            self.offset += length as u64;
            self.entry(offset, line);
            rest = &rest[length..];
        }
        self.records.lines.end_of_received();
    }

    /// Bytes up to `offset` are lost: lines that were unfinished end here.
    pub fn skip_to(&mut self, offset: u64) {
        self.end_lines();
        self.offset = offset;
    }

    /// The records read since [`Parser::resume`], and the carry.
    pub fn finish(self) -> Parsed {
        Parsed {
            records: self.records,
            carry: self.state.encode(),
            offset: self.offset,
            newest: self.newest,
        }
    }

    fn entry(&mut self, offset: u64, line: &[u8]) {
        // No runtime writes an empty entry; the agent does, after the last byte of a container that is no more.
        if line.is_empty() {
            return self.end_lines();
        }
        let Some(entry) = cri::parse(line, &mut self.clock) else {
            return self.corrupt(offset, line);
        };
        self.state.last_time = Some(entry.time);
        self.newest = self.newest.max(Some(entry.time));
        if let Some(line) = self.state.assembler.push(offset, &entry) {
            self.line(&line);
        }
    }

    fn end_lines(&mut self) {
        for line in self.state.assembler.flush() {
            self.line(&line);
        }
        self.release_block();
    }

    /// An entry that is not in the runtime's format is kept as it is.
    fn corrupt(&mut self, offset: u64, line: &[u8]) {
        self.release_block();
        let kept = line.len().min(assemble::MAX_LINE);
        let time = self.state.last_time.unwrap_or(self.received);
        let cut = (line.len() - kept) as u64;
        self.plain(LogLevel::Stdout, Origin { offset, time }, &line[..kept], cut);
    }

    fn line(&mut self, line: &Whole<'_>) {
        let text = line.text.strip_suffix(b"\r").unwrap_or(&line.text);
        let origin = Origin {
            offset: line.offset,
            time: line.time,
        };
        match line.output {
            Output::Stderr => self.plain(LogLevel::Stderr, origin, text, line.cut),
            // What is cut can not be read as anything.
            Output::Stdout if line.cut > 0 => {
                self.release_block();
                self.plain(LogLevel::Stdout, origin, text, line.cut);
            }
            Output::Stdout => self.stdout(origin, text),
        }
    }

    fn stdout(&mut self, origin: Origin, text: &[u8]) {
        if self.continues_echo(origin, text) || self.continues_block(origin, text) {
            return;
        }
        if Block::begins_with(text) {
            self.state.block = Block::from_lines(vec![held(origin, text)]);
            return;
        }
        if control::is_candidate(text) && control::parse(text, origin, &mut self.records) {
            if control::begins_runner(text) {
                self.state.echoes.relay();
            }
            return;
        }
        if self.span(origin, text) || self.state.echoes.take(text, || held(origin, text)) {
            return;
        }
        self.plain(LogLevel::Stdout, origin, text, 0);
    }

    /// Whether the line belongs to an echo of several lines. One that it interrupts was none.
    fn continues_echo(&mut self, origin: Origin, text: &[u8]) -> bool {
        if self.state.echoes.goes_on(text, || held(origin, text)) {
            return true;
        }
        let lines = self.state.echoes.give_up();
        self.release(lines);
        false
    }

    /// Whether the line belongs to an object over many lines. One that it interrupts is given up.
    fn continues_block(&mut self, origin: Origin, text: &[u8]) -> bool {
        let Some(block) = &mut self.state.block else {
            return false;
        };
        match block.place(text) {
            Place::Inside => block.push(held(origin, text)),
            Place::End => {
                block.push(held(origin, text));
                self.close_block();
            }
            Place::Outside => {
                self.release_block();
                return false;
            }
        }
        true
    }

    fn close_block(&mut self) {
        let Some(block) = self.state.block.take() else {
            return;
        };
        let text = block.text();
        let first = &block.lines()[0];
        let origin = Origin {
            offset: first.offset,
            time: first.time,
        };
        if !self.span(origin, &text) {
            self.state.block = Some(block);
            self.release_block();
        }
    }

    /// The lines of an object that is no span, or will not end, are plain lines; so are those of an echo that does not end.
    fn release_block(&mut self) {
        let echo = self.state.echoes.give_up();
        self.release(echo);
        let block = self.state.block.take();
        self.release(block.map_or_else(Vec::new, Block::into_lines));
    }

    fn release(&mut self, lines: Vec<HeldLine>) {
        for line in lines {
            let origin = Origin {
                offset: line.offset,
                time: line.time,
            };
            self.plain(LogLevel::Stdout, origin, &line.text, 0);
        }
    }

    fn span(&mut self, origin: Origin, text: &[u8]) -> bool {
        let Self { state, records, .. } = self;
        span::is_candidate(text)
            && span::read(text, origin, |found| {
                let (level, message) = found.echo;
                state.echoes.expect(level, message);
                records.lines.push(&found.line);
            })
    }

    fn plain(&mut self, level: LogLevel, origin: Origin, text: &[u8], cut: u64) {
        let micros = origin.time.as_microsecond();
        let lines = &mut self.records.lines;
        if cut == 0 && lines.push_received(origin.offset, micros, level, text) {
            return;
        }
        // Nearly all text is valid, and found to be so much faster than it is repaired.
        let text = std::str::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed);
        let marked;
        let message = if cut == 0 {
            &*text
        } else {
            marked = format!("{text} [cut: {cut} bytes]");
            &marked
        };
        lines.push(&Line {
            offset: origin.offset,
            index: 0,
            micros,
            level,
            run_id: None,
            message,
            source: None,
            attributes: None,
        });
    }
}

fn held(origin: Origin, text: &[u8]) -> HeldLine {
    HeldLine {
        offset: origin.offset,
        time: origin.time,
        text: text.to_vec(),
    }
}
