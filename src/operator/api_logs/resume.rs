//! Where a followed log goes on after its connection broke. Pure.
//!
//! The API takes a time in whole seconds to go on from, so it sends lines again that are stored. A log is a sequence: what
//! was read of its last second is remembered by number and hash, and what comes again is recognised by them. Times alone
//! would not do, since lines may have the same time and the same text.

use std::{collections::VecDeque, fmt};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Begins every state, so that a position of another reader is not taken for one.
const PREFIX: &str = "api1";
/// The state of a log that is read to its end.
pub(super) const ENDED: &str = "api1:end";
/// So many of the last lines are remembered one by one: what fits into a position.
const TAIL: usize = 11;
/// More than this is not held back while it is not yet clear what of it is new.
const MAX_HELD_BYTES: usize = 8 << 20;

/// A line as the API sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its time.
    pub time: Timestamp,
    /// Its text, without the line end.
    pub text: Vec<u8>,
}

impl Line {
    /// Reads `<time> <text>`. What has no time (the API joins lines of two streams at times) has that of the line before.
    pub fn parse(bytes: &[u8], before: Option<Timestamp>) -> Self {
        let parsed = memchr::memchr(b' ', bytes).and_then(|end| {
            let time = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
            Some((time, &bytes[end + 1..]))
        });
        let (time, text) = parsed.unwrap_or((before.unwrap_or(Timestamp::UNIX_EPOCH), bytes));
        Self {
            time,
            text: text.to_vec(),
        }
    }

    /// The line as a container runtime would have written it.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.time.to_string().as_bytes());
        bytes.extend_from_slice(b" stdout F ");
        bytes.extend_from_slice(&self.text);
        bytes.push(b'\n');
    }

    fn hash(&self) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.time.as_nanosecond().to_be_bytes());
        hash.update(&self.text);
        short(hash)
    }
}

fn short(hash: Sha256) -> u64 {
    hash.finalize()
        .iter()
        .take(8)
        .fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// What is remembered of the lines read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resume {
    /// The second of the latest line.
    second: i64,
    /// How many lines of that second, or later, were read since its first.
    count: u64,
    /// Hash of all of those.
    chain: u64,
    /// Hashes of the last of them.
    tail: VecDeque<u64>,
}

impl Resume {
    /// Reads a state; none if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        if parts.next()? != PREFIX {
            return None;
        }
        let second = parts.next()?.parse().ok()?;
        let count = parts.next()?.parse().ok()?;
        let chain = u64::from_str_radix(parts.next()?, 16).ok()?;
        let tail = parts.next()?.as_bytes().chunks(16);
        let hash = |digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        Some(Self {
            second,
            count,
            chain,
            tail: tail.map(hash).collect::<Option<_>>()?,
        })
    }

    /// From when on to ask for lines; none if nothing was read.
    pub fn since(&self) -> Option<Timestamp> {
        (self.count > 0)
            .then(|| Timestamp::from_second(self.second).ok())
            .flatten()
    }

    /// A line was read.
    pub fn note(&mut self, line: &Line) {
        let second = floor(line.time);
        if self.count == 0 || second > self.second {
            *self = Self {
                second,
                ..Self::default()
            };
        }
        // An earlier one is not sent again.
        if second == self.second {
            self.chain = chained(self.chain, line.hash());
            self.count += 1;
            self.tail.push_back(line.hash());
            if self.tail.len() > TAIL {
                self.tail.pop_front();
            }
        }
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}:{}:{}:{:016x}:", self.second, self.count, self.chain)?;
        self.tail.iter().try_for_each(|hash| write!(f, "{hash:016x}"))
    }
}

fn chained(chain: u64, hash: u64) -> u64 {
    let mut next = Sha256::new();
    next.update(chain.to_be_bytes());
    next.update(hash.to_be_bytes());
    short(next)
}

fn floor(time: Timestamp) -> i64 {
    // Whole seconds round towards zero, and these round down.
    time.as_second() - i64::from(time.subsec_nanosecond() < 0)
}

/// What of the lines after a new connection is new.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recognised {
    /// The lines that are.
    pub fresh: Vec<Line>,
    /// Nothing that was read came again, so something may be missing before them.
    pub interrupted: bool,
}

/// Compares what comes after a new connection with what was read before.
pub(super) struct Matcher {
    known: Resume,
    again: u64,
    chain: u64,
    held: Vec<Line>,
    held_bytes: usize,
}

impl Matcher {
    /// None if nothing was read before, so everything is new.
    pub fn new(known: &Resume) -> Option<Self> {
        (known.count > 0).then(|| Self {
            known: known.clone(),
            again: 0,
            chain: 0,
            held: Vec::new(),
            held_bytes: 0,
        })
    }

    /// Whether there are lines of which it is not clear yet whether they are new.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next line; says what is new as soon as that is clear.
    pub fn feed(&mut self, line: Line) -> Option<Recognised> {
        let second = floor(line.time);
        let is_later = second > self.known.second;
        if second == self.known.second {
            self.again += 1;
            self.chain = chained(self.chain, line.hash());
        }
        self.held_bytes += line.text.len();
        self.held.push(line);
        if self.again == self.known.count && self.chain == self.known.chain && !is_later {
            self.held.clear();
            return Some(Recognised {
                fresh: Vec::new(),
                interrupted: false,
            });
        }
        let is_clear = is_later || self.again >= self.known.count || self.held_bytes > MAX_HELD_BYTES;
        is_clear.then(|| self.decide())
    }

    /// What is new if nothing more comes.
    pub fn decide(&mut self) -> Recognised {
        let held = std::mem::take(&mut self.held);
        let of_second: Vec<(usize, u64)> = held
            .iter()
            .enumerate()
            .filter(|(_, line)| floor(line.time) == self.known.second)
            .map(|(place, line)| (place, line.hash()))
            .collect();
        let most = of_second
            .len()
            .min(usize::try_from(self.known.count).unwrap_or(usize::MAX));
        // Part of what was read has been rotated away, so what is left of it comes first: the longest that ends like it.
        let stored = (1..=most).rev().find(|count| {
            let compared = (*count).min(self.known.tail.len());
            let again = of_second[count - compared..*count].iter().map(|(_, hash)| hash);
            self.known.tail.iter().rev().take(compared).eq(again.rev())
        });
        let first = stored.map_or(0, |count| of_second[count - 1].0 + 1);
        Recognised {
            fresh: held.into_iter().skip(first).collect(),
            interrupted: stored.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(nanos: i128, text: &str) -> Line {
        Line {
            time: Timestamp::from_nanosecond(nanos).unwrap(),
            text: text.into(),
        }
    }

    /// What the API sends of the lines from `file_start` on when asked for those since a second.
    fn sent(log: &[Line], file_start: usize, since: Option<Timestamp>) -> impl Iterator<Item = &Line> {
        log[file_start..]
            .iter()
            .filter(move |line| since.is_none_or(|since| line.time >= since))
    }

    #[test]
    fn a_state_outlives_the_operator() {
        let mut state = Resume::default();
        assert_eq!(state.since(), None);
        for n in 0..40 {
            state.note(&line(7_000_000_000 + n / 2, "text"));
            let text = state.to_string();
            assert!(text.len() <= 256, "{text}");
            assert_eq!(Resume::parse(&text).as_ref(), Some(&state));
        }
        assert_eq!(state.since(), Some(Timestamp::from_second(7).unwrap()));
        for text in ["", "api1", "api1:1:2", "0123abc", "api1:1:2:zz:"] {
            assert_eq!(Resume::parse(text), None, "{text}");
        }
    }

    #[test]
    fn lines_are_read_as_the_api_prints_them() {
        let parsed = Line::parse(b"2026-01-02T03:04:05.678901234Z a b", None);
        assert_eq!(parsed.text, b"a b");
        let mut written = Vec::new();
        parsed.write(&mut written);
        assert_eq!(written, b"2026-01-02T03:04:05.678901234Z stdout F a b\n");
        let joined = Line::parse(b"no time at all", Some(parsed.time));
        assert_eq!(
            (joined.time, &*joined.text),
            (parsed.time, &b"no time at all"[..])
        );
        assert_eq!(Line::parse(b"2026-01-02T03:04:05Z ", None).text, b"");
    }

    /// Follows a log over many broken connections, with times and texts that repeat and go back a little.
    fn follow(seed: u64, rotating: bool) -> (Vec<Line>, Vec<Line>, u32) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut time = 1_700_000_000_000_000_500_i128;
        let step = [0, 1, 1_000, 100_000_000, 700_000_000][random.usize(..5)] + 1;
        let log: Vec<Line> = (0..150)
            .map(|_| {
                time += i128::from(random.u64(..step));
                let back = if rotating {
                    // What a single line proves is proven only if it is the only one like it.
                    time += 1;
                    0
                } else {
                    i128::from(random.u64(..3))
                };
                line(time - back, ["a", "b", "same"][random.usize(..3)])
            })
            .collect();
        let (mut stored, mut state, mut gaps) = (Vec::new(), Resume::default(), 0);
        let (mut written, mut file_start) = (0, 0);
        while written < log.len() {
            written = (written + random.usize(1..40)).min(log.len());
            if rotating && state.since().is_some() && random.u8(..4) == 0 {
                file_start = random.usize(file_start..written);
            }
            // The operator may have been restarted.
            if random.bool() {
                state = Resume::parse(&state.to_string()).unwrap();
            }
            let mut matcher = Matcher::new(&state);
            let mut fresh = Vec::new();
            for line in sent(&log[..written], file_start, state.since()) {
                let Some(comparing) = &mut matcher else {
                    fresh.push(line.clone());
                    continue;
                };
                let recognised = comparing.feed(line.clone());
                if let Some(recognised) = recognised {
                    gaps += u32::from(recognised.interrupted);
                    fresh.extend(recognised.fresh);
                    matcher = None;
                }
            }
            if let Some(recognised) = matcher.filter(Matcher::is_holding).map(|mut m| m.decide()) {
                gaps += u32::from(recognised.interrupted);
                fresh.extend(recognised.fresh);
            }
            // The connection breaks anywhere.
            fresh.truncate(random.usize(..=fresh.len()));
            for line in &fresh {
                state.note(line);
            }
            stored.extend(fresh);
        }
        (log, stored, gaps)
    }

    #[test]
    fn nothing_is_lost_or_twice_while_the_file_is_there() {
        for seed in 0..60 {
            let (log, stored, gaps) = follow(seed, false);
            assert_eq!(gaps, 0, "seed {seed}");
            assert!(log.starts_with(&stored), "seed {seed}");
        }
    }

    #[test]
    fn what_rotation_took_is_told() {
        let mut interrupted = 0;
        for seed in 0..60 {
            let (log, stored, gaps) = follow(seed, true);
            // In order and none twice, as the times are all different there.
            let mut rest = log.iter();
            let in_order = stored.iter().all(|line| rest.any(|other| other == line));
            assert!(in_order, "seed {seed}");
            if !log.starts_with(&stored) {
                assert!(gaps > 0, "seed {seed}: lines are missing and nobody says so");
            }
            interrupted += gaps;
        }
        assert!(interrupted > 0);
    }
}
