//! Filters and paging against a scan of plain values.

use std::sync::Arc;

use fastrand::Rng;
use scriptscope::{
    ingest::record::Record,
    model::{
        Column, Condition, Filter, LogLevel, LogLine, Match, Operator, Run, RunStatus, ScriptKey, SourceType,
        TimeRange, milliseconds_to_micros,
    },
    store::Store,
};

use crate::support::{
    Backend, Feed, all_lines, all_runs, at, filter, finished, line, log_query, run_query, script, started,
};

const WORDS: [&str; 8] = [
    "alpha", "Alpha", "beta%", "be_ta", "", "Größe", "GRÖSSE", "a'b\"c\\",
];

fn word(random: &mut Rng) -> &'static str {
    random.choice(WORDS).unwrap()
}

/// When random rows happen: at one of so many moments, so many microseconds apart.
pub struct Shape {
    pub moments: i64,
    pub apart: i64,
}

/// Few moments, so that many rows share one.
const DENSE: Shape = Shape {
    moments: 20,
    apart: 50,
};

impl Shape {
    fn moment(&self, random: &mut Rng) -> i64 {
        random.i64(0..self.moments) * self.apart
    }
}

/// Stores random runs of three versions, some open; gives them as lists show them, newest first.
pub async fn random_runs(
    store: &Arc<dyn Store>,
    script: &ScriptKey,
    random: &mut Rng,
    shape: &Shape,
) -> Vec<Run> {
    let mut runs = Vec::new();
    for version in [1, 2, 12] {
        let mut feed = Feed::open(store, script, &format!("{script}-{version}"), version).await;
        for _ in 0..4 {
            let mut records = Vec::new();
            for _ in 0..15 {
                let began = shape.moment(random);
                let run_id = format!("run_{}{}", word(random), random.u32(..));
                let mut start = started(&run_id, at(began));
                start.function = word(random).into();
                start.source = word(random).into();
                start.source_type = random.choice(SourceType::ALL).unwrap();
                let took = random.i64(0..5) * 500;
                let status = random.choice(RunStatus::ALL).unwrap();
                let success = status == RunStatus::Success;
                runs.push(Run {
                    run_id: run_id.clone(),
                    status,
                    reason: (status == RunStatus::Failed).then(|| "Exception".into()),
                    deployment_version: version,
                    deployment_id: format!("deploy_{version}"),
                    response_time_micros: success.then_some(took),
                    function: start.function.clone(),
                    executed_on: at(began),
                    finished_at: (status != RunStatus::InProgress).then(|| at(began + took)),
                    source_type: start.source_type,
                    source: start.source.clone(),
                    traceparent: None,
                });
                records.push(Record::RunStarted(start));
                if status != RunStatus::InProgress {
                    records.push(Record::RunFinished(finished(
                        &run_id,
                        at(began + took),
                        took,
                        status,
                    )));
                }
            }
            feed.send(records).await;
        }
    }
    runs.sort_by(|x, y| (y.executed_on, &y.run_id).cmp(&(x.executed_on, &x.run_id)));
    runs
}

/// What a condition means, said plainly. `value` is the row's text, `None` if it has none.
fn holds(operator: Operator, value: Option<&str>, wanted: &[String], ignore_case: bool) -> bool {
    let equal = |v: &str, w: &String| {
        if ignore_case {
            v.eq_ignore_ascii_case(w)
        } else {
            v == w
        }
    };
    match (operator, value) {
        (Operator::Equals, Some(v)) => wanted.iter().any(|w| equal(v, w)),
        (Operator::NotEquals, v) => !v.is_some_and(|v| wanted.iter().any(|w| equal(v, w))),
        (Operator::Contains, Some(v)) => wanted
            .iter()
            .any(|w| v.to_ascii_lowercase().contains(&w.to_ascii_lowercase())),
        _ => false,
    }
}

pub fn run_matches(run: &Run, condition: &Condition) -> bool {
    let text =
        |value: &str, ignore_case| holds(condition.operator, Some(value), &condition.values, ignore_case);
    match condition.column {
        Column::RunId => text(&run.run_id, false),
        Column::Status => text(run.status.as_str(), true),
        Column::DeploymentVersion => text(&run.deployment_version.to_string(), false),
        Column::Function => text(&run.function, false),
        Column::SourceType => text(run.source_type.as_str(), true),
        Column::Source => text(&run.source, false),
        Column::ResponseTime => {
            let wanted = condition
                .values
                .iter()
                .map(|v| milliseconds_to_micros(v).unwrap());
            let Some(took) = run.response_time_micros else {
                return condition.operator == Operator::NotEquals;
            };
            let any = |test: fn(&i64, &i64) -> bool| wanted.clone().any(|w| test(&took, &w));
            match condition.operator {
                Operator::Equals => any(i64::eq),
                Operator::NotEquals => !any(i64::eq),
                Operator::LessThan => any(i64::lt),
                Operator::GreaterThan => any(i64::gt),
                Operator::AtMost => any(i64::le),
                Operator::AtLeast => any(i64::ge),
                Operator::Contains => unreachable!(),
            }
        }
        Column::LogId | Column::LogLevel | Column::LogMessage => unreachable!(),
    }
}

pub fn line_matches(line: &LogLine, condition: &Condition) -> bool {
    let (value, ignore_case) = match condition.column {
        Column::RunId => (line.run_id.clone(), false),
        Column::LogId => (Some(line.log_id.to_string()), false),
        Column::LogLevel => (Some(line.level.as_str().to_owned()), true),
        _ => (Some(line.message.clone()), false),
    };
    holds(
        condition.operator,
        value.as_deref(),
        &condition.values,
        ignore_case,
    )
}

pub fn all_or_any<T>(filter: &Filter, row: &T, matches: fn(&T, &Condition) -> bool) -> bool {
    match filter.matching {
        _ if filter.conditions.is_empty() => true,
        Match::All => filter.conditions.iter().all(|c| matches(row, c)),
        Match::Any => filter.conditions.iter().any(|c| matches(row, c)),
    }
}

const TEXT: [Operator; 3] = [Operator::Equals, Operator::NotEquals, Operator::Contains];
const NUMBER: [Operator; 6] = [
    Operator::Equals,
    Operator::NotEquals,
    Operator::LessThan,
    Operator::GreaterThan,
    Operator::AtMost,
    Operator::AtLeast,
];

/// Every column and operator of runs.
pub fn run_conditions(random: &mut Rng, runs: &[Run]) -> Vec<Condition> {
    let columns: [(Column, &[Operator]); 7] = [
        (Column::RunId, &TEXT),
        (Column::Function, &TEXT),
        (Column::Source, &TEXT),
        (Column::DeploymentVersion, &TEXT),
        (Column::Status, &TEXT[..2]),
        (Column::SourceType, &TEXT[..2]),
        (Column::ResponseTime, &NUMBER),
    ];
    let mut conditions = Vec::new();
    for (column, operators) in columns {
        for &operator in operators {
            let mut value = || match column {
                Column::RunId if operator != Operator::Contains => {
                    random.choice(runs).unwrap().run_id.clone()
                }
                Column::DeploymentVersion => random.choice(["1", "2", "12", "7"]).unwrap().into(),
                Column::Status => random
                    .choice(["failed", "Success", "IN PROGRESS"])
                    .unwrap()
                    .into(),
                Column::SourceType => random.choice(["api", "Tool", "TEST"]).unwrap().into(),
                Column::ResponseTime => random.choice(["0", "1", "0.5", "1.500", "9"]).unwrap().into(),
                _ => word(random).to_owned(),
            };
            let values = vec![value(), value()];
            let values = if random.bool() {
                values
            } else {
                values[..1].to_vec()
            };
            conditions.push(Condition {
                column,
                operator,
                values,
            });
        }
    }
    conditions
}

/// Each condition alone, and random ones joined.
pub fn filters(conditions: &[Condition], random: &mut Rng) -> Vec<Filter> {
    let mut filters = vec![Filter::default()];
    for condition in conditions {
        for matching in [Match::All, Match::Any] {
            filters.push(Filter {
                matching,
                conditions: vec![condition.clone()],
            });
            let more = (0..random.usize(1..3)).map(|_| random.choice(conditions).unwrap().clone());
            let conditions = std::iter::once(condition.clone()).chain(more).collect();
            filters.push(Filter { matching, conditions });
        }
    }
    filters
}

fn ranges(random: &mut Rng) -> TimeRange {
    let (from, to) = (random.i64(0..500), random.i64(501..1_000));
    random
        .choice([
            TimeRange::ALL,
            TimeRange {
                from: Some(at(from)),
                to: None,
            },
            TimeRange {
                from: None,
                to: Some(at(to)),
            },
            TimeRange {
                from: Some(at(from)),
                to: Some(at(to)),
            },
        ])
        .unwrap()
}

pub async fn runs_are_what_a_naive_scan_finds(backend: &impl Backend) {
    let store = backend.open().await;
    let mut random = Rng::with_seed(42);
    let runs = random_runs(&store, &script("a"), &mut random, &DENSE).await;
    for filter in filters(&run_conditions(&mut random, &runs), &mut random) {
        let range = ranges(&mut random);
        let expected: Vec<&Run> = runs
            .iter()
            .filter(|r| range.contains(r.executed_on) && all_or_any(&filter, *r, run_matches))
            .collect();
        let mut query = run_query(&script("a"), filter);
        query.range = range;
        query.limit = random.usize(5..40);
        let found = all_runs(&store, query.clone()).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?}");
        let figures = store
            .window_figures(&query.script, range, &query.filter)
            .await
            .unwrap();
        assert_eq!(
            usize::try_from(figures.total_runs).unwrap(),
            expected.len(),
            "{query:?}"
        );
    }
}

pub async fn run_pages_give_each_row_once(backend: &impl Backend) {
    let store = backend.open().await;
    let runs = random_runs(&store, &script("a"), &mut Rng::with_seed(3), &DENSE).await;
    for limit in [1, 7, runs.len() - 1, runs.len(), runs.len() + 1] {
        let mut query = run_query(&script("a"), Filter::default());
        query.limit = limit;
        assert_eq!(all_runs(&store, query).await, runs, "{limit}");
    }
}

/// Stores random lines of two streams; gives them as lists show them, newest first.
pub async fn random_lines(
    store: &Arc<dyn Store>,
    script: &ScriptKey,
    random: &mut Rng,
    shape: &Shape,
) -> Vec<LogLine> {
    let mut lines = Vec::new();
    for uid in ["l1", "l2"] {
        let mut feed = Feed::open(store, script, &format!("{script}-{uid}"), 1).await;
        for _ in 0..6 {
            let mut records = Vec::new();
            for k in 0..25 {
                let mut new = line(feed.offset + k / 2, shape.moment(random), word(random));
                new.index = u32::try_from(k % 2).unwrap();
                new.level = random.choice(LogLevel::ALL).unwrap();
                new.attributes = random.bool().then(|| r#"{"k":[1,"ü"]}"#.to_owned());
                new.run_id = random.bool().then(|| format!("run_{}", word(random)));
                lines.push(LogLine {
                    log_id: scriptscope::model::LogId {
                        stream: feed.checkpoint.id,
                        offset: i64::try_from(new.offset).unwrap(),
                        index: i32::try_from(new.index).unwrap(),
                    },
                    level: new.level,
                    message: new.message.clone(),
                    timestamp: new.time,
                    run_id: new.run_id.clone(),
                    attributes: new.attributes.clone(),
                });
                records.push(Record::Line(new));
            }
            feed.send(records).await;
        }
    }
    lines.sort_by_key(|l| std::cmp::Reverse((l.timestamp, l.log_id)));
    lines
}

/// Every column and operator of lines.
pub fn line_conditions(random: &mut Rng, lines: &[LogLine]) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (column, operators) in [
        (Column::LogMessage, &TEXT[..]),
        (Column::RunId, &TEXT[..]),
        (Column::LogId, &TEXT[..]),
        (Column::LogLevel, &TEXT[..2]),
    ] {
        for &operator in operators {
            let mut value = || match column {
                Column::LogLevel => random.choice(["stderr", "Info", "ERROR"]).unwrap().to_owned(),
                Column::LogId if operator == Operator::Contains => "-A".to_owned(),
                Column::LogId => random.choice(lines).unwrap().log_id.to_string(),
                Column::RunId => format!("run_{}", word(random)),
                _ => word(random).to_owned(),
            };
            let values = vec![value(), value()];
            conditions.push(Condition {
                column,
                operator,
                values,
            });
        }
    }
    conditions
}

pub async fn lines_are_what_a_naive_scan_finds(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut random = Rng::with_seed(11);
    let lines = random_lines(&store, &a, &mut random, &DENSE).await;
    let conditions = line_conditions(&mut random, &lines);
    for filter in filters(&conditions, &mut random) {
        let range = ranges(&mut random);
        let expected: Vec<&LogLine> = lines
            .iter()
            .filter(|l| range.contains(l.timestamp) && all_or_any(&filter, *l, line_matches))
            .collect();
        let mut query = log_query(&a, filter);
        query.range = range;
        query.limit = random.usize(20..90);
        let found = all_lines(&store, query.clone()).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?}");
    }
}

pub async fn a_wrong_filter_is_refused(backend: &impl Backend) {
    let store = backend.open().await;
    // Also where the script has nothing yet.
    let runs = run_query(
        &script("a"),
        filter(Column::LogLevel, Operator::Equals, &["Info"]),
    );
    assert!(store.runs(&runs).await.is_err());
    assert!(
        store
            .window_figures(&runs.script, TimeRange::ALL, &runs.filter)
            .await
            .is_err()
    );
    let logs = log_query(
        &script("a"),
        filter(Column::Status, Operator::Equals, &["Failed"]),
    );
    assert!(store.logs(&logs).await.is_err());
}
