//! From a range as it was asked for to the range that is applied.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::model::{Preset, TimeRange, TimeRangeError, parse_age};

/// Days shown where no range is asked for.
pub const DEFAULT_DAYS: i64 = 7;

/// A range as asked for: `from` and `to`, or `last`, or `preset`, or nothing (the last [`DEFAULT_DAYS`] days).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// First moment.
    pub from: Option<Timestamp>,
    /// First moment after it.
    pub to: Option<Timestamp>,
    /// An age such as `7d`.
    pub last: Option<String>,
    /// A named range, in days of UTC.
    pub preset: Option<Preset>,
}

/// A range that can not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// More than one way at once.
    #[error("give the range in one way only: from and to, or last, or preset")]
    TwoWays,
    /// It makes no sense.
    #[error(transparent)]
    Range(#[from] TimeRangeError),
}

impl RangeRequest {
    /// The range at `now`. A range without an end stays open: what happens later is not in it only because paging goes
    /// from newest to oldest, so a row whose clock runs ahead is not lost.
    pub fn resolve(&self, now: Timestamp) -> Result<TimeRange, RangeError> {
        let explicit = self.from.is_some() || self.to.is_some();
        let ways = [explicit, self.last.is_some(), self.preset.is_some()];
        if ways.into_iter().filter(|&way| way).count() > 1 {
            return Err(RangeError::TwoWays);
        }
        Ok(if explicit {
            TimeRange::new(self.from, self.to)?
        } else if let Some(last) = &self.last {
            TimeRange::last(parse_age(last)?, now)?
        } else if let Some(preset) = self.preset {
            TimeRange::preset(preset, now, &TimeZone::UTC)?
        } else {
            TimeRange::last(SignedDuration::from_hours(24 * DEFAULT_DAYS), now)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn each_way_gives_its_range() {
        let now = at("2026-03-10T12:00:00Z");
        let resolve = |request: RangeRequest| request.resolve(now).unwrap();
        let none = resolve(RangeRequest::default());
        assert_eq!((none.from, none.to), (Some(at("2026-03-03T12:00:00Z")), None));
        let last = resolve(RangeRequest {
            last: Some("12h".into()),
            ..RangeRequest::default()
        });
        assert_eq!((last.from, last.to), (Some(at("2026-03-10T00:00:00Z")), None));
        let month = resolve(RangeRequest {
            preset: Some(Preset::LastMonth),
            ..RangeRequest::default()
        });
        assert_eq!(
            (month.from, month.to),
            (Some(at("2026-02-01T00:00:00Z")), Some(at("2026-03-01T00:00:00Z")))
        );
        let explicit = resolve(RangeRequest {
            to: Some(now),
            ..RangeRequest::default()
        });
        assert_eq!((explicit.from, explicit.to), (None, Some(now)));
        assert_eq!(
            resolve(RangeRequest {
                preset: Some(Preset::AllTime),
                ..RangeRequest::default()
            }),
            TimeRange::ALL
        );
    }

    #[test]
    fn two_ways_and_empty_ranges_are_refused() {
        let now = at("2026-03-10T12:00:00Z");
        let two = RangeRequest {
            from: Some(now),
            last: Some("7d".into()),
            ..RangeRequest::default()
        };
        assert_eq!(two.resolve(now), Err(RangeError::TwoWays));
        let empty = RangeRequest {
            from: Some(now),
            to: Some(now),
            ..RangeRequest::default()
        };
        assert!(matches!(empty.resolve(now), Err(RangeError::Range(_))));
        let wrong = RangeRequest {
            last: Some("yesterday".into()),
            ..RangeRequest::default()
        };
        assert!(wrong.resolve(now).unwrap_err().to_string().contains("7d"));
    }
}
