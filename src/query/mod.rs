//! From a filter to SQL, and to a test on log lines: the one core behind web, exports and status.
//!
//! Both sides mean the same by an operator: `Equals` is case-sensitive but for the fixed names (status, source type, log
//! level), `Contains` ignores the case of ASCII letters, `NotEquals` is passed by what has no value at all, and no other
//! operator is.

mod groups;
mod limit;
mod lines;
mod runs;
mod sql;
pub mod window;

use std::ops::Range;

use jiff::Timestamp;

use crate::model::TimeRange;

pub use groups::GroupFilter;
pub use limit::{Stop, TimeLimit, Waiting, within};
pub use lines::LineFilter;
pub use runs::{Dialect, hint, push_conditions, push_runs_order, push_runs_where};
pub use sql::{Sql, Value};

/// The microseconds that lie in a range. Its ends may be finer than a microsecond, so both are rounded up: a moment kept
/// to the microsecond is then in the one exactly when it is in the other.
pub fn micros_range(range: &TimeRange) -> Range<i64> {
    range.from.map_or(i64::MIN, micros_at_or_after)..range.to.map_or(i64::MAX, micros_at_or_after)
}

fn micros_at_or_after(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    // Never out of range: jiff's own times are not.
    i64::try_from(nanos.div_euclid(1_000) + i128::from(nanos.rem_euclid(1_000) > 0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_the_same_moments_in_microseconds() {
        for from in [-2_001i64, -2_000, -1_999, 0, 1, 999, 1_000, 1_001] {
            let range = TimeRange {
                from: Some(Timestamp::from_nanosecond(from.into()).unwrap()),
                to: Some(Timestamp::from_nanosecond(i128::from(from) + 1_500).unwrap()),
            };
            for micros in -5..5 {
                let moment = Timestamp::from_microsecond(micros).unwrap();
                assert_eq!(
                    micros_range(&range).contains(&micros),
                    range.contains(moment),
                    "{from} {micros}"
                );
            }
        }
    }
}
