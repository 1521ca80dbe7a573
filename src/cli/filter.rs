//! Conditions as people type them. Pure.

pub use crate::export::Table;
use crate::model::{Column, Condition, Filter, Match, Operator};

use super::error::CliError;

/// Longest operators first, so that `<=` is not taken for `<`.
const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::NotEquals),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("=", Operator::Equals),
    ("~", Operator::Contains),
    ("<", Operator::LessThan),
    (">", Operator::GreaterThan),
];

const RUN_COLUMNS: [Column; 7] = [
    Column::RunId,
    Column::Status,
    Column::DeploymentVersion,
    Column::ResponseTime,
    Column::Function,
    Column::SourceType,
    Column::Source,
];
const LOG_COLUMNS: [Column; 4] = [Column::LogId, Column::LogLevel, Column::LogMessage, Column::RunId];

/// The filter that these texts say: each a condition, or a single one the JSON of the REST API.
pub fn filter(texts: &[String], matching: Match, table: Table) -> Result<Filter, CliError> {
    let filter = match texts {
        [json] if json.trim_start().starts_with('{') => {
            serde_json::from_str(json).map_err(|error| usage(&format!("not a filter: {error}")))?
        }
        texts => Filter {
            matching,
            conditions: texts
                .iter()
                .map(|text| condition(text, table))
                .collect::<Result<_, _>>()?,
        },
    };
    table.check(&filter).map_err(|error| usage(&error.to_string()))?;
    Ok(filter)
}

fn usage(message: &str) -> CliError {
    CliError::Usage(format!("--filter: {message}"))
}

fn columns(table: Table) -> &'static [Column] {
    match table {
        Table::Runs => &RUN_COLUMNS,
        Table::Logs => &LOG_COLUMNS,
    }
}

/// One condition: a column, an operator, and values with commas between; `\,` is a comma of a value.
fn condition(text: &str, table: Table) -> Result<Condition, CliError> {
    let found = text.char_indices().find_map(|(at, _)| {
        let operator = OPERATORS.iter().find(|(sign, _)| text[at..].starts_with(sign))?;
        Some((at, operator))
    });
    let Some((at, (sign, operator))) = found else {
        return Err(usage(&format!(
            "{text:?} has no operator; write a column, one of = != ~ < > <= >=, and a value, such as 'Status=Failed'"
        )));
    };
    let name = text[..at].trim();
    let Some(column) = columns(table)
        .iter()
        .find(|column| key(column.as_str()) == key(name))
    else {
        let known: Vec<&str> = columns(table).iter().map(|column| column.as_str()).collect();
        return Err(usage(&format!(
            "{name:?} is not a column here; there are: {}",
            known.join(", ")
        )));
    };
    Ok(Condition {
        column: *column,
        operator: *operator,
        values: values(&text[at + sign.len()..]),
    })
}

/// A name without what people leave out.
fn key(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

fn values(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut escaped = false;
    for c in text.trim().chars() {
        match c {
            ',' if !escaped => values.push(String::new()),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            _ => {
                if let Some(value) = values.last_mut() {
                    if escaped && c != ',' && c != '\\' {
                        value.push('\\');
                    }
                    value.push(c);
                }
            }
        }
        escaped = false;
    }
    if let Some(value) = values.last_mut().filter(|_| escaped) {
        value.push('\\');
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, table: Table) -> Result<Condition, String> {
        filter(&[text.to_owned()], Match::All, table)
            .map(|mut filter| filter.conditions.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn conditions_are_read_as_they_are_typed() {
        for (text, column, operator, values) in [
            ("Status=Failed", Column::Status, Operator::Equals, vec!["Failed"]),
            (
                "responseTime >= 250",
                Column::ResponseTime,
                Operator::AtLeast,
                vec!["250"],
            ),
            (
                "Response Time<1.5",
                Column::ResponseTime,
                Operator::LessThan,
                vec!["1.5"],
            ),
            ("source~a=b", Column::Source, Operator::Contains, vec!["a=b"]),
            (
                "function!=f,g",
                Column::Function,
                Operator::NotEquals,
                vec!["f", "g"],
            ),
            (r"source=a\,b\c", Column::Source, Operator::Equals, vec![r"a,b\c"]),
        ] {
            let condition = one(text, Table::Runs).unwrap();
            assert_eq!(
                (condition.column, condition.operator),
                (column, operator),
                "{text}"
            );
            assert_eq!(condition.values, values, "{text}");
        }
        let level = one("log-level=Error", Table::Logs).unwrap();
        assert_eq!(level.column, Column::LogLevel);
        let json =
            r#"{"match":"Any","conditions":[{"column":"Status","operator":"Equals","values":["Failed"]}]}"#;
        let any = filter(&[json.to_owned()], Match::All, Table::Runs).unwrap();
        assert_eq!(any.matching, Match::Any);
    }

    #[test]
    fn a_wrong_condition_names_the_flag_and_the_remedy() {
        for (text, table, remedy) in [
            ("Status", Table::Runs, "'Status=Failed'"),
            ("Colour=red", Table::Runs, "Run ID, Status"),
            ("Status=Failed", Table::Logs, "Log Level"),
            ("Status=Great", Table::Runs, "In Progress, Success"),
            ("Status<Failed", Table::Runs, "Equals"),
            ("{", Table::Runs, "not a filter"),
        ] {
            let error = one(text, table).unwrap_err();
            assert!(error.starts_with("--filter: "), "{error}");
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }
}
