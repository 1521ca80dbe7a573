//! The condition of a query for log lines, as a test on one line. Stores keep lines in segments, so it runs here.

use memchr::memchr2_iter;

use crate::{
    model::{Column, Condition, Filter, FilterError, LogId, LogLevel, Match, Operator},
    segment::{LevelSet, LineRef, Needles, SegmentInfo},
};

/// A filter on log lines, ready to be applied to many.
#[derive(Clone, Debug)]
pub struct LineFilter {
    any: bool,
    tests: Vec<Test>,
    needles: Needles,
}

#[derive(Clone, Debug)]
enum Test {
    Levels(LevelSet),
    Run(TextTest),
    Message(TextTest),
    /// The id is (`true`) or is not (`false`) one of these.
    Ids(bool, Vec<LogId>),
    IdContains(Vec<String>),
}

/// A test on a text.
#[derive(Clone, Debug)]
pub(super) enum TextTest {
    In(Vec<String>),
    NotIn(Vec<String>),
    /// The parts, in lower case.
    Contains(Vec<String>),
}

impl LineFilter {
    /// Prepares a filter; fails if it can not be applied to log lines.
    pub fn new(filter: &Filter) -> Result<Self, FilterError> {
        filter.check_logs()?;
        let tests = filter
            .conditions
            .iter()
            .map(Test::new)
            .collect::<Result<Vec<_>, _>>()?;
        let any = filter.matching == Match::Any && tests.len() > 1;
        let needles = needles(any, &tests);
        Ok(Self { any, tests, needles })
    }

    /// Texts that the message of a line that passes must have.
    pub fn needles(&self) -> &Needles {
        &self.needles
    }

    /// Whether a line passes.
    pub fn matches(&self, line: &LineRef<'_>) -> bool {
        self.holds(|test| test.matches(line))
    }

    /// Whether a segment may have a line that passes; `false` is certain.
    pub fn may_match(&self, info: &SegmentInfo) -> bool {
        self.holds(|test| match test {
            Test::Levels(levels) => levels.and(info.levels) != LevelSet::default(),
            Test::Run(TextTest::In(ids)) => ids.iter().any(|id| info.runs.may_contain(id)),
            Test::Run(_) | Test::Message(_) | Test::Ids(..) | Test::IdContains(_) => true,
        })
    }

    /// The levels that lines which pass can have.
    pub fn levels(&self) -> LevelSet {
        let levels = |test: &Test| match test {
            Test::Levels(levels) => *levels,
            _ => LevelSet::ALL,
        };
        if self.any {
            return self
                .tests
                .iter()
                .map(levels)
                .fold(LevelSet::default(), LevelSet::or);
        }
        self.tests.iter().map(levels).fold(LevelSet::ALL, LevelSet::and)
    }

    fn holds(&self, test: impl FnMut(&Test) -> bool) -> bool {
        if self.any {
            self.tests.iter().any(test)
        } else {
            self.tests.iter().all(test)
        }
    }
}

/// Texts that a message needs for these tests: for each of them, or for any of them.
fn needles(any: bool, tests: &[Test]) -> Needles {
    let of = |test: &Test| match test {
        Test::Message(TextTest::Contains(parts)) => Some(bytes(parts.iter().map(String::as_str))),
        Test::Message(TextTest::In(values)) => Some(bytes(values.iter().map(String::as_str))),
        _ => None,
    };
    let lists: Vec<Option<Vec<Vec<u8>>>> = tests.iter().map(of).collect();
    let lists = if any {
        let joined: Option<Vec<_>> = lists.into_iter().collect();
        joined.map(|lists| lists.concat()).into_iter().collect()
    } else {
        lists.into_iter().flatten().collect::<Vec<_>>()
    };
    // Every message has the empty text.
    Needles(
        lists
            .into_iter()
            .filter(|list| list.iter().all(|text| !text.is_empty()))
            .collect(),
    )
}

fn bytes<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Vec<u8>> {
    texts.map(|text| text.to_ascii_lowercase().into_bytes()).collect()
}

impl Test {
    fn new(condition: &Condition) -> Result<Self, FilterError> {
        let column = condition.column.as_str();
        let equals = condition.operator == Operator::Equals;
        Ok(match condition.column {
            Column::LogLevel => {
                let mut levels = LevelSet::default();
                for value in &condition.values {
                    let level = value.parse::<LogLevel>().map_err(|e| FilterError::WrongValue {
                        column,
                        message: e.to_string(),
                    })?;
                    levels = levels.with(level);
                }
                Self::Levels(if equals { levels } else { levels.complement() })
            }
            Column::LogId if condition.operator == Operator::Contains => {
                Self::IdContains(lower(&condition.values))
            }
            // An id is equal to its one written form; any other text is no id.
            Column::LogId => Self::Ids(
                equals,
                condition
                    .values
                    .iter()
                    .filter_map(|text| text.parse::<LogId>().ok().filter(|id| id.to_string() == *text))
                    .collect(),
            ),
            Column::RunId => Self::Run(TextTest::new(condition)),
            Column::LogMessage => Self::Message(TextTest::new(condition)),
            _ => {
                return Err(FilterError::WrongTable {
                    column,
                    table: "logs",
                });
            }
        })
    }

    fn matches(&self, line: &LineRef<'_>) -> bool {
        match self {
            Self::Levels(levels) => levels.contains(line.level),
            Self::Run(test) => test.matches(line.run_id),
            Self::Message(test) => test.matches(Some(line.message)),
            Self::Ids(equals, ids) => ids.contains(&line.key.id) == *equals,
            Self::IdContains(parts) => {
                let id = line.key.id.to_string();
                parts.iter().any(|part| id.contains(part.as_str()))
            }
        }
    }
}

impl TextTest {
    /// `Equals`, `NotEquals` or `Contains`.
    pub(super) fn new(condition: &Condition) -> Self {
        match condition.operator {
            Operator::Contains => Self::Contains(lower(&condition.values)),
            Operator::NotEquals => Self::NotIn(condition.values.clone()),
            _ => Self::In(condition.values.clone()),
        }
    }

    /// Whether a text passes; what has none is not equal to any.
    pub(super) fn matches(&self, text: Option<&str>) -> bool {
        let is = |values: &[String]| text.is_some_and(|text| values.iter().any(|v| v == text));
        match self {
            Self::In(values) => is(values),
            Self::NotIn(values) => !is(values),
            Self::Contains(parts) => text.is_some_and(|text| {
                parts
                    .iter()
                    .any(|part| contains(text.as_bytes(), part.as_bytes()))
            }),
        }
    }
}

fn lower(values: &[String]) -> Vec<String> {
    values.iter().map(|v| v.to_ascii_lowercase()).collect()
}

/// Whether `text` has `part` (in lower case) in it, whatever the case of its ASCII letters.
fn contains(text: &[u8], part: &[u8]) -> bool {
    let Some(&first) = part.first() else {
        return true;
    };
    memchr2_iter(first, first.to_ascii_uppercase(), text).any(|at| {
        text.get(at..at + part.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::LineKey;

    fn line<'a>(level: LogLevel, run_id: Option<&'a str>, message: &'a str) -> LineRef<'a> {
        LineRef {
            key: LineKey {
                micros: 0,
                id: LogId {
                    stream: 1,
                    offset: 0xab,
                    index: 2,
                },
            },
            level,
            run_id,
            message,
            source: None,
            attributes: None,
        }
    }

    fn passes(column: Column, operator: Operator, values: &[&str], line: &LineRef<'_>) -> bool {
        let filter = Filter {
            matching: Match::All,
            conditions: vec![Condition {
                column,
                operator,
                values: values.iter().map(|&v| v.to_owned()).collect(),
            }],
        };
        LineFilter::new(&filter).unwrap().matches(line)
    }

    #[test]
    fn contains_ignores_the_case_of_ascii_letters_only() {
        let l = line(LogLevel::Info, Some("run_A"), "Straße GEÖFFNET 100%");
        let has = |part| passes(Column::LogMessage, Operator::Contains, &[part], &l);
        assert!(has("STRA") && has("geÖ") && has("100%") && has("") && has("ffnet"));
        assert!(!has("geö") && !has("100_") && !has("100%%"));
    }

    #[test]
    fn a_line_without_a_run_is_not_equal_to_any_run() {
        let l = line(LogLevel::Info, None, "");
        assert!(passes(Column::RunId, Operator::NotEquals, &["r"], &l));
        assert!(!passes(Column::RunId, Operator::Equals, &["", "r"], &l));
        assert!(!passes(Column::RunId, Operator::Contains, &[""], &l));
    }

    #[test]
    fn ids_and_levels_are_compared_by_their_written_form() {
        let l = line(LogLevel::Warning, None, "");
        assert!(passes(Column::LogId, Operator::Equals, &["x", "1-ab-2"], &l));
        assert!(!passes(Column::LogId, Operator::Equals, &["1-AB-2"], &l));
        assert!(passes(Column::LogId, Operator::NotEquals, &["01-ab-2"], &l));
        assert!(passes(Column::LogId, Operator::Contains, &["AB-"], &l));
        assert!(passes(
            Column::LogLevel,
            Operator::Equals,
            &["info", "WARNING"],
            &l
        ));
        assert!(!passes(
            Column::LogLevel,
            Operator::NotEquals,
            &["info", "WARNING"],
            &l
        ));
    }

    #[test]
    fn levels_that_can_pass_follow_from_all_or_any() {
        let condition = |column, value: &str| Condition {
            column,
            operator: Operator::Equals,
            values: vec![value.to_owned()],
        };
        let levels = |matching, conditions: Vec<Condition>| {
            LineFilter::new(&Filter { matching, conditions })
                .unwrap()
                .levels()
        };
        let error = || condition(Column::LogLevel, "Error");
        let message = || condition(Column::LogMessage, "x");
        let only = LevelSet::default().with(LogLevel::Error);
        assert_eq!(levels(Match::All, vec![error(), message()]), only);
        assert_eq!(levels(Match::Any, vec![error(), message()]), LevelSet::ALL);
        assert_eq!(levels(Match::Any, vec![error()]), only);
        assert_eq!(levels(Match::Any, vec![]), LevelSet::ALL);
    }
}
