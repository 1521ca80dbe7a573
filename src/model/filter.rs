//! Filters on the columns of runs and log lines.

use serde::{Deserialize, Serialize};

use super::{LogLevel, RunStatus, SourceType, UnknownName};

/// Conditions joined by All (and) or Any (or), never mixed. No condition lets every row through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// How the conditions are joined.
    #[serde(rename = "match", default)]
    pub matching: Match,
    /// The conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// How conditions are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Match {
    /// Every condition holds.
    #[default]
    All,
    /// At least one condition holds.
    Any,
}

/// One column compared with one or more values. Several values mean: any of them (`Equals`, `Contains`, comparisons),
/// or none of them (`NotEquals`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The column.
    pub column: Column,
    /// How to compare.
    pub operator: Operator,
    /// What to compare with. Response Time takes milliseconds, with an optional fraction.
    #[schemars(length(min = 1, max = 50))]
    pub values: Vec<String>,
}

/// A column that can be filtered: all but Executed On and Timestamp, which the range is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Column {
    /// Run: its id. Log line: the id of its run.
    #[serde(rename = "Run ID")]
    RunId,
    /// Run: status.
    Status,
    /// Run: version of its deployment.
    #[serde(rename = "Deployment Version")]
    DeploymentVersion,
    /// Run: response time in milliseconds.
    #[serde(rename = "Response Time")]
    ResponseTime,
    /// Run: function called.
    Function,
    /// Run: kind of caller.
    #[serde(rename = "Source Type")]
    SourceType,
    /// Run: caller.
    Source,
    /// Log line: its id.
    #[serde(rename = "Log ID")]
    LogId,
    /// Log line: level.
    #[serde(rename = "Log Level")]
    LogLevel,
    /// Log line: text.
    #[serde(rename = "Log Message")]
    LogMessage,
}

/// How a column is compared. `Contains` ignores case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Operator {
    /// Is the value.
    Equals,
    /// Is not the value.
    NotEquals,
    /// Has the value in it.
    Contains,
    /// `<`, Response Time only.
    LessThan,
    /// `>`, Response Time only.
    GreaterThan,
    /// `<=`, Response Time only.
    AtMost,
    /// `>=`, Response Time only.
    AtLeast,
}

/// A filter that can not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The column is not one of this table.
    #[error("{column} is not a column of {table}")]
    WrongTable {
        /// The column.
        column: &'static str,
        /// `runs` or `logs`.
        table: &'static str,
    },
    /// The column can not be compared that way.
    #[error("{column} can not be compared with {operator:?}; use {allowed}")]
    WrongOperator {
        /// The column.
        column: &'static str,
        /// The operator given.
        operator: Operator,
        /// What can be used.
        allowed: &'static str,
    },
    /// No value to compare with.
    #[error("{column}: give at least one value")]
    NoValue {
        /// The column.
        column: &'static str,
    },
    /// A value that the column can not have.
    #[error("{column}: {message}")]
    WrongValue {
        /// The column.
        column: &'static str,
        /// Why.
        message: String,
    },
}

impl Column {
    /// The heading shown to people and used in filters and CSV files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunId => "Run ID",
            Self::Status => "Status",
            Self::DeploymentVersion => "Deployment Version",
            Self::ResponseTime => "Response Time",
            Self::Function => "Function",
            Self::SourceType => "Source Type",
            Self::Source => "Source",
            Self::LogId => "Log ID",
            Self::LogLevel => "Log Level",
            Self::LogMessage => "Log Message",
        }
    }

    fn is_of_runs(self) -> bool {
        !matches!(self, Self::LogId | Self::LogLevel | Self::LogMessage)
    }

    fn is_of_logs(self) -> bool {
        matches!(
            self,
            Self::LogId | Self::LogLevel | Self::LogMessage | Self::RunId
        )
    }
}

impl Filter {
    /// Checks that every condition can be applied to runs.
    pub fn check_runs(&self) -> Result<(), FilterError> {
        self.check("runs", Column::is_of_runs)
    }

    /// Checks that every condition can be applied to log lines.
    pub fn check_logs(&self) -> Result<(), FilterError> {
        self.check("logs", Column::is_of_logs)
    }

    fn check(&self, table: &'static str, belongs: fn(Column) -> bool) -> Result<(), FilterError> {
        self.conditions.iter().try_for_each(|condition| {
            let column = condition.column.as_str();
            if !belongs(condition.column) {
                return Err(FilterError::WrongTable { column, table });
            }
            condition.check()
        })
    }
}

impl Condition {
    fn check(&self) -> Result<(), FilterError> {
        let column = self.column.as_str();
        let listed = matches!(
            self.column,
            Column::Status | Column::SourceType | Column::LogLevel
        );
        let (allowed, text): (&[Operator], _) = match self.column {
            _ if listed => (&[Operator::Equals, Operator::NotEquals], "Equals or NotEquals"),
            Column::ResponseTime => (
                &[
                    Operator::Equals,
                    Operator::NotEquals,
                    Operator::LessThan,
                    Operator::GreaterThan,
                    Operator::AtMost,
                    Operator::AtLeast,
                ],
                "Equals, NotEquals, LessThan, GreaterThan, AtMost or AtLeast",
            ),
            _ => (
                &[Operator::Equals, Operator::NotEquals, Operator::Contains],
                "Equals, NotEquals or Contains",
            ),
        };
        if !allowed.contains(&self.operator) {
            return Err(FilterError::WrongOperator {
                column,
                operator: self.operator,
                allowed: text,
            });
        }
        if self.values.is_empty() {
            return Err(FilterError::NoValue { column });
        }
        self.values.iter().try_for_each(|value| {
            self.check_value(value)
                .map_err(|message| FilterError::WrongValue { column, message })
        })
    }

    fn check_value(&self, value: &str) -> Result<(), String> {
        let known = |result: Result<(), UnknownName>| result.map_err(|e| e.to_string());
        match self.column {
            Column::Status => known(value.parse::<RunStatus>().map(drop)),
            Column::SourceType => known(value.parse::<SourceType>().map(drop)),
            Column::LogLevel => known(value.parse::<LogLevel>().map(drop)),
            Column::ResponseTime => milliseconds_to_micros(value).map(drop),
            Column::DeploymentVersion if self.operator != Operator::Contains => value
                .parse::<i64>()
                .map(drop)
                .map_err(|_| format!("{value:?} is not a version; expected a whole number")),
            _ => Ok(()),
        }
    }
}

/// Parses a response time given in milliseconds (`12` or `12.345`) to microseconds.
pub fn milliseconds_to_micros(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a response time; expected milliseconds such as 250 or 12.5");
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return Err(wrong());
    }
    let whole: i64 = whole.parse().map_err(|_| wrong())?;
    let fraction: i64 = format!("{fraction:0<3}").parse().map_err(|_| wrong())?;
    whole
        .checked_mul(1_000)
        .and_then(|micros| micros.checked_add(fraction))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(column: Column, operator: Operator, value: &str) -> Filter {
        Filter {
            matching: Match::All,
            conditions: vec![Condition {
                column,
                operator,
                values: vec![value.into()],
            }],
        }
    }

    #[test]
    fn a_wrong_filter_names_the_column_and_the_remedy() {
        let wrong = |f: Filter| f.check_runs().unwrap_err().to_string();
        assert_eq!(
            wrong(filter(Column::Status, Operator::Contains, "x")),
            "Status can not be compared with Contains; use Equals or NotEquals"
        );
        assert!(wrong(filter(Column::Status, Operator::Equals, "Great")).contains("In Progress, Success"));
        assert!(wrong(filter(Column::LogLevel, Operator::Equals, "Info")).contains("not a column of runs"));
        assert!(wrong(filter(Column::ResponseTime, Operator::AtLeast, "1s")).contains("milliseconds"));
        assert!(wrong(filter(Column::DeploymentVersion, Operator::Equals, "v1")).contains("whole number"));
        assert_eq!(
            filter(Column::Source, Operator::Contains, "bill").check_runs(),
            Ok(())
        );
        assert_eq!(filter(Column::RunId, Operator::Equals, "r").check_logs(), Ok(()));
    }

    #[test]
    fn response_times_are_exact() {
        assert_eq!(milliseconds_to_micros("12.345"), Ok(12_345));
        assert_eq!(milliseconds_to_micros("0.5"), Ok(500));
        assert_eq!(milliseconds_to_micros("7"), Ok(7_000));
        for wrong in ["", ".5", "1.2345", "-1", "1e3", "99999999999999999999"] {
            assert!(milliseconds_to_micros(wrong).is_err(), "{wrong}");
        }
    }
}
