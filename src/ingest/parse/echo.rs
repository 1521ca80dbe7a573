//! korelogger prints each message twice: as a span, and as `LEVEL :: message`. The second is no line of its own. In a
//! runner's pod there is no second: the runner takes it out, so what looks like one was printed by the script.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

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
            self.push_hash(hash(&[level.as_bytes(), SEPARATOR, message.as_bytes()]));
        }
    }

    /// Whether a line is an awaited echo; each is awaited once.
    pub fn take(&mut self, line: &[u8]) -> bool {
        if self.awaited.is_empty() || !looks_like_echo(line) {
            return false;
        }
        let hash = hash(&[line]);
        let found = self.awaited.iter().position(|h| *h == hash);
        found.is_some_and(|at| self.awaited.remove(at).is_some())
    }
}

fn looks_like_echo(line: &[u8]) -> bool {
    let letters = line.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    (1..=MAX_LEVEL).contains(&letters) && line[letters..].starts_with(SEPARATOR)
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    digest
        .finalize()
        .iter()
        .take(8)
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
