//! Following a log: what was stored between two looks at it.
//!
//! Lines do not come in the order of their times: prints appear when their run ends, clocks differ. What only grows is what
//! is stored of each stream. So a position says of each stream up to where all of its records are stored, and what was
//! stored between two positions is exact, whatever was merged, read twice or stored by another replica meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::LogCursor;
use crate::model::{Filter, LogId, ScriptKey, TimeRange};

/// How far a stream is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Every record that begins before this offset is stored.
    pub offset: i64,
    /// More of it may come.
    pub open: bool,
}

/// How far the log of a script is stored: its streams of which more may come, and the newest others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// Lines up to here are in segments with numbers up to this one.
    pub segment: i64,
    /// The streams by their numbers.
    pub streams: BTreeMap<i64, Mark>,
}

impl LogPosition {
    /// Whether a line lies before this position.
    pub fn covers(&self, id: LogId) -> bool {
        match self.streams.get(&id.stream) {
            Some(mark) => id.offset < mark.offset,
            // Of streams that are not named, the old ones had ended.
            None => self
                .streams
                .last_key_value()
                .is_some_and(|(last, _)| id.stream < *last),
        }
    }

    /// From where on the lines of a stream, which `upto` names, came after this position.
    fn begin(&self, stream: i64, upto: Mark) -> i64 {
        match (self.streams.get(&stream), self.streams.last_key_value()) {
            (Some(mark), _) => mark.offset,
            (None, Some((last, _))) if stream < *last && !upto.open => upto.offset,
            (None, _) => 0,
        }
    }

    /// The offsets of each stream that lie between this position and a later one.
    pub(super) fn between(&self, upto: &Self) -> BTreeMap<i64, (i64, i64)> {
        let streams = upto.streams.iter().map(|(stream, mark)| {
            let begin = self.begin(*stream, *mark);
            (*stream, (begin, mark.offset))
        });
        streams.filter(|(_, (begin, end))| begin < end).collect()
    }
}

/// Which lines were stored between two positions.
#[derive(Clone, Debug)]
pub struct TailQuery {
    /// The script.
    pub script: ScriptKey,
    /// When they were printed.
    pub range: TimeRange,
    /// Which of them. Callers have checked it.
    pub filter: Filter,
    /// From here on.
    pub after: LogPosition,
    /// Up to here.
    pub upto: LogPosition,
    /// Go on after this line.
    pub from: Option<LogCursor>,
    /// At most so many.
    pub limit: usize,
    /// Segments that need not be read: all of their lines lie before `after`.
    pub skip: Arc<BTreeSet<i64>>,
}

/// Lines that were stored between two positions, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// The lines.
    pub rows: Vec<crate::model::LogLine>,
    /// There are more, after the last of these.
    pub more: bool,
    /// Segments of which every line lies before `upto`.
    pub complete: Vec<i64>,
    /// The first segment with lines that do not.
    pub incomplete: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(streams: &[(i64, i64, bool)]) -> LogPosition {
        LogPosition {
            segment: 0,
            streams: streams
                .iter()
                .map(|&(stream, offset, open)| (stream, Mark { offset, open }))
                .collect(),
        }
    }

    #[test]
    fn what_lies_between_two_positions_is_told_stream_by_stream() {
        let after = position(&[(3, 100, true), (5, 50, true)]);
        // 1: had ended long before. 4: begun by another replica, committed late. 6: new.
        let upto = position(&[
            (1, 70, false),
            (3, 100, true),
            (4, 20, true),
            (5, 60, false),
            (6, 10, false),
        ]);
        let between: Vec<_> = after.between(&upto).into_iter().collect();
        assert_eq!(between, [(4, (0, 20)), (5, (50, 60)), (6, (0, 10))]);
        let id = |stream, offset| LogId {
            stream,
            offset,
            index: 0,
        };
        assert!(after.covers(id(3, 99)) && !after.covers(id(3, 100)));
        assert!(after.covers(id(2, 1 << 40)) && !after.covers(id(6, 0)));
        assert!(!LogPosition::default().covers(id(1, 0)));
    }
}
