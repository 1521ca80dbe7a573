//! The parser as the checks see it.

use bytes::Bytes;
use jiff::Timestamp;
use scriptscope::{
    ingest::{
        parse::Parser,
        record::{NewLine, Record},
    },
    model::LogLevel,
};

/// What a line is to a reader: offset, time, level, text.
pub type Line = (u64, Timestamp, LogLevel, String);

/// The time that lines without one get.
pub fn received() -> Timestamp {
    Timestamp::from_second(1_770_000_000).expect("a time")
}

/// What pieces of a stream said.
pub struct Read {
    pub records: Vec<Record>,
    pub carry: Vec<u8>,
    pub offset: u64,
    pub newest: Option<Timestamp>,
}

impl Read {
    /// All that is known of each record, to be compared.
    pub fn described(&self) -> Vec<String> {
        self.records.iter().map(|record| format!("{record:?}")).collect()
    }

    /// The lines; none if there is anything else.
    pub fn lines(self) -> Option<Vec<Line>> {
        let line = |record| match record {
            Record::Line(NewLine {
                offset,
                index: 0,
                time,
                level,
                run_id: None,
                message,
                attributes: None,
            }) => Some((offset, time, level, message)),
            _ => None,
        };
        self.records.into_iter().map(line).collect()
    }
}

/// Reads a stream from `offset` on, with a new parser for each piece, as batches are read.
pub fn read<'a>(offset: u64, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut read = Read {
        records: Vec::new(),
        carry: Vec::new(),
        offset,
        newest: None,
    };
    for piece in pieces {
        let mut parser = Parser::resume(&read.carry, read.offset, received()).expect("its own carry");
        parser.feed(&Bytes::copy_from_slice(piece));
        let parsed = parser.finish();
        read.records.extend(parsed.records);
        read.carry = parsed.carry;
        read.offset = parsed.offset;
        read.newest = read.newest.max(parsed.newest);
    }
    read
}
