//! korelogger prints each message twice: as a span, and as `LEVEL :: message`. The second is no line of its own, however
//! many lines it takes. In a runner's pod there is no second: the runner takes it out, so what looks like one was printed by
//! the script.

use std::collections::VecDeque;

use twox_hash::XxHash64;

use super::block::HeldLine;

const MAX_AWAITED: usize = 32;
/// Messages of more lines or bytes are not held back to see whether they are echoes.
const MAX_LINES: usize = 200;
const MAX_BYTES: usize = 64 << 10;
/// Lines of all awaited echoes together: what is kept with the stream stays small.
const MAX_AWAITED_LINES: usize = 512;
/// The longest level name before the separator: `CRITICAL`.
const MAX_LEVEL: usize = 8;
const SEPARATOR: &[u8] = b" :: ";

/// What is known of echoes in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Echoes {
    /// The echoes that the last spans still await, oldest first: the hashes of their lines.
    awaited: VecDeque<Vec<u64>>,
    /// One of several lines that has begun.
    begun: Option<Begun>,
    /// A runner writes the stream.
    relayed: bool,
}

/// The lines so far of an echo of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// The hashes of all its lines.
    pub expected: Vec<u64>,
    /// Those that have come.
    pub lines: Vec<HeldLine>,
}

impl Echoes {
    pub fn awaited(&self) -> &VecDeque<Vec<u64>> {
        &self.awaited
    }

    pub fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    pub fn push(&mut self, lines: Vec<u64>) {
        self.awaited.push_back(lines);
        let mut total: usize = self.awaited.iter().map(Vec::len).sum();
        while self.awaited.len() > MAX_AWAITED || total > MAX_AWAITED_LINES {
            total -= self.awaited.pop_front().map_or(total, |lines| lines.len());
        }
    }

    /// Goes on where an earlier parser was.
    pub fn resume(&mut self, begun: Begun) {
        self.begun = Some(begun);
    }

    pub fn is_relayed(&self) -> bool {
        self.relayed
    }

    /// A runner writes the stream: there is no echo in it.
    pub fn relay(&mut self) {
        self.relayed = true;
        self.awaited.clear();
    }

    pub fn expect(&mut self, level: &str, message: &str) {
        if self.relayed {
            return;
        }
        // Lines end as the parser has them.
        let mut lines = message
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line).as_bytes());
        let first = lines.next().map(|first| first_hash(level.as_bytes(), first));
        let lines: Vec<u64> = first.into_iter().chain(lines.map(hash).take(MAX_LINES)).collect();
        if lines.len() == 1 || (lines.len() <= MAX_LINES && message.len() <= MAX_BYTES) {
            self.push(lines);
        }
    }

    /// Whether a line is an awaited echo or the first line of one; each is awaited once. `hold` makes the line one to be
    /// kept until it shows whether it is.
    pub fn take(&mut self, line: &[u8], hold: impl FnOnce() -> HeldLine) -> bool {
        if self.awaited.is_empty() {
            return false;
        }
        let Some((level, message)) = split(line) else {
            return false;
        };
        let hash = first_hash(level, message);
        let found = self.awaited.iter().position(|lines| lines.first() == Some(&hash));
        let Some(expected) = found.and_then(|at| self.awaited.remove(at)) else {
            return false;
        };
        if expected.len() > 1 {
            let lines = vec![hold()];
            self.begun = Some(Begun { expected, lines });
        }
        true
    }

    /// Whether a line is the next of the echo that has begun.
    pub fn goes_on(&mut self, line: &[u8], hold: impl FnOnce() -> HeldLine) -> bool {
        let Some(begun) = &mut self.begun else {
            return false;
        };
        if begun.expected.get(begun.lines.len()) != Some(&hash(line)) {
            return false;
        }
        begun.lines.push(hold());
        if begun.lines.len() == begun.expected.len() {
            self.begun = None;
        }
        true
    }

    /// What has begun is no echo: its lines so far. The echo itself may still come.
    pub fn give_up(&mut self) -> Vec<HeldLine> {
        let Some(begun) = self.begun.take() else {
            return Vec::new();
        };
        if !self.relayed {
            self.push(begun.expected);
        }
        begun.lines
    }
}

/// Level and message, if the line looks like an echo.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let letters = line.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let (level, rest) = line.split_at_checked(letters)?;
    let message = rest.strip_prefix(SEPARATOR)?;
    (1..=MAX_LEVEL).contains(&letters).then_some((level, message))
}

/// The same in every version, since hashes are kept. A script that makes two messages with one hash loses the second of
/// its own.
fn first_hash(level: &[u8], message: &[u8]) -> u64 {
    XxHash64::oneshot(XxHash64::oneshot(0, level), message)
}

/// The same of a further line.
fn hash(line: &[u8]) -> u64 {
    XxHash64::oneshot(1, line)
}
