//! Ranges of time: explicit, "the last so long", and the presets of the dashboard.

use jiff::{SignedDuration, Timestamp, ToSpan, civil::Weekday, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// Half-open range `[from, to)`; an open end is unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// First moment in the range.
    pub from: Option<Timestamp>,
    /// First moment after it.
    pub to: Option<Timestamp>,
}

/// A named range, counted in whole days of a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[allow(missing_docs)] // the names say it
pub enum Preset {
    Today,
    Yesterday,
    ThisWeek,
    ThisMonth,
    LastMonth,
    Last30Days,
    Last90Days,
    ThisYear,
    LastYear,
    AllTime,
}

/// A range that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeRangeError {
    /// `from` is not before `to`.
    #[error("the range is empty: from ({from}) must be before to ({to})")]
    Empty {
        /// Start given.
        from: Timestamp,
        /// End given.
        to: Timestamp,
    },
    /// Not an age.
    #[error("{0:?} is not an age; expected a positive whole number and a unit: 90s, 15m, 12h, 7d or 4w")]
    Age(String),
    /// Outside of the time that can be represented.
    #[error("the range reaches outside of the representable time")]
    OutOfBounds,
}

impl From<jiff::Error> for TimeRangeError {
    fn from(_: jiff::Error) -> Self {
        Self::OutOfBounds
    }
}

impl TimeRange {
    /// All time.
    pub const ALL: Self = Self { from: None, to: None };

    /// A checked explicit range.
    pub fn new(from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Self, TimeRangeError> {
        match (from, to) {
            (Some(from), Some(to)) if from >= to => Err(TimeRangeError::Empty { from, to }),
            _ => Ok(Self { from, to }),
        }
    }

    /// The time from `age` before `now` on.
    pub fn last(age: SignedDuration, now: Timestamp) -> Result<Self, TimeRangeError> {
        Ok(Self {
            from: Some(now.checked_sub(age)?),
            to: None,
        })
    }

    /// The named range at `now` in `zone`; weeks begin on Monday.
    pub fn preset(preset: Preset, now: Timestamp, zone: &TimeZone) -> Result<Self, TimeRangeError> {
        let today = now.to_zoned(zone.clone()).date();
        let month = today.first_of_month();
        let year = today.first_of_year();
        let tomorrow = today.checked_add(1.day())?;
        let days = match preset {
            Preset::AllTime => return Ok(Self::ALL),
            Preset::Today => (today, tomorrow),
            Preset::Yesterday => (today.checked_sub(1.day())?, today),
            Preset::ThisWeek => {
                let monday = today.checked_sub(i64::from(today.weekday().since(Weekday::Monday)).days())?;
                (monday, monday.checked_add(7.days())?)
            }
            Preset::ThisMonth => (month, month.checked_add(1.month())?),
            Preset::LastMonth => (month.checked_sub(1.month())?, month),
            Preset::Last30Days => (today.checked_sub(29.days())?, tomorrow),
            Preset::Last90Days => (today.checked_sub(89.days())?, tomorrow),
            Preset::ThisYear => (year, year.checked_add(1.year())?),
            Preset::LastYear => (year.checked_sub(1.year())?, year),
        };
        let at = |date: jiff::civil::Date| -> Result<_, TimeRangeError> {
            Ok(Some(date.to_zoned(zone.clone())?.timestamp()))
        };
        Ok(Self {
            from: at(days.0)?,
            to: at(days.1)?,
        })
    }

    /// Whether `time` lies in the range.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to)
    }
}

/// Parses an age such as `90s`, `15m`, `12h`, `7d` or `4w`.
pub fn parse_age(text: &str) -> Result<SignedDuration, TimeRangeError> {
    let wrong = || TimeRangeError::Age(text.chars().take(40).collect());
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - unit.len_utf8()]
        .parse()
        .map_err(|_| wrong())?;
    if count <= 0 {
        return Err(wrong());
    }
    count
        .checked_mul(seconds)
        .map(SignedDuration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn presets_are_whole_days_of_the_zone() {
        let now = at("2026-11-22T01:30:00Z"); // a Sunday; still Saturday in New York
        let utc = TimeZone::UTC;
        let new_york = TimeZone::get("America/New_York").unwrap_or(TimeZone::fixed(jiff::tz::offset(-5)));
        let range = |p, z| TimeRange::preset(p, now, z).unwrap();
        assert_eq!(range(Preset::Today, &utc).from, Some(at("2026-11-22T00:00:00Z")));
        assert_eq!(
            range(Preset::Today, &new_york).from,
            Some(at("2026-11-21T05:00:00Z"))
        );
        assert_eq!(
            range(Preset::ThisWeek, &utc).from,
            Some(at("2026-11-16T00:00:00Z"))
        );
        assert_eq!(
            range(Preset::LastMonth, &utc).to,
            Some(at("2026-11-01T00:00:00Z"))
        );
        assert_eq!(
            range(Preset::Last30Days, &utc).from,
            Some(at("2026-10-24T00:00:00Z"))
        );
        assert_eq!(range(Preset::AllTime, &utc), TimeRange::ALL);
    }

    #[test]
    fn ages_are_positive_and_have_a_unit() {
        assert_eq!(parse_age("7d").unwrap(), SignedDuration::from_hours(168));
        assert_eq!(parse_age("90s").unwrap(), SignedDuration::from_secs(90));
        for wrong in [
            "",
            "d",
            "0d",
            "-1d",
            "7",
            "7 d",
            "7y",
            "99999999999999999999d",
            "7é",
        ] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_range_is_refused() {
        let (from, to) = (at("2026-01-02T00:00:00Z"), at("2026-01-01T00:00:00Z"));
        assert!(
            TimeRange::new(Some(from), Some(to))
                .unwrap_err()
                .to_string()
                .contains("must be before")
        );
        assert!(TimeRange::new(Some(to), Some(from)).unwrap().contains(to));
        assert!(!TimeRange::new(Some(to), Some(from)).unwrap().contains(from));
    }
}
