//! Which texts a segment may have, so that a search leaves most segments alone.
//!
//! A search is for any part of a message, so whole words would not do: the set is of the six-byte pieces (grams) of all
//! messages, in lower case, two thirds of them (those of which a neighbour has a greater hash, a simple form of the
//! minimizers of Roberts et al., Bioinformatics 20, 2004). A text of which one such piece is missing is in no message of
//! the segment. Absence is certain, presence is not.
//!
//! A set costs about as much as a fifth of all that is done to a line before it is committed, and is only good for
//! searches: it is made from the stored segment when there is time for it.

use std::mem;

use arrow_array::{Array, StringArray};
use bytes::Bytes;

use super::{SegmentError, scan::messages};

/// Bytes of a piece. Of shorter ones a segment full of hexadecimal ids has nearly all there can be.
const GRAM: usize = 6;
/// Fewer lines are scanned faster than a set of them is read.
const MIN_LINES: usize = 8_192;
/// Bytes of the set for 64 lines: less than a byte a line.
const BYTES_PER_64_LINES: usize = 63;
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
        if bits == 0 {
            return true;
        }
        let hashes = needle.windows(GRAM).map(|gram| {
            let mut eight = [0; 8];
            eight[..GRAM].copy_from_slice(gram);
            hash(u64::from_le_bytes(eight))
        });
        let hashes: Vec<u64> = hashes.collect();
        // Of the first and the last piece only one neighbour is known: where that is not smaller, it is kept for certain.
        let neighbour = |at: usize| hashes.get(at).copied().unwrap_or_default();
        hashes.iter().enumerate().all(|(at, &hash)| {
            if is_passed_over(neighbour(at.wrapping_sub(1)), hash, neighbour(at + 1)) {
                return true;
            }
            let place = place(hash, bits);
            self.0
                .get(place / 8)
                .is_none_or(|byte| byte & 1 << (place % 8) != 0)
        })
    }
}

/// Whether a segment of so many lines is to have a set.
pub fn is_worth_grams(lines: usize) -> bool {
    lines >= MIN_LINES
}

/// The set of the pieces of a stored segment's messages.
pub fn grams(body: &Bytes) -> Result<Vec<u8>, SegmentError> {
    let messages = messages(body)?;
    let lines = messages.iter().map(StringArray::len).sum();
    Ok(grams_of(lines, messages.iter().flatten().flatten()))
}

fn grams_of<'a>(lines: usize, messages: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let bytes = (lines * BYTES_PER_64_LINES / 64).next_multiple_of(MIN_BYTES);
    let mut set = Filling {
        // The second half is for the pieces that are passed over: to set a bit for nothing costs less than to ask.
        words: vec![0; 2 * bytes / 8],
        bits: bytes * 8,
    };
    let mut text = Vec::new();
    let mut before = Vec::new();
    for message in messages {
        text.clear();
        text.extend(message.as_bytes().iter().map(u8::to_ascii_lowercase));
        // What a line begins and ends with is mostly what the line before began and ended with: pieces whose neighbours are
        // the same as there are left out.
        let start = common_prefix(&text, &before).saturating_sub(GRAM);
        let end = text.len() - common_suffix(&text, &before).saturating_sub(GRAM);
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
        // The first and the last have one neighbour, and are kept.
        let (mut before, mut this) = (u64::MAX, None);
        for window in part.windows(8) {
            let mut eight = [0; 8];
            eight.copy_from_slice(window);
            let next = hash(u64::from_le_bytes(eight));
            if let Some(this) = this {
                self.set(before, this, next);
                before = this;
            }
            this = Some(next);
        }
        if let Some(this) = this {
            self.set(before, this, u64::MAX);
        }
        text.truncate(length);
    }

    fn set(&mut self, before: u64, this: u64, after: u64) {
        // Without a branch: whether a piece is passed over can not be foreseen.
        let place = place(this, self.bits) + self.bits * usize::from(is_passed_over(before, this, after));
        if let Some(word) = self.words.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }
}

/// Of the lowest six bytes: their product, moved to the upper end, and an odd number.
fn hash(bytes: u64) -> u64 {
    bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15 << (64 - 8 * GRAM))
}

/// Whether a piece is left out: where both neighbours, which overlap it, have a smaller hash. A third of all are; of two
/// that follow each other, one is always kept.
#[allow(clippy::needless_bitwise_bool)] // a branch that can not be foreseen
fn is_passed_over(before: u64, this: u64, after: u64) -> bool {
    // By other bits than those that say its place, or what is kept would crowd together.
    let [before, this, after] = [before, this, after].map(|hash| hash << 24);
    (before < this) & (after < this)
}

/// Where a hash stands in a set of so many bits. In a set of half the bits a place is half as far.
#[allow(clippy::cast_possible_truncation)] // the product of a fraction below 1 and the size
fn place(hash: u64, bits: usize) -> usize {
    (((hash >> 32) * bits as u64) >> 32) as usize
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
            let set = grams_of(messages.len(), messages.iter().map(String::as_str));
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
        let set = grams_of(messages.len(), messages.iter().map(String::as_str));
        let mut random = fastrand::Rng::with_seed(9);
        let seems = (0..1_000)
            .filter(|_| Grams::new(&set).may_have(&needles(&format!("{:016x}", random.u64(..)))))
            .count();
        assert!(seems < 150, "{seems} of 1000 ids seem to be there");
        assert!(!Grams::new(&set).may_have(&needles("connection refused by peer")));
        // Short texts can not be told.
        assert!(
            Grams::new(&set).may_have(&needles("zzzzzz")) && Grams::new(&[]).may_have(&needles("anything"))
        );
    }

    #[test]
    fn a_set_of_few_pieces_is_small_and_a_small_segment_has_none() {
        let messages = messages(false);
        let set = grams_of(messages.len(), messages.iter().map(String::as_str));
        assert!(set.len() < messages.len() / 4, "{} bytes", set.len());
        assert!(!Grams::new(&set).may_have(&needles("connection refused")));
        assert!(!is_worth_grams(100));
    }

    #[test]
    fn all_of_the_lists_must_be_met() {
        let messages = messages(false);
        let set = grams_of(messages.len(), messages.iter().map(String::as_str));
        let (here, gone) = (b"customer".to_vec(), b"connection refused".to_vec());
        let may = |lists| Grams::new(&set).may_have(&Needles(lists));
        assert!(may(vec![]) && may(vec![vec![gone.clone(), here.clone()]]));
        assert!(!may(vec![vec![here], vec![gone]]));
    }
}
