//! korelogger prints each message twice: as a span, and as `LEVEL :: message`. The second is no line of its own. In a
//! runner's pod there is no second: the runner takes it out, so what looks like one was printed by the script.

use std::collections::VecDeque;

use twox_hash::XxHash64;

const MAX_AWAITED: usize = 32;
/// The longest level name before the separator: `CRITICAL`.
const MAX_LEVEL: usize = 8;
const SEPARATOR: &[u8] = b" :: ";

/// What is known of echoes in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Echoes {
    /// Hashes of the echoes that the last spans still await, oldest first.
    awaited: VecDeque<u64>,
    /// A runner writes the stream.
    relayed: bool,
}

impl Echoes {
    pub fn hashes(&self) -> &VecDeque<u64> {
        &self.awaited
    }

    pub fn push_hash(&mut self, hash: u64) {
        if self.awaited.len() == MAX_AWAITED {
            self.awaited.pop_front();
        }
        self.awaited.push_back(hash);
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
        if !self.relayed {
            self.push_hash(hash(level.as_bytes(), message.as_bytes()));
        }
    }

    /// Whether a line is an awaited echo; each is awaited once.
    pub fn take(&mut self, line: &[u8]) -> bool {
        if self.awaited.is_empty() {
            return false;
        }
        let Some((level, message)) = split(line) else {
            return false;
        };
        let hash = hash(level, message);
        let found = self.awaited.iter().position(|h| *h == hash);
        found.is_some_and(|at| self.awaited.remove(at).is_some())
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
fn hash(level: &[u8], message: &[u8]) -> u64 {
    XxHash64::oneshot(XxHash64::oneshot(0, level), message)
}
