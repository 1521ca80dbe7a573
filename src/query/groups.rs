//! Filters that the rollups can answer: those that ask for version, function and status alone.

use crate::model::{Column, Condition, Filter, FilterError, Match, Operator, RunStatus};

use super::lines::TextTest;

/// A filter as a test on a group of runs that have version, function and status in common.
#[derive(Clone, Debug)]
pub struct GroupFilter {
    any: bool,
    tests: Vec<Test>,
}

#[derive(Clone, Debug)]
enum Test {
    /// The status is (`true`) or is not (`false`) one of these.
    Status(bool, Vec<RunStatus>),
    /// The version is (`true`) or is not (`false`) one of these.
    Version(bool, Vec<i64>),
    VersionContains(TextTest),
    Function(TextTest),
}

impl GroupFilter {
    /// The columns that groups have beside the status.
    pub const NAMED: &'static [Column] = &[Column::DeploymentVersion, Column::Function];

    /// The filter as such a test; none where it asks for more.
    pub fn new(filter: &Filter) -> Result<Option<Self>, FilterError> {
        filter.check_runs()?;
        let mut tests = Vec::with_capacity(filter.conditions.len());
        for condition in &filter.conditions {
            match Test::new(condition)? {
                Some(test) => tests.push(test),
                None => return Ok(None),
            }
        }
        let any = filter.matching == Match::Any && !tests.is_empty();
        Ok(Some(Self { any, tests }))
    }

    /// Whether the runs of a group pass.
    pub fn passes(&self, version: i64, function: &str, status: RunStatus) -> bool {
        let mut results = self
            .tests
            .iter()
            .map(|test| test.passes(version, function, status));
        if self.any {
            results.any(|passes| passes)
        } else {
            results.all(|passes| passes)
        }
    }

    /// Whether the function makes a difference.
    pub fn asks_for_function(&self) -> bool {
        self.tests.iter().any(|test| matches!(test, Test::Function(_)))
    }
}

impl Test {
    fn new(condition: &Condition) -> Result<Option<Self>, FilterError> {
        let column = condition.column.as_str();
        let wrong = |message: String| FilterError::WrongValue { column, message };
        let equals = condition.operator == Operator::Equals;
        let values = condition.values.iter();
        Ok(Some(match condition.column {
            Column::Status => {
                let statuses = values.map(|v| v.parse::<RunStatus>().map_err(|e| wrong(e.to_string())));
                Self::Status(equals, statuses.collect::<Result<_, _>>()?)
            }
            Column::DeploymentVersion if condition.operator == Operator::Contains => {
                Self::VersionContains(TextTest::new(condition))
            }
            Column::DeploymentVersion => {
                let versions = values.map(|v| v.parse::<i64>().map_err(|e| wrong(e.to_string())));
                Self::Version(equals, versions.collect::<Result<_, _>>()?)
            }
            Column::Function => Self::Function(TextTest::new(condition)),
            _ => return Ok(None),
        }))
    }

    fn passes(&self, version: i64, function: &str, status: RunStatus) -> bool {
        match self {
            Self::Status(equals, statuses) => statuses.contains(&status) == *equals,
            Self::Version(equals, versions) => versions.contains(&version) == *equals,
            Self::VersionContains(test) => test.matches(Some(&version.to_string())),
            Self::Function(test) => test.matches(Some(function)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(matching: Match, conditions: &[(Column, Operator, &str)]) -> Filter {
        Filter {
            matching,
            conditions: conditions
                .iter()
                .map(|&(column, operator, value)| Condition {
                    column,
                    operator,
                    values: vec![value.to_owned()],
                })
                .collect(),
        }
    }

    #[test]
    fn groups_pass_as_their_runs_would() {
        let failed = (Column::Status, Operator::Equals, "failed");
        let second = (Column::DeploymentVersion, Operator::Contains, "2");
        let check = (Column::Function, Operator::NotEquals, "check");
        let group = |matching, conditions: &[_]| {
            let filter = GroupFilter::new(&filter(matching, conditions)).unwrap().unwrap();
            move |version, function: &str, status| filter.passes(version, function, status)
        };
        let all = group(Match::All, &[failed, second]);
        assert!(all(12, "f", RunStatus::Failed));
        assert!(!all(1, "f", RunStatus::Failed) && !all(2, "f", RunStatus::Success));
        let any = group(Match::Any, &[failed, check]);
        assert!(any(1, "check", RunStatus::Failed) && any(1, "f", RunStatus::Success));
        assert!(!any(1, "check", RunStatus::InProgress));
        assert!(group(Match::Any, &[])(1, "f", RunStatus::Success));
    }

    #[test]
    fn other_columns_need_rows() {
        let source = filter(Match::All, &[(Column::Source, Operator::Equals, "x")]);
        assert!(GroupFilter::new(&source).unwrap().is_none());
        assert!(GroupFilter::new(&filter(Match::All, &[(Column::LogId, Operator::Equals, "x")])).is_err());
    }
}
