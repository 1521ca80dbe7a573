//! From a query string to a range, a filter and a page. Pure.

use std::{fmt::Display, str::FromStr};

use axum::{extract::Query, http::Uri};
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;

use crate::{
    export::{
        Table,
        columns::Columns,
        format::{Compression, Format},
        range::{RangeError, RangeRequest},
    },
    model::{Column, Condition, Filter, Match, Operator, Preset, Step, TimeRange},
    store::RunParts,
};

use super::ApiError;

/// Rows of a page where nothing is said.
pub(super) const DEFAULT_LIMIT: usize = 50;
/// Rows of a page at most.
pub(super) const MAX_LIMIT: usize = 1_000;
/// Conditions of a filter at most.
const MAX_CONDITIONS: usize = 32;
/// Values of a condition at most.
const MAX_VALUES: usize = 50;

/// What a route takes beside range and filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// `limit` and `cursor`.
    Pages,
    /// Nothing: all rows are given.
    All,
}

/// A query for rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowsRequest {
    /// The range as asked for.
    pub(super) range: RangeRequest,
    /// Whether a range was asked for.
    pub(super) has_range: bool,
    /// Checked against the table.
    pub(super) filter: Filter,
    /// Rows of the page.
    pub(super) limit: usize,
    /// Where to go on.
    pub(super) cursor: Option<String>,
    /// Whether to count the rows of all pages.
    pub(super) count: bool,
}

impl RowsRequest {
    /// The range at `now`.
    pub(super) fn resolve(&self, now: Timestamp) -> Result<TimeRange, ApiError> {
        self.range.resolve(now).map_err(|error| match &error {
            RangeError::TwoWays => ApiError::invalid("range", error.to_string()),
            RangeError::Range(_) => {
                let field = if self.range.last.is_some() { "last" } else { "from" };
                ApiError::invalid(field, error.to_string())
            }
        })
    }

    /// What tells this query from others, beside the script: its table, range and filter, not its page.
    pub(super) fn identity(&self, table: Table) -> Result<String, serde_json::Error> {
        let filter = serde_json::to_string(&self.filter)?;
        Ok(format!("{table:?} {:?} {filter}", self.range))
    }
}

/// Reads a query for rows of `table`.
pub(super) fn rows(uri: &Uri, table: Table, paging: Paging) -> Result<RowsRequest, ApiError> {
    rows_of(pairs(uri)?, table, paging)
}

/// Reads a query for a file of rows in a format: that for rows, `columns`, and for CSV `compression`.
pub(super) fn file(
    uri: &Uri,
    table: Table,
    mut format: Format,
) -> Result<(RowsRequest, Columns, Format), ApiError> {
    let (mut columns, mut rest) = (None, Vec::new());
    let mut compressed = false;
    for (key, value) in pairs(uri)? {
        let twice = match (key.as_str(), &mut format) {
            ("columns", _) => columns.replace(value).is_some(),
            ("compression", Format::Csv { compression, .. }) => {
                *compression = compression_of(&value)?;
                std::mem::replace(&mut compressed, true)
            }
            ("compression", Format::Parquet) => {
                let message = "Parquet files are compressed already; leave it out";
                return Err(ApiError::invalid(&key, message));
            }
            _ => {
                rest.push((key, value));
                continue;
            }
        };
        if twice {
            return Err(ApiError::invalid(&key, format!("{key} is given twice")));
        }
    }
    let request = rows_of(rest, table, Paging::All)?;
    let headings: Vec<&str> = columns
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .collect();
    let columns =
        Columns::named(table, &headings).map_err(|error| ApiError::invalid("columns", error.to_string()))?;
    if columns.parts() == RunParts::WithPayloads {
        return Err(ApiError::invalid(
            "columns",
            "Input, Output, Error and Traceback are not in files that are downloaded as they are made; make a ScriptExport",
        ));
    }
    Ok((request, columns, format))
}

fn compression_of(name: &str) -> Result<Compression, ApiError> {
    let all = [Compression::None, Compression::Gzip, Compression::Zstd];
    let names = ["None", "Gzip", "Zstd"];
    let at = names.iter().position(|known| known.eq_ignore_ascii_case(name));
    at.map(|at| all[at])
        .ok_or_else(|| ApiError::invalid("compression", format!("expected one of {}", names.join(", "))))
}

/// Reads a query for figures over time: that for rows, the length of a bucket and the time zone whose days they are.
pub(super) fn series(uri: &Uri) -> Result<(RowsRequest, Step, TimeZone), ApiError> {
    let (mut step, mut zone, mut rest) = (None, None, Vec::new());
    for (key, value) in pairs(uri)? {
        let twice = match key.as_str() {
            "step" => step.replace(value).is_some(),
            "timeZone" => zone.replace(value).is_some(),
            _ => {
                rest.push((key, value));
                continue;
            }
        };
        if twice {
            return Err(ApiError::invalid(&key, format!("{key} is given twice")));
        }
    }
    let request = rows_of(rest, Table::Runs, Paging::All)?;
    let step = step.map_or(Ok(Step::Day), |text| {
        parsed("step", &text, "expected Hour or Day")
    })?;
    let zone = zone.map_or(Ok(TimeZone::UTC), |name| time_zone(&name))?;
    Ok((request, step, zone))
}

/// Reads a query for a stream of log lines: that for rows, and how many lines from before.
pub(super) fn stream(uri: &Uri) -> Result<(RowsRequest, usize), ApiError> {
    let (tail, rest): (Vec<_>, Vec<_>) = pairs(uri)?.into_iter().partition(|(key, _)| key == "tail");
    let request = rows_of(rest, Table::Logs, Paging::All)?;
    let tail = match tail.as_slice() {
        [] => 0,
        [(key, text)] => parsed(key, text, "expected a whole number")?,
        _ => return Err(ApiError::invalid("tail", "tail is given twice")),
    };
    Ok((request, tail))
}

fn time_zone(name: &str) -> Result<TimeZone, ApiError> {
    TimeZone::get(name).map_err(|_| {
        let shown: String = name.chars().take(100).collect();
        ApiError::invalid(
            "timeZone",
            format!(
                "{shown} is not a time zone that is known here; use a name of the IANA such as Europe/Berlin"
            ),
        )
    })
}

fn rows_of(pairs: Vec<(String, String)>, table: Table, paging: Paging) -> Result<RowsRequest, ApiError> {
    let mut request = RowsRequest {
        range: RangeRequest::default(),
        has_range: false,
        filter: Filter::default(),
        limit: DEFAULT_LIMIT,
        cursor: None,
        count: false,
    };
    let mut given = Vec::new();
    let mut shortcuts: Vec<Condition> = Vec::new();
    for (key, value) in pairs {
        if let Some((column, operator)) = shortcut(table, &key) {
            match shortcuts
                .iter_mut()
                .find(|c| (c.column, c.operator) == (column, operator))
            {
                Some(condition) => condition.values.push(value),
                None => shortcuts.push(Condition {
                    column,
                    operator,
                    values: vec![value],
                }),
            }
            continue;
        }
        if given.contains(&key) {
            return Err(ApiError::invalid(&key, format!("{key} is given twice")));
        }
        match (key.as_str(), paging) {
            ("from", _) => request.range.from = Some(time(&key, &value)?),
            ("to", _) => request.range.to = Some(time(&key, &value)?),
            ("last", _) => request.range.last = Some(value),
            ("preset", _) => request.range.preset = Some(preset(&value)?),
            ("filter", _) => request.filter = filter(&value)?,
            ("limit", Paging::Pages) => request.limit = limit(&value)?,
            ("cursor", Paging::Pages) => request.cursor = Some(value),
            ("count", Paging::Pages) => request.count = parsed(&key, &value, "expected true or false")?,
            ("limit" | "cursor" | "count", Paging::All) => {
                return Err(ApiError::invalid(
                    &key,
                    format!("{key} is not for this route, which gives everything at once; leave it out"),
                ));
            }
            _ => return Err(unknown(&key, table, paging)),
        }
        given.push(key);
    }
    request.has_range = request.range != RangeRequest::default();
    request.filter = join(request.filter, shortcuts)?;
    table
        .check(&request.filter)
        .map_err(|error| ApiError::invalid("filter", error.to_string()))?;
    Ok(request)
}

/// The filter that a query string such as that of `GET .../runs` asks for, checked against `table`.
pub fn filter_of_query(uri: &Uri, table: Table) -> Result<Filter, ApiError> {
    rows(uri, table, Paging::Pages).map(|request| request.filter)
}

/// Refuses every query key but these, each once.
pub(super) fn only<const N: usize>(uri: &Uri, keys: [&str; N]) -> Result<[Option<String>; N], ApiError> {
    let mut values = [const { None }; N];
    for (key, value) in pairs(uri)? {
        let Some(index) = keys.iter().position(|k| *k == key) else {
            let message = if N == 0 {
                format!("{key} is not known here; this route takes no query")
            } else {
                format!("{key} is not known here; use {}", keys.join(", "))
            };
            return Err(ApiError::invalid(&key, message));
        };
        if values[index].replace(value).is_some() {
            return Err(ApiError::invalid(&key, format!("{key} is given twice")));
        }
    }
    Ok(values)
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|rejection| ApiError::invalid("query", rejection.body_text()))?;
    Ok(pairs)
}

fn shortcut(table: Table, key: &str) -> Option<(Column, Operator)> {
    let equals = |column| Some((column, Operator::Equals));
    match (table, key) {
        (Table::Runs, "status") => equals(Column::Status),
        (Table::Runs, "function") => equals(Column::Function),
        (Table::Runs, "version") => equals(Column::DeploymentVersion),
        (Table::Runs, "source") => equals(Column::Source),
        (Table::Runs, "sourceType") => equals(Column::SourceType),
        (Table::Logs, "level") => equals(Column::LogLevel),
        (Table::Logs, "run") => equals(Column::RunId),
        (Table::Logs, "search") => Some((Column::LogMessage, Operator::Contains)),
        _ => None,
    }
}

fn unknown(key: &str, table: Table, paging: Paging) -> ApiError {
    let shortcuts = match table {
        Table::Runs => "status, function, version, source, sourceType",
        Table::Logs => "level, run, search",
    };
    let pages = match paging {
        Paging::Pages => ", limit, cursor, count",
        Paging::All => "",
    };
    let shown: String = key.chars().take(100).collect();
    ApiError::invalid(
        key,
        format!("{shown} is not known here; use from, to, last, preset, filter, {shortcuts}{pages}"),
    )
}

/// The filter and the shortcuts together: all must hold.
fn join(mut filter: Filter, shortcuts: Vec<Condition>) -> Result<Filter, ApiError> {
    if !shortcuts.is_empty() {
        if filter.matching == Match::Any && filter.conditions.len() > 1 {
            return Err(ApiError::invalid(
                "filter",
                "a filter that matches Any can not be joined with other conditions; put all of them in the filter",
            ));
        }
        filter.matching = Match::All;
        filter.conditions.extend(shortcuts);
    }
    let too_many = filter.conditions.iter().any(|c| c.values.len() > MAX_VALUES);
    if too_many || filter.conditions.len() > MAX_CONDITIONS {
        return Err(ApiError::invalid(
            "filter",
            format!("at most {MAX_CONDITIONS} conditions of at most {MAX_VALUES} values each"),
        ));
    }
    Ok(filter)
}

fn filter(text: &str) -> Result<Filter, ApiError> {
    serde_json::from_str(text).map_err(|error| {
        ApiError::invalid(
            "filter",
            format!(
                "not a filter: {error}; expected JSON such as {}",
                r#"{"match":"All","conditions":[{"column":"Status","operator":"Equals","values":["Failed"]}]}"#
            ),
        )
    })
}

fn time(key: &str, text: &str) -> Result<Timestamp, ApiError> {
    parsed(
        key,
        text,
        "expected a time in RFC 3339 such as 2026-01-31T12:00:00Z",
    )
}

pub(super) fn limit(text: &str) -> Result<usize, ApiError> {
    let expected = format!("expected a whole number from 1 to {MAX_LIMIT}");
    let limit = parsed("limit", text, &expected)?;
    if (1..=MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(ApiError::invalid("limit", expected))
    }
}

fn preset(text: &str) -> Result<Preset, ApiError> {
    let text = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    Preset::deserialize(text).map_err(|error| ApiError::invalid("preset", error.to_string()))
}

pub(super) fn parsed<T: FromStr<Err: Display>>(key: &str, text: &str, expected: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|error| ApiError::invalid(key, format!("{expected} ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str, table: Table) -> Result<RowsRequest, ApiError> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        rows(&uri, table, Paging::Pages)
    }

    #[test]
    fn shortcuts_are_conditions() {
        let request = parse(
            "status=Failed&status=In%20Progress&sourceType=api&limit=7",
            Table::Runs,
        )
        .unwrap();
        assert_eq!(request.limit, 7);
        assert_eq!(request.filter.matching, Match::All);
        assert_eq!(request.filter.conditions.len(), 2);
        assert_eq!(request.filter.conditions[0].values, ["Failed", "In Progress"]);
        let logs = parse("search=no+luck&level=Error", Table::Logs).unwrap();
        assert_eq!(logs.filter.conditions[0].operator, Operator::Contains);
        assert_eq!(logs.filter.conditions[0].values, ["no luck"]);
    }

    #[test]
    fn a_wrong_query_names_the_key_and_the_remedy() {
        for (query, field, remedy) in [
            ("colour=red", "colour", "use from, to, last"),
            ("level=Info", "level", "sourceType"),
            ("limit=0", "limit", "1 to 1000"),
            ("limit=many", "limit", "1 to 1000"),
            ("from=yesterday", "from", "RFC 3339"),
            ("preset=Tomorrow", "preset", "Yesterday"),
            ("last=1h&last=2h", "last", "twice"),
            ("status=Great", "filter", "In Progress, Success"),
            ("filter=%7B%7D%7D", "filter", "expected JSON"),
            (
                "filter=%7B%22conditions%22:[%7B%22column%22:%22Colour%22%7D]%7D",
                "filter",
                "Run ID",
            ),
        ] {
            let error = parse(query, Table::Runs).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{query}");
            assert!(error.message.contains(remedy), "{query}: {}", error.message);
        }
        let any = r#"{"match":"Any","conditions":[
            {"column":"Status","operator":"Equals","values":["Failed"]},
            {"column":"Source","operator":"Equals","values":["x"]}]}"#;
        let any = any
            .bytes()
            .fold(String::new(), |text, b| text + &format!("%{b:02x}"));
        assert!(parse(&format!("filter={any}"), Table::Runs).is_ok());
        let error = parse(&format!("filter={any}&function=f"), Table::Runs).unwrap_err();
        assert!(error.message.contains("put all of them in the filter"));
    }

    #[test]
    fn ranges_are_checked() {
        let now = "2026-03-10T12:00:00Z".parse().unwrap();
        let fails = |query: &str| {
            parse(query, Table::Runs)
                .unwrap()
                .resolve(now)
                .unwrap_err()
                .field
                .unwrap()
        };
        assert_eq!(fails("last=7d&preset=Today"), "range");
        assert_eq!(fails("last=7"), "last");
        assert_eq!(fails("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"), "from");
        assert!(!parse("", Table::Runs).unwrap().has_range);
    }
}
