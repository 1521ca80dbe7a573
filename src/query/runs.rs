//! The condition of a query for runs, as SQL with bound parameters.

use std::ops::Range;

use sqlx::{Database, Postgres, Sqlite, query::Query};

use super::sql::{Sql, query};
use crate::{
    model::{
        Column, Condition, Filter, FilterError, Match, Operator, RunStatus, SourceType, UnknownName,
        milliseconds_to_micros,
    },
    store::{RunCursor, storable},
};

/// What databases write differently.
pub trait Dialect: Database + Sized {
    /// SQL after the name of the table `runs r` that makes a planner read the runs in progress alone.
    const IN_PROGRESS: &'static str;
    /// SQL after a query that keeps other transactions from changing what it finds until this one ends. Empty where only one
    /// writes at a time.
    const LOCK: &'static str;

    /// Appends to the text of a statement what stands for its value number `n`, from 1.
    fn push_placeholder(text: &mut String, n: usize);
    /// The statement as sqlx runs it.
    fn query(sql: Sql<Self>) -> Query<'static, Self, <Self as Database>::Arguments>;
    /// Binds a whole number.
    fn number(sql: &mut Sql<Self>, value: i64) {
        sql.bind(value);
    }
    /// Binds a text.
    fn text(sql: &mut Sql<Self>, value: String) {
        sql.bind(value);
    }
    /// Binds bytes.
    fn bytes(sql: &mut Sql<Self>, value: Vec<u8>) {
        sql.bind(value);
    }
    /// Appends the test whether SQL text `text` has `part` in it, whatever the case of ASCII letters and of no others.
    fn contains(sql: &mut Sql<Self>, text: &str, part: String);
}

impl Dialect for Sqlite {
    const IN_PROGRESS: &'static str = " INDEXED BY runs_in_progress";
    const LOCK: &'static str = "";

    fn push_placeholder(text: &mut String, _: usize) {
        text.push('?');
    }

    fn query(sql: Sql<Self>) -> Query<'static, Self, <Self as Database>::Arguments> {
        query(sql)
    }

    fn contains(sql: &mut Sql<Self>, text: &str, part: String) {
        if part.len() > LONGEST_PATTERN {
            sql.push("instr(lower(").push(text).push("), ");
            sql.bind(part.to_ascii_lowercase()).push(") > 0");
            return;
        }
        // A third of the time of the other.
        sql.push(text).push(" LIKE ").bind(pattern(&part));
        if part.contains(['%', '_', '\\']) {
            sql.push(" ESCAPE '\\'");
        }
    }
}

/// SQLite takes patterns of up to 50,000 bytes; each may be escaped.
const LONGEST_PATTERN: usize = 20_000;

/// What `LIKE` finds a part by.
fn pattern(part: &str) -> String {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for c in part.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

impl Dialect for Postgres {
    const IN_PROGRESS: &'static str = "";
    const LOCK: &'static str = " FOR NO KEY UPDATE";

    fn push_placeholder(text: &mut String, n: usize) {
        text.push('$');
        text.push_str(&n.to_string());
    }

    fn query(sql: Sql<Self>) -> Query<'static, Self, <Self as Database>::Arguments> {
        query(sql)
    }

    fn contains(sql: &mut Sql<Self>, text: &str, part: String) {
        // Lowered by the rules of C, whatever the database's: of ASCII letters alone.
        sql.push("strpos(lower(").push(text).push(" COLLATE \"C\"), ");
        sql.bind(part.to_ascii_lowercase()).push(") > 0");
    }
}

/// Appends ` WHERE ...` for the runs (table alias `r`) of a script that began in a range of microseconds (open where it
/// ends at the ends of `i64`), pass a filter and come after a row. Newest first, so "after" is older.
pub fn push_runs_where<DB: Dialect>(
    sql: &mut Sql<DB>,
    script_id: i64,
    range: &Range<i64>,
    filter: &Filter,
    after: Option<&RunCursor>,
) -> Result<(), FilterError> {
    filter.check_runs()?;
    sql.push(" WHERE r.script_id = ");
    DB::number(sql, script_id);
    let time = time_column(filter);
    if range.start != i64::MIN {
        sql.push(" AND ").push(time).push(" >= ");
        DB::number(sql, range.start);
    }
    // Of two upper bounds only the lower one is said: a planner might start at the other and walk all the way down.
    match after {
        Some(after) if after.executed_on.as_microsecond() < range.end => {
            sql.push(" AND (").push(time).push(", r.run_id) < (");
            DB::number(sql, after.executed_on.as_microsecond());
            sql.push(", ");
            DB::text(sql, storable(after.run_id.clone()));
            sql.push(")");
        }
        _ if range.end != i64::MAX => {
            sql.push(" AND ").push(time).push(" < ");
            DB::number(sql, range.end);
        }
        _ => {}
    }
    let joint = match filter.matching {
        Match::All => " AND ",
        Match::Any => " OR ",
    };
    for (n, condition) in filter.conditions.iter().enumerate() {
        sql.push(if n == 0 { " AND (" } else { joint });
        push_condition(sql, condition)?;
    }
    if !filter.conditions.is_empty() {
        sql.push(")");
    }
    Ok(())
}

/// Appends ` AND ...` for each condition on one of these columns that every row must meet.
pub fn push_conditions<DB: Dialect>(
    sql: &mut Sql<DB>,
    filter: &Filter,
    columns: &[Column],
) -> Result<(), FilterError> {
    if filter.matching == Match::All {
        for condition in filter.conditions.iter().filter(|c| columns.contains(&c.column)) {
            sql.push(" AND ");
            push_condition(sql, condition)?;
        }
    }
    Ok(())
}

/// Appends ` ORDER BY ...`, newest first, for the same filter.
pub fn push_runs_order<DB: Dialect>(sql: &mut Sql<DB>, filter: &Filter) {
    sql.push(" ORDER BY ")
        .push(time_column(filter))
        .push(" DESC, r.run_id DESC");
}

/// What follows the table `runs r` for a filter: the name of an index that a planner without statistics does not choose.
pub fn hint<DB: Dialect>(filter: &Filter) -> &'static str {
    let conditions = &filter.conditions;
    let is_certain = filter.matching == Match::All || conditions.len() == 1;
    if is_certain && conditions.iter().any(asks_for_in_progress) {
        DB::IN_PROGRESS
    } else {
        ""
    }
}

fn asks_for_in_progress(condition: &Condition) -> bool {
    // One value: of several equal ones a planner does not see that the index has all they ask for.
    let [value] = condition.values.as_slice() else {
        return false;
    };
    condition.column == Column::Status
        && condition.operator == Operator::Equals
        && value.eq_ignore_ascii_case(RunStatus::InProgress.as_str())
}

/// The column that runs are ordered by. Where the filter names runs or asks for those in progress, it is disguised as an
/// expression, so that a planner looks these few up instead of walking through all runs in their order.
fn time_column(filter: &Filter) -> &'static str {
    let picks_few = |c: &Condition| {
        c.column == Column::RunId && c.operator == Operator::Equals || asks_for_in_progress(c)
    };
    let conditions = &filter.conditions;
    let few = match filter.matching {
        Match::All => conditions.iter().any(picks_few),
        Match::Any => !conditions.is_empty() && conditions.iter().all(picks_few),
    };
    if few { "+r.executed_at" } else { "r.executed_at" }
}

/// How a column is kept.
enum Kind {
    Text(&'static str),
    Number(&'static str, fn(&str) -> Result<i64, String>),
}

fn kind(column: Column) -> Option<Kind> {
    Some(match column {
        Column::RunId => Kind::Text("r.run_id"),
        Column::Function => Kind::Text("r.function"),
        Column::Source => Kind::Text("r.source"),
        Column::Status => Kind::Number("r.status", |name| {
            name.parse::<RunStatus>()
                .map(|s| s.code().into())
                .map_err(|e| e.to_string())
        }),
        Column::SourceType => Kind::Number("r.source_type", |name| {
            name.parse::<SourceType>()
                .map(|s| s.code().into())
                .map_err(|e| e.to_string())
        }),
        Column::DeploymentVersion => {
            Kind::Number("r.version", |text| text.parse::<i64>().map_err(|e| e.to_string()))
        }
        Column::ResponseTime => Kind::Number("r.response_time", milliseconds_to_micros),
        Column::LogId | Column::LogLevel | Column::LogMessage => return None,
    })
}

fn push_condition<DB: Dialect>(sql: &mut Sql<DB>, condition: &Condition) -> Result<(), FilterError> {
    let column = condition.column.as_str();
    if let (Column::Status, Operator::Equals, [status]) =
        (condition.column, condition.operator, condition.values.as_slice())
    {
        // Not bound but said, so that the indexes of failed runs and of those in progress serve.
        let status: RunStatus = status
            .parse()
            .map_err(|error: UnknownName| FilterError::WrongValue {
                column,
                message: error.to_string(),
            })?;
        sql.push("r.status = ").push(status.code());
        return Ok(());
    }
    let kind = kind(condition.column).ok_or(FilterError::WrongTable {
        column,
        table: "runs",
    })?;
    match (condition.operator, kind) {
        (Operator::Equals | Operator::NotEquals, Kind::Text(name)) => {
            push_list(
                sql,
                name,
                condition,
                condition.values.iter().cloned().map(storable),
                DB::text,
            );
        }
        (Operator::Contains, Kind::Text(name)) => push_contains(sql, name, &condition.values),
        (Operator::Contains, Kind::Number(name, _)) => {
            push_contains(sql, &format!("CAST({name} AS TEXT)"), &condition.values);
        }
        (operator, Kind::Number(name, parse)) => {
            let values = condition
                .values
                .iter()
                .map(|value| parse(value))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|message| FilterError::WrongValue { column, message })?;
            match comparison(operator) {
                Some((sign, strictest)) => {
                    // Any of several bounds holds exactly when the weakest one does.
                    let bound = if strictest {
                        values.iter().min()
                    } else {
                        values.iter().max()
                    };
                    let bound = bound.copied().ok_or(FilterError::NoValue { column })?;
                    sql.push(name).push(sign);
                    DB::number(sql, bound);
                }
                None => push_list(sql, name, condition, values, DB::number),
            }
        }
        (operator, Kind::Text(_)) => {
            return Err(FilterError::WrongOperator {
                column,
                operator,
                allowed: "Equals, NotEquals or Contains",
            });
        }
    }
    Ok(())
}

/// The sign of an ordering operator, and whether its weakest bound is the smallest.
fn comparison(operator: Operator) -> Option<(&'static str, bool)> {
    match operator {
        Operator::LessThan => Some((" < ", false)),
        Operator::AtMost => Some((" <= ", false)),
        Operator::GreaterThan => Some((" > ", true)),
        Operator::AtLeast => Some((" >= ", true)),
        Operator::Equals | Operator::NotEquals | Operator::Contains => None,
    }
}

fn push_list<DB: Dialect, T>(
    sql: &mut Sql<DB>,
    name: &str,
    condition: &Condition,
    values: impl IntoIterator<Item = T>,
    bind: fn(&mut Sql<DB>, T),
) {
    let not = condition.operator == Operator::NotEquals;
    if not {
        // What has no value is not equal to any.
        sql.push("(").push(name).push(" IS NULL OR ");
    }
    sql.push(name).push(if not { " NOT IN (" } else { " IN (" });
    for (n, value) in values.into_iter().enumerate() {
        sql.push(if n > 0 { ", " } else { "" });
        bind(sql, value);
    }
    sql.push(if not { "))" } else { ")" });
}

fn push_contains<DB: Dialect>(sql: &mut Sql<DB>, text: &str, values: &[String]) {
    for (n, value) in values.iter().enumerate() {
        sql.push(if n == 0 { "(" } else { " OR " });
        DB::contains(sql, text, storable(value.clone()));
    }
    sql.push(")");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(column: Column, operator: Operator, values: &[&str]) -> Condition {
        Condition {
            column,
            operator,
            values: values.iter().map(|&v| v.to_owned()).collect(),
        }
    }

    fn text(matching: Match, conditions: Vec<Condition>) -> String {
        let mut sql = Sql::<Sqlite>::new("");
        let filter = Filter { matching, conditions };
        push_runs_where(&mut sql, 1, &(i64::MIN..i64::MAX), &filter, None).unwrap();
        sql.text().to_owned()
    }

    #[test]
    fn values_are_always_bound_and_never_part_of_the_text() {
        let hostile = "'; DROP TABLE runs; --";
        for operator in [Operator::Equals, Operator::NotEquals, Operator::Contains] {
            let sql = text(Match::All, vec![condition(Column::Source, operator, &[hostile])]);
            assert!(!sql.contains("DROP"), "{sql}");
        }
    }

    #[test]
    fn conditions_are_joined_by_all_or_any_within_one_bracket() {
        let two = || {
            vec![
                condition(Column::Status, Operator::Equals, &["Failed"]),
                condition(Column::ResponseTime, Operator::AtLeast, &["5", "3"]),
            ]
        };
        assert_eq!(
            text(Match::All, two()),
            " WHERE r.script_id = ? AND (r.status = 2 AND r.response_time >= ?)"
        );
        assert_eq!(
            text(Match::Any, two()),
            " WHERE r.script_id = ? AND (r.status = 2 OR r.response_time >= ?)"
        );
        assert_eq!(text(Match::Any, vec![]), " WHERE r.script_id = ?");
    }

    #[test]
    fn the_page_goes_on_after_the_key_within_the_range() {
        let mut sql = Sql::<Sqlite>::new("");
        let range = 0..9_000_000;
        let after = RunCursor {
            executed_on: Timestamp::UNIX_EPOCH,
            run_id: "r".into(),
        };
        push_runs_where(&mut sql, 1, &range, &Filter::default(), Some(&after)).unwrap();
        assert_eq!(
            sql.text().to_owned(),
            " WHERE r.script_id = ? AND r.executed_at >= ? AND (r.executed_at, r.run_id) < (?, ?)"
        );
        // A key beyond the range's end says nothing that the end does not.
        let (mut sql, mut after) = (Sql::<Sqlite>::new(""), after);
        after.executed_on = Timestamp::MAX;
        push_runs_where(&mut sql, 1, &range, &Filter::default(), Some(&after)).unwrap();
        assert_eq!(
            sql.text().to_owned(),
            " WHERE r.script_id = ? AND r.executed_at >= ? AND r.executed_at < ?"
        );
    }

    #[test]
    fn named_runs_are_looked_up_by_their_ids() {
        let named = || condition(Column::RunId, Operator::Equals, &["r"]);
        let order = |matching, conditions| {
            let mut sql = Sql::<Sqlite>::new("");
            push_runs_order(&mut sql, &Filter { matching, conditions });
            sql.text().to_owned()
        };
        let other = || condition(Column::Source, Operator::Equals, &["s"]);
        let (by_id, by_time) = (
            " ORDER BY +r.executed_at DESC, r.run_id DESC",
            " ORDER BY r.executed_at DESC, r.run_id DESC",
        );
        assert_eq!(order(Match::All, vec![other(), named()]), by_id);
        assert_eq!(order(Match::Any, vec![named(), named()]), by_id);
        assert_eq!(order(Match::Any, vec![other(), named()]), by_time);
        assert_eq!(order(Match::Any, vec![]), by_time);
    }

    #[test]
    fn patterns_match_their_text_and_nothing_else() {
        let sql = text(
            Match::All,
            vec![condition(
                Column::Source,
                Operator::Contains,
                &["a%b_\\", "plain"],
            )],
        );
        assert_eq!(
            sql,
            " WHERE r.script_id = ? AND ((r.source LIKE ? ESCAPE '\\' OR r.source LIKE ?))"
        );
        assert_eq!(pattern("a%b_\\"), "%a\\%b\\_\\\\%");
    }

    #[test]
    fn absent_values_are_not_equal_to_anything() {
        assert_eq!(
            text(
                Match::All,
                vec![condition(Column::ResponseTime, Operator::NotEquals, &["1", "2"])]
            ),
            " WHERE r.script_id = ? AND ((r.response_time IS NULL OR r.response_time NOT IN (?, ?)))"
        );
    }

    #[test]
    fn a_filter_on_log_lines_is_refused() {
        let mut sql = Sql::<Sqlite>::new("");
        let filter = Filter {
            matching: Match::All,
            conditions: vec![condition(Column::LogMessage, Operator::Equals, &["x"])],
        };
        assert!(push_runs_where(&mut sql, 1, &(i64::MIN..i64::MAX), &filter, None).is_err());
    }

    use jiff::Timestamp;
}
