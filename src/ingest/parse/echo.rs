//! korelogger prints each message twice: as a span, and as `LEVEL :: message`. The second is no line of its own.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

const MAX_AWAITED: usize = 32;
/// The longest level name before the separator: `CRITICAL`.
const MAX_LEVEL: usize = 8;

/// Hashes of the echoes that the last spans still await, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Echoes(VecDeque<u64>);

impl Echoes {
    pub fn hashes(&self) -> &VecDeque<u64> {
        &self.0
    }

    pub fn push_hash(&mut self, hash: u64) {
        if self.0.len() == MAX_AWAITED {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    pub fn expect(&mut self, echo: &str) {
        self.push_hash(hash(echo.as_bytes()));
    }

    /// Whether a line is an awaited echo; each is awaited once.
    pub fn take(&mut self, line: &[u8]) -> bool {
        if self.0.is_empty() || !looks_like_echo(line) {
            return false;
        }
        let hash = hash(line);
        let found = self.0.iter().position(|h| *h == hash);
        found.is_some_and(|at| self.0.remove(at).is_some())
    }
}

fn looks_like_echo(line: &[u8]) -> bool {
    let letters = line.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    (1..=MAX_LEVEL).contains(&letters) && line[letters..].starts_with(b" :: ")
}

fn hash(text: &[u8]) -> u64 {
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
