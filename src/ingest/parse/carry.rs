//! What a parser must remember between two chunks, as bytes: a version, then integers as LEB128 and byte strings with
//! their length in front.

use jiff::Timestamp;

use super::{
    assemble::{Assembler, Unfinished},
    block::{Block, HeldLine},
    echo::{Begun, Echoes},
};

const VERSION: u8 = 3;
/// Knew only echoes of one line; still read.
const VERSION_2: u8 = 2;
/// Lacked [`Echoes::is_relayed`]; still read.
const VERSION_1: u8 = 1;

/// Bytes that are not a carry of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the parser state kept with the stream can not be read")]
pub struct CarryError;

/// A parser's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub last_time: Option<Timestamp>,
    pub assembler: Assembler,
    pub block: Option<Block>,
    pub echoes: Echoes,
}

impl State {
    /// Nothing to remember gives no bytes.
    pub fn encode(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        let mut out = Writer(vec![VERSION]);
        out.option(self.last_time.as_ref(), |out, time| out.time(*time));
        for line in [&self.assembler.stdout, &self.assembler.stderr] {
            out.option(line.as_ref(), |out, line| {
                out.number(line.offset);
                out.time(line.time);
                out.number(line.cut);
                out.bytes(&line.text);
            });
        }
        out.held(self.block.as_ref().map_or(&[][..], Block::lines));
        out.number(self.echoes.awaited().len() as u64);
        for lines in self.echoes.awaited() {
            out.hashes(lines);
        }
        out.0.push(u8::from(self.echoes.is_relayed()));
        out.option(self.echoes.begun(), |out, begun| {
            out.hashes(&begun.expected);
            out.held(&begun.lines);
        });
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CarryError> {
        match bytes.split_first() {
            None => Ok(Self::default()),
            Some((&version @ (VERSION | VERSION_2 | VERSION_1), rest)) => {
                Self::decode_body(version, rest).ok_or(CarryError)
            }
            Some(_) => Err(CarryError),
        }
    }

    fn decode_body(version: u8, bytes: &[u8]) -> Option<Self> {
        let mut input = Reader(bytes);
        let last_time = input.option(Reader::time)?;
        let assembler = Assembler {
            stdout: input.option(Reader::unfinished)?,
            stderr: input.option(Reader::unfinished)?,
        };
        let lines = input.held()?;
        let mut echoes = Echoes::default();
        for _ in 0..input.number()? {
            echoes.push(if version >= VERSION {
                input.hashes()?
            } else {
                vec![input.hash()?]
            });
        }
        if version >= VERSION_2 && input.option(|_| Some(()))?.is_some() {
            echoes.relay();
        }
        if version >= VERSION
            && let Some(begun) = input.option(Reader::begun)?
        {
            echoes.resume(begun);
        }
        input.0.is_empty().then_some(Self {
            last_time,
            assembler,
            block: Block::from_lines(lines),
            echoes,
        })
    }
}

/// Where the oldest record begins that an append left unfinished in this carry: everything before it is stored.
pub fn unfinished_from(carry: &[u8]) -> Result<Option<u64>, CarryError> {
    let state = State::decode(carry)?;
    let outputs = [&state.assembler.stdout, &state.assembler.stderr];
    let lines = outputs.into_iter().flatten().map(|line| line.offset);
    let block = state.block.iter().flat_map(Block::lines);
    let echo = state.echoes.begun().into_iter().flat_map(|begun| &begun.lines);
    let held = block.chain(echo).map(|line| line.offset);
    Ok(lines.chain(held).min())
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn time(&mut self, time: Timestamp) {
        self.0.extend_from_slice(&time.as_second().to_le_bytes());
        self.0.extend_from_slice(&time.subsec_nanosecond().to_le_bytes());
    }

    fn held(&mut self, lines: &[HeldLine]) {
        self.number(lines.len() as u64);
        for line in lines {
            self.number(line.offset);
            self.time(line.time);
            self.bytes(&line.text);
        }
    }

    fn hashes(&mut self, hashes: &[u64]) {
        self.number(hashes.len() as u64);
        for hash in hashes {
            self.0.extend_from_slice(&hash.to_le_bytes());
        }
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn time(&mut self) -> Option<Timestamp> {
        let second = i64::from_le_bytes(self.take(8)?.try_into().ok()?);
        let nanos = i32::from_le_bytes(self.take(4)?.try_into().ok()?);
        Timestamp::new(second, nanos).ok()
    }

    fn held(&mut self) -> Option<Vec<HeldLine>> {
        let mut lines = Vec::new();
        for _ in 0..self.number()? {
            lines.push(HeldLine {
                offset: self.number()?,
                time: self.time()?,
                text: self.bytes()?.to_vec(),
            });
        }
        Some(lines)
    }

    fn hash(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn hashes(&mut self) -> Option<Vec<u64>> {
        let mut hashes = Vec::new();
        for _ in 0..self.number()? {
            hashes.push(self.hash()?);
        }
        Some(hashes)
    }

    fn begun(&mut self) -> Option<Begun> {
        Some(Begun {
            expected: self.hashes()?,
            lines: self.held()?,
        })
    }

    fn unfinished(&mut self) -> Option<Unfinished> {
        Some(Unfinished {
            offset: self.number()?,
            time: self.time()?,
            cut: self.number()?,
            text: self.bytes()?.to_vec(),
        })
    }

    /// The outer none is a failure.
    #[allow(clippy::option_option)]
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.take(1)?[0] {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let time = "2026-01-02T03:04:05.6Z".parse().unwrap();
        let mut echoes = Echoes::default();
        echoes.expect("INFO", "one");
        echoes.expect("ERROR", "two\nlines");
        echoes.take(b"ERROR :: two", || HeldLine {
            offset: 9,
            time,
            text: b"ERROR :: two".to_vec(),
        });
        State {
            last_time: Some(time),
            assembler: Assembler {
                stdout: None,
                stderr: Some(Unfinished {
                    offset: 1 << 40,
                    time,
                    text: vec![0, 0xff, b'\n'],
                    cut: 300,
                }),
            },
            block: Block::from_lines(vec![HeldLine {
                offset: 7,
                time,
                text: b"{".to_vec(),
            }]),
            echoes,
        }
    }

    #[test]
    fn a_carry_survives_its_bytes() {
        assert_eq!(State::decode(&state().encode()), Ok(state()));
        assert_eq!(State::default().encode(), b"");
        assert_eq!(State::decode(b""), Ok(State::default()));
        let mut relayed = state();
        relayed.echoes.relay();
        assert_eq!(State::decode(&relayed.encode()), Ok(relayed));
    }

    #[test]
    fn a_carry_of_an_older_version_is_read() {
        let mut echoes = Echoes::default();
        echoes.expect("INFO", "one");
        let now = State {
            echoes,
            ..State::default()
        };
        // Nothing unfinished, no block, and one hash without a number of lines; then, from version 2 on, who writes.
        let hash = now.echoes.awaited()[0][0].to_le_bytes();
        let body = [&[0, 0, 0, 0, 1][..], &hash].concat();
        assert_eq!(
            State::decode(&[&[VERSION_1][..], &body].concat()),
            Ok(now.clone())
        );
        assert_eq!(State::decode(&[&[VERSION_2][..], &body, &[0]].concat()), Ok(now));
        let relayed = State::decode(&[VERSION_2, 0, 0, 0, 0, 0, 1]).unwrap();
        assert!(relayed.echoes.is_relayed());
    }

    #[test]
    fn a_damaged_carry_is_an_error() {
        let bytes = state().encode();
        for length in 1..bytes.len() {
            assert_eq!(State::decode(&bytes[..length]), Err(CarryError), "{length}");
        }
        assert_eq!(State::decode(&[&bytes[..], b"x"].concat()), Err(CarryError));
        assert_eq!(State::decode(&[99]), Err(CarryError));
    }
}
