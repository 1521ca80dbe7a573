//! Figures over time, and counts that know their bound.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::Serialize;

use super::{LogLevel, UnknownName};

/// How long a bucket of a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An hour of UTC.
    Hour,
    /// A day of a time zone.
    Day,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 2] = [Self::Hour, Self::Day];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "Hour",
            Self::Day => "Day",
        }
    }
}

impl FromStr for Step {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|step| step.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownName {
                what: "step",
                given: name.chars().take(100).collect(),
                expected: Self::ALL.map(Self::as_str).join(", "),
            })
    }
}

/// Figures of the runs that began in a stretch of time, and the lines printed in it. Durations are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// First moment of it.
    pub from: Timestamp,
    /// First moment after it.
    pub to: Timestamp,
    /// Runs that ended with a result.
    pub succeeded_runs: i64,
    /// Runs that failed.
    pub failed_runs: i64,
    /// Runs that have not ended.
    pub in_progress_runs: i64,
    /// Half of the successful runs took at most this long.
    pub p50_microseconds: Option<i64>,
    /// 90 % of the successful runs took at most this long.
    pub p90_microseconds: Option<i64>,
    /// 99 % of the successful runs took at most this long.
    pub p99_microseconds: Option<i64>,
    /// Log lines by level; levels without a line are left out.
    pub logs: BTreeMap<LogLevel, i64>,
}

/// A count that ends at a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many, or the bound.
    pub count: i64,
    /// Whether there may be more.
    pub more: bool,
}

impl Count {
    /// How many, if that is certain.
    pub fn whole(self) -> Option<i64> {
        (!self.more).then_some(self.count)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.count.to_string();
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        f.write_str(if self.more { "+" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capped_count_says_so() {
        let shown = |count, more| Count { count, more }.to_string();
        assert_eq!(shown(10_000, true), "10,000+");
        assert_eq!(shown(999, false), "999");
        assert_eq!(shown(1_234_567, false), "1,234,567");
    }

    #[test]
    fn a_step_is_named() {
        assert_eq!("hour".parse(), Ok(Step::Hour));
        assert!(
            "week"
                .parse::<Step>()
                .unwrap_err()
                .to_string()
                .contains("Hour, Day")
        );
    }
}
