//! Log lines as Parquet segments: writing and scanning; no SQL, no Kubernetes.
//!
//! A segment is a complete Parquet file that any engine can read: columns `timestamp` (microseconds, UTC), `stream`,
//! `offset`, `index` (these three are the log id), `level`, `run_id`, `message`, `attributes`. Its rows are sorted by
//! [`LineKey`], oldest first, and lie in row groups of [`ROWS_PER_GROUP`], so that a reader who wants a stretch of
//! time decodes little else. What a store must know to leave a segment alone is its [`SegmentInfo`].

mod cursor;
mod encode;
mod merge;
mod runs;
mod scan;
mod search;
mod tokens;

use bytes::Bytes;

use crate::model::{LogId, LogLevel};

pub use cursor::Cursor;
pub use encode::{encode, encode_shared};
pub use merge::merge;
pub use runs::RunSet;
pub use scan::{count, decode, levels, scan};
pub use search::search;
pub use tokens::{Grams, Needles, grams};

/// Rows in a row group: what is decoded at once.
pub const ROWS_PER_GROUP: usize = 8_192;
/// Lines in a full segment; merging stops here.
pub const MAX_LINES: usize = 65_536;
/// Text in a full segment, in bytes before compression; merging stops here.
pub const MAX_TEXT_BYTES: usize = 32 << 20;

/// So many segments of a tier become one of the next.
pub const FAN_IN: u32 = 16;
/// A segment that has this part of what a full one holds is left as it is.
const WORTH_MERGING: usize = 8;

/// A segment that can not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Parquet's own word.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow's own word.
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
    /// A column is missing or of another type.
    #[error("column {0} is missing or has another type")]
    Column(&'static str),
    /// A level that this version does not know.
    #[error("{0:?} is not a log level")]
    Level(String),
}

/// Place of a line in the order of a script's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineKey {
    /// Microseconds since the epoch.
    pub micros: i64,
    /// Id of the line.
    pub id: LogId,
}

impl LineKey {
    /// After every line of that moment, so before every later one.
    pub fn last_at(micros: i64) -> Self {
        Self {
            micros,
            id: LogId {
                stream: i64::MAX,
                offset: i64::MAX,
                index: i32::MAX,
            },
        }
    }
}

/// A line as a segment keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentLine {
    /// When it was printed, and its id.
    pub key: LineKey,
    /// Level.
    pub level: LogLevel,
    /// Run that printed it.
    pub run_id: Option<String>,
    /// Text.
    pub message: String,
    /// Further attributes, a JSON object.
    pub attributes: Option<String>,
}

/// A line as a scan shows it.
#[derive(Clone, Copy, Debug)]
pub struct LineRef<'a> {
    /// When it was printed, and its id.
    pub key: LineKey,
    /// Level.
    pub level: LogLevel,
    /// Run that printed it.
    pub run_id: Option<&'a str>,
    /// Text.
    pub message: &'a str,
    /// Which of the texts that [`encode_shared`] is given the message is part of.
    pub source: Option<u32>,
    /// Further attributes, a JSON object.
    pub attributes: Option<&'a str>,
}

impl SegmentLine {
    /// The line, borrowed.
    pub fn as_ref(&self) -> LineRef<'_> {
        LineRef {
            key: self.key,
            level: self.level,
            run_id: self.run_id.as_deref(),
            message: &self.message,
            source: None,
            attributes: self.attributes.as_deref(),
        }
    }
}

impl LineRef<'_> {
    /// Bytes of text in the line.
    pub fn text_bytes(&self) -> usize {
        self.message.len() + self.run_id.map_or(0, str::len) + self.attributes.map_or(0, str::len)
    }
}

/// What is known of a segment without decoding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Time of the oldest line, microseconds.
    pub min_time: i64,
    /// Time of the newest line, microseconds.
    pub max_time: i64,
    /// Number of lines.
    pub lines: usize,
    /// Which levels occur.
    pub levels: LevelSet,
    /// Bytes of text before compression.
    pub text_bytes: usize,
    /// Which runs may occur.
    pub runs: RunSet,
}

impl SegmentInfo {
    /// Whether it is so large that writing its lines again, with others, is not worth it.
    pub fn is_full(&self) -> bool {
        self.lines >= MAX_LINES / WORTH_MERGING || self.text_bytes >= MAX_TEXT_BYTES / WORTH_MERGING
    }

    /// Whether a search is to know which texts it may have, see [`Grams`].
    pub fn is_worth_grams(&self) -> bool {
        tokens::is_worth_grams(self.lines)
    }

    /// The tier that merging would have brought it to, had its lines come one by one.
    pub fn tier(&self) -> i64 {
        self.lines.checked_ilog(FAN_IN as usize).map_or(0, i64::from)
    }
}

/// How many of the first of these segments, given by lines and bytes of text, are to become one, and whether the next
/// would not fit. One alone is taken in any case: as a full one it makes room in its tier.
pub fn fitting(sizes: &[(i64, i64)]) -> (usize, bool) {
    let (mut lines, mut text_bytes) = (0, 0);
    for (n, (more_lines, more_bytes)) in sizes.iter().enumerate() {
        lines += more_lines;
        text_bytes += more_bytes;
        let fits = usize::try_from(lines).is_ok_and(|n| n <= MAX_LINES)
            && usize::try_from(text_bytes).is_ok_and(|n| n <= MAX_TEXT_BYTES);
        if !fits && n > 0 {
            return (n, true);
        }
    }
    (sizes.len(), false)
}

/// A segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What is known of it.
    pub info: SegmentInfo,
    /// The Parquet file.
    pub body: Bytes,
}

/// A set of log levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelSet(u8);

impl LevelSet {
    /// Every level.
    pub const ALL: Self = Self((1 << LogLevel::ALL.len()) - 1);

    /// The set with `level` in it.
    #[must_use]
    pub fn with(self, level: LogLevel) -> Self {
        Self(self.0 | 1 << level.code())
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Every level that is not in it.
    #[must_use]
    pub fn complement(self) -> Self {
        Self(!self.0).and(Self::ALL)
    }

    /// Whether `level` is in it.
    pub fn contains(self, level: LogLevel) -> bool {
        self.0 & 1 << level.code() != 0
    }

    /// The set with these bits; bits that stand for no level are dropped.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits).and(Self::ALL)
    }

    /// The set as bits; bit `n` is the level with code `n`.
    pub fn bits(self) -> u8 {
        self.0
    }
}
