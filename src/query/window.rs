//! Which parts of a stretch of time are answered from rollups, and which must be read from rows.

use std::ops::Range;

/// Microseconds of an hour.
pub const HOUR: i64 = 3_600_000_000;
/// Hours of a day.
pub const HOURS_A_DAY: i64 = 24;

/// The parts of a window. They do not overlap, and together they are the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Whole days, counted from the epoch in UTC.
    pub days: Range<i64>,
    /// Whole hours, counted from the epoch.
    pub hours: Vec<Range<i64>>,
    /// The rest, microseconds.
    pub rows: Vec<Range<i64>>,
}

/// Splits a window of microseconds. An hour with a moment of `cuts` within it is read from its rows, since it belongs to
/// two buckets. `by_day`: whether days can be taken whole.
pub fn split(window: &Range<i64>, cuts: impl IntoIterator<Item = i64>, by_day: bool) -> Parts {
    let mut parts = Parts::default();
    if window.is_empty() {
        return parts;
    }
    let first = ceil(window.start);
    let last = window.end.div_euclid(HOUR);
    if first > last || (first == last && !is_whole(window.start) && !is_whole(window.end)) {
        parts.rows.push(window.clone());
        return parts;
    }
    if !is_whole(window.start) {
        parts.rows.push(window.start..first * HOUR);
    }
    let mut begin = first;
    for cut in cuts {
        let hour = cut.div_euclid(HOUR);
        if !is_whole(cut) && (begin..last).contains(&hour) {
            push(&mut parts.hours, begin..hour);
            parts.rows.push(hour * HOUR..(hour + 1) * HOUR);
            begin = hour + 1;
        }
    }
    let days = (begin + HOURS_A_DAY - 1).div_euclid(HOURS_A_DAY)..last.div_euclid(HOURS_A_DAY);
    if by_day && begin == first && !days.is_empty() {
        push(&mut parts.hours, begin..days.start * HOURS_A_DAY);
        push(&mut parts.hours, days.end * HOURS_A_DAY..last);
        parts.days = days;
    } else {
        push(&mut parts.hours, begin..last);
    }
    if !is_whole(window.end) {
        parts.rows.push(last * HOUR..window.end);
    }
    parts
}

impl Parts {
    /// Days and hours as hours.
    pub fn all_hours(&self) -> impl Iterator<Item = Range<i64>> {
        let days = self.days.start * HOURS_A_DAY..self.days.end * HOURS_A_DAY;
        self.hours
            .iter()
            .cloned()
            .chain((!days.is_empty()).then_some(days))
    }
}

fn push(ranges: &mut Vec<Range<i64>>, range: Range<i64>) {
    if !range.is_empty() {
        ranges.push(range);
    }
}

/// The first hour that does not begin before `micros`.
fn ceil(micros: i64) -> i64 {
    let hour = micros.div_euclid(HOUR);
    if is_whole(micros) {
        hour.max(i64::MIN / HOUR)
    } else {
        hour + 1
    }
}

/// Whether an hour begins there; an open end counts as such.
fn is_whole(micros: i64) -> bool {
    micros == i64::MIN || micros == i64::MAX || micros.rem_euclid(HOUR) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micros(parts: &Parts) -> Vec<Range<i64>> {
        let mut all = parts.rows.clone();
        all.extend(
            parts
                .all_hours()
                .map(|hours| hours.start * HOUR..hours.end * HOUR),
        );
        all.sort_by_key(|range| range.start);
        all
    }

    proptest! {
        #[test]
        fn the_parts_are_the_window(
            start in -50 * HOUR..50 * HOUR,
            length in 0..100 * HOUR,
            whole in any::<[bool; 2]>(),
            cuts in proptest::collection::btree_set(-60 * HOUR..160 * HOUR, 0..4),
            by_day in any::<bool>(),
        ) {
            let down = |time: i64, whole| if whole { time.div_euclid(HOUR) * HOUR } else { time };
            let window = down(start, whole[0])..down(start + length, whole[1]);
            let parts = split(&window, cuts, by_day);
            let mut at = window.start;
            for range in micros(&parts) {
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end > at);
                at = range.end;
            }
            if !window.is_empty() {
                prop_assert_eq!(at, window.end);
            }
        }
    }

    #[test]
    fn most_of_a_window_is_whole_days() {
        let day = HOUR * HOURS_A_DAY;
        let parts = split(&(day * 3 + 5 * HOUR + 7..day * 90 + 2 * HOUR), [], true);
        assert_eq!(parts.days, 4..90);
        assert_eq!(parts.hours, vec![3 * 24 + 6..4 * 24, 90 * 24..90 * 24 + 2]);
        assert_eq!(parts.rows, vec![day * 3 + 5 * HOUR + 7..day * 3 + 6 * HOUR]);
        let open = split(&(i64::MIN..i64::MAX), [], true);
        assert!(open.rows.is_empty() && open.days.contains(&20_000) && open.days.contains(&-20_000));
    }

    #[test]
    fn an_hour_of_two_buckets_is_read_from_its_rows() {
        let parts = split(&(0..10 * HOUR), [HOUR / 2 + 3 * HOUR, 5 * HOUR], true);
        assert_eq!(parts.rows, vec![3 * HOUR..4 * HOUR]);
        assert_eq!(parts.hours, vec![0..3, 4..10]);
    }
}
