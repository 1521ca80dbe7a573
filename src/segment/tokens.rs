//! Which texts a segment may have, so that a search leaves most segments alone.
//!
//! A search is for any part of a message, so whole words would not do: the set is of the five-byte pieces (grams) of all
//! messages, in lower case, half of them (those whose hash says so). A text of which one such piece is missing is in no
//! message of the segment. Absence is certain, presence is not.

use std::mem;

/// Bytes of a piece.
const GRAM: usize = 5;
/// Fewer lines are scanned faster than a set of them is read.
const MIN_LINES: usize = 8_192;
/// Bits of the set for each line: less than a byte.
const BITS_PER_LINE: usize = 7;
/// Where fewer bits than one of so many are set, the set is folded to half its size.
const SPARSE: u32 = 4;
/// Not below this, bytes.
const MIN_BYTES: usize = 64;

/// Texts that a message must have to pass: of each inner list at least one. In lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needles(pub Vec<Vec<Vec<u8>>>);

impl Needles {
    /// Whether any message will do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set of pieces as it is stored: bits in bytes, the lowest first.
#[derive(Clone, Copy, Debug)]
pub struct Grams<'a>(&'a [u8]);

impl<'a> Grams<'a> {
    /// A stored set.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether a message may have what is wanted; `false` is certain.
    pub fn may_have(&self, needles: &Needles) -> bool {
        needles
            .0
            .iter()
            .all(|any| any.iter().any(|needle| self.may_contain(needle)))
    }

    fn may_contain(&self, needle: &[u8]) -> bool {
        let bits = self.0.len() * 8;
        needle.windows(GRAM).all(|gram| {
            let mut eight = [0; 8];
            eight[..GRAM].copy_from_slice(gram);
            let place = place(u64::from_le_bytes(eight), bits);
            // Of a set of no bits nothing is known.
            place >= bits
                || self
                    .0
                    .get(place / 8)
                    .is_none_or(|byte| byte & 1 << (place % 8) != 0)
        })
    }
}

/// The set of the messages' pieces; nothing where it would not pay.
pub fn grams<'a>(lines: usize, messages: impl Iterator<Item = &'a str>) -> Vec<u8> {
    if lines < MIN_LINES {
        return Vec::new();
    }
    let bytes = (lines * BITS_PER_LINE / 8).next_multiple_of(MIN_BYTES);
    let mut set = Filling {
        // The second half is for the pieces that are not kept: to set a bit for nothing costs less than to ask.
        words: vec![0; 2 * bytes / 8],
        bits: bytes * 8,
    };
    let mut text = Vec::new();
    let mut before = Vec::new();
    for message in messages {
        text.clear();
        text.extend(message.as_bytes().iter().map(u8::to_ascii_lowercase));
        // What a line begins and ends with is mostly what the line before began and ended with.
        let start = common_prefix(&text, &before).saturating_sub(GRAM - 1);
        let end = text.len() - common_suffix(&text, &before).saturating_sub(GRAM - 1);
        set.add(&mut text, start, end);
        mem::swap(&mut text, &mut before);
    }
    set.words.truncate(bytes / 8);
    fold(set.words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let whole = a
        .as_chunks::<8>()
        .0
        .iter()
        .zip(b.as_chunks::<8>().0)
        .take_while(|(a, b)| a == b)
        .count()
        * 8;
    let rest = a[whole..]
        .iter()
        .zip(&b[whole..])
        .take_while(|(a, b)| a == b)
        .count();
    whole + rest
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let whole = a
        .as_rchunks::<8>()
        .1
        .iter()
        .rev()
        .zip(b.as_rchunks::<8>().1.iter().rev())
        .take_while(|(a, b)| a == b)
        .count()
        * 8;
    let rest = a[..a.len() - whole]
        .iter()
        .rev()
        .zip(b[..b.len() - whole].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    whole + rest
}

/// A set while it is filled.
struct Filling {
    words: Vec<u64>,
    /// Those of the first half, which is kept.
    bits: usize,
}

impl Filling {
    /// Adds the pieces that begin at `start` or later and end at `end` or earlier. Leaves the text as it was.
    fn add(&mut self, text: &mut Vec<u8>, start: usize, end: usize) {
        let length = text.len();
        // So that eight bytes can be read at each piece.
        text.extend_from_slice(&[0; 8 - GRAM]);
        let part = text.get(start..end + 8 - GRAM).unwrap_or_default();
        for window in part.windows(8) {
            let mut eight = [0; 8];
            eight.copy_from_slice(window);
            let place = place(u64::from_le_bytes(eight), self.bits);
            if let Some(word) = self.words.get_mut(place / 64) {
                *word |= 1 << (place % 64);
            }
        }
        text.truncate(length);
    }
}

/// Where the lowest five bytes stand in a set of so many bits. Half of all pieces stand beyond it and are not kept: a
/// needle has many, and a set that is half full tells the most. In a set of half the bits a place is half as far.
#[allow(clippy::cast_possible_truncation)] // the product of a fraction below 1 and twice the size
fn place(bytes: u64, bits: usize) -> usize {
    // The same as the product of the five bytes, moved to the upper end, and an odd number.
    let hash = bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15 << (64 - 8 * GRAM));
    (((hash >> 32) * (2 * bits as u64)) >> 32) as usize
}

/// Joins neighbouring bits as long as few are set.
fn fold(mut set: Vec<u8>) -> Vec<u8> {
    loop {
        let ones: u32 = set.iter().map(|byte| byte.count_ones()).sum();
        let all = u32::try_from(set.len() * 8).unwrap_or(u32::MAX);
        if ones > all / SPARSE || set.len() < 2 * MIN_BYTES || !set.len().is_multiple_of(2) {
            return set;
        }
        let (pairs, _) = set.as_chunks::<2>();
        set = pairs
            .iter()
            .map(|[low, high]| halve(*low) | halve(*high) << 4)
            .collect();
    }
}

/// Eight bits as four: each of two neighbours, either set.
fn halve(byte: u8) -> u8 {
    let either = byte | byte >> 1;
    either & 1 | either >> 1 & 2 | either >> 2 & 4 | either >> 3 & 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needles(text: &str) -> Needles {
        Needles(vec![vec![text.to_ascii_lowercase().into_bytes()]])
    }

    fn messages(random_digits: bool) -> Vec<String> {
        let mut random = fastrand::Rng::with_seed(1);
        (0..20_000)
            .map(|n| {
                let id = if random_digits { random.u64(..) } else { 7 };
                format!(
                    "Request {id:016x} of customer {} took {} ms: größe OK",
                    n % 1_000,
                    n % 97
                )
            })
            .collect()
    }

    #[test]
    fn what_is_there_is_always_found() {
        for random_digits in [true, false] {
            let messages = messages(random_digits);
            let set = grams(messages.len(), messages.iter().map(String::as_str));
            assert!(set.len() < messages.len());
            let mut random = fastrand::Rng::with_seed(2);
            for message in messages.iter().step_by(7) {
                let start = random.usize(..message.len() - 1);
                let end = random.usize(start + 1..=message.len());
                let part = message.as_bytes()[start..end].to_ascii_lowercase();
                assert!(
                    Grams::new(&set).may_have(&Needles(vec![vec![part]])),
                    "{message} {start} {end}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_there_is_mostly_known() {
        let messages = messages(true);
        let set = grams(messages.len(), messages.iter().map(String::as_str));
        let mut random = fastrand::Rng::with_seed(9);
        let seems = (0..1_000)
            .filter(|_| Grams::new(&set).may_have(&needles(&format!("{:016x}", random.u64(..)))))
            .count();
        assert!(seems < 150, "{seems} of 1000 ids seem to be there");
        assert!(!Grams::new(&set).may_have(&needles("connection refused by peer")));
        // Short texts can not be told.
        assert!(
            Grams::new(&set).may_have(&needles("zzzz")) && Grams::new(&[]).may_have(&needles("anything"))
        );
    }

    #[test]
    fn a_set_of_few_pieces_is_small_and_a_small_segment_has_none() {
        let messages = messages(false);
        let set = grams(messages.len(), messages.iter().map(String::as_str));
        assert!(set.len() < messages.len() / 4, "{} bytes", set.len());
        assert!(!Grams::new(&set).may_have(&needles("connection refused")));
        assert!(grams(100, ["x"].into_iter()).is_empty());
    }

    #[test]
    fn all_of_the_lists_must_be_met() {
        let messages = messages(false);
        let set = grams(messages.len(), messages.iter().map(String::as_str));
        let (here, gone) = (b"customer".to_vec(), b"connection refused".to_vec());
        let may = |lists| Grams::new(&set).may_have(&Needles(lists));
        assert!(may(vec![]) && may(vec![vec![gone.clone(), here.clone()]]));
        assert!(!may(vec![vec![here], vec![gone]]));
    }
}
