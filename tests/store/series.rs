//! Figures over time, counts, and the bound on time.

use std::{sync::Arc, time::Duration};

use jiff::{
    SignedDuration, Timestamp,
    tz::{Offset, TimeZone},
};
use scriptscope::{
    ingest::record::Record,
    model::{Bucket, Column, Count, Filter, LogLevel, Operator, RunStatus, ScriptKey, Step, TimeRange},
    query::within,
    store::{SeriesQuery, Store, StoreError},
};

use crate::support::{Backend, Feed, at, filter, line, log_query, run, run_query, script, started};

const HOUR: i64 = 3_600_000_000;

fn query(script: &ScriptKey, step: Step, zone: TimeZone) -> SeriesQuery {
    SeriesQuery {
        script: script.clone(),
        range: TimeRange::ALL,
        filter: Filter::default(),
        step,
        zone,
    }
}

/// Begin, succeeded, failed, in progress and lines of each bucket.
fn shown(series: &[Bucket]) -> Vec<(Timestamp, i64, i64, i64, i64)> {
    let one = |b: &Bucket| {
        (
            b.from,
            b.succeeded_runs,
            b.failed_runs,
            b.in_progress_runs,
            b.logs.values().sum(),
        )
    };
    series.iter().map(one).collect()
}

pub async fn buckets_are_hours_and_days_of_a_zone(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    assert_eq!(
        store.series(&query(&a, Step::Hour, TimeZone::UTC)).await.unwrap(),
        []
    );
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    // Noon, a quarter past, half past seven in the evening, midnight.
    let mut records = Vec::new();
    for (n, minutes) in [0, 15, 7 * 60 + 30, 12 * 60].into_iter().enumerate() {
        let began = minutes * 60_000_000;
        records.extend(run(
            &format!("r{n}"),
            began,
            1_000 * (minutes + 1),
            RunStatus::Success,
        ));
        records.push(Record::Line(line(n as u64, began, "x")));
    }
    records.push(Record::RunStarted(started("open", at(0))));
    records.extend(run("failed", 10, 5, RunStatus::Failed));
    feed.send(records).await;
    let hours = store.series(&query(&a, Step::Hour, TimeZone::UTC)).await.unwrap();
    assert_eq!(
        shown(&hours),
        [
            (at(0), 2, 1, 1, 2),
            (at(7 * HOUR), 1, 0, 0, 1),
            (at(12 * HOUR), 1, 0, 0, 1)
        ]
    );
    assert_eq!(hours[0].p50_microseconds, Some(1_000));
    assert_eq!(hours[0].p99_microseconds, Some(16_000));
    assert_eq!(hours[0].logs, [(LogLevel::Stdout, 2)].into());
    assert_eq!(hours[0].to, at(HOUR));
    let days = store.series(&query(&a, Step::Day, TimeZone::UTC)).await.unwrap();
    assert_eq!(
        shown(&days),
        [(at(-12 * HOUR), 3, 1, 1, 3), (at(12 * HOUR), 1, 0, 0, 1)]
    );
    // Half an hour beside the hours of UTC: the day begins at 18:30.
    let india = TimeZone::fixed(Offset::from_seconds(19_800).unwrap());
    let days = store.series(&query(&a, Step::Day, india)).await.unwrap();
    let begin = at(6 * HOUR + HOUR / 2);
    assert_eq!(
        shown(&days),
        [
            (begin - SignedDuration::from_hours(24), 2, 1, 1, 2),
            (begin, 2, 0, 0, 2)
        ]
    );
    let mut some = query(&a, Step::Hour, TimeZone::UTC);
    some.range.from = Some(at(1));
    some.filter = filter(Column::Status, Operator::NotEquals, &["Success"]);
    let failed = store.series(&some).await.unwrap();
    assert_eq!(shown(&failed)[0], (at(0), 0, 1, 0, 1));
}

/// More runs than percentiles are exact for, over two days, a third of them of version 2, a tenth failed.
async fn many(store: &Arc<dyn Store>, script: &ScriptKey) {
    for version in [1, 2] {
        let mut feed = Feed::open(store, script, &format!("u{version}"), version).await;
        for part in 0..4 {
            let mut records = Vec::new();
            for n in (part..18_000)
                .step_by(4)
                .filter(|n| (n % 3 == 0) == (version == 2))
            {
                let status = if n % 10 == 7 {
                    RunStatus::Failed
                } else {
                    RunStatus::Success
                };
                records.extend(run(&format!("r{n}"), n * 9_600_000, 1_000 + n % 1_000, status));
            }
            feed.send(records).await;
        }
    }
}

pub async fn rollups_say_what_the_rows_say(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    many(&store, &a).await;
    let version = filter(Column::DeploymentVersion, Operator::Equals, &["1"]);
    // Passed by every run, and no rollup can know.
    let rows = filter(Column::Source, Operator::Contains, &["bill"]);
    let mut both = version.clone();
    both.conditions.extend(rows.conditions.clone());
    for (from, to) in [(0, 0), (3 * HOUR + 77, 40 * HOUR + 5), (9_600_000, 47 * HOUR)] {
        let range = TimeRange {
            from: (from > 0).then(|| at(from)),
            to: (to > 0).then(|| at(to)),
        };
        for (rollup, row) in [(&Filter::default(), &rows), (&version, &both)] {
            let fast = store.window_figures(&a, range, rollup).await.unwrap();
            let slow = store.window_figures(&a, range, row).await.unwrap();
            assert_eq!(
                (
                    fast.total_runs,
                    fast.succeeded_runs,
                    fast.failed_runs,
                    fast.last_run_time
                ),
                (
                    slow.total_runs,
                    slow.succeeded_runs,
                    slow.failed_runs,
                    slow.last_run_time
                ),
                "{range:?}"
            );
            let (fast, slow) = (fast.p99_microseconds.unwrap(), slow.p99_microseconds.unwrap());
            assert!((fast - slow).abs() * 100 <= slow, "{fast} for {slow}");
            for step in Step::ALL {
                let series = |filter: &Filter| {
                    let mut query = query(&a, step, TimeZone::UTC);
                    (query.range, query.filter) = (range, filter.clone());
                    query
                };
                let fast = store.series(&series(rollup)).await.unwrap();
                let slow = store.series(&series(row)).await.unwrap();
                assert_eq!(shown(&fast), shown(&slow), "{range:?} {step:?}");
            }
        }
    }
}

pub async fn counts_end_at_their_bound(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let mut records = Vec::new();
    for n in 0..30 {
        records.extend(run(&format!("r{n}"), n, 1, RunStatus::Success));
        records.push(Record::Line(line(
            n.unsigned_abs(),
            n,
            if n < 12 { "few" } else { "more" },
        )));
    }
    feed.send(records).await;
    let count = |count, more| Count { count, more };
    let all = run_query(&a, Filter::default());
    assert_eq!(store.count_runs(&all, 30).await.unwrap(), count(30, false));
    assert_eq!(store.count_runs(&all, 29).await.unwrap(), count(29, true));
    for (text, expected) in [("few", 12), ("", 30), ("none", 0)] {
        let lines = log_query(&a, filter(Column::LogMessage, Operator::Contains, &[text]));
        assert_eq!(
            store.count_logs(&lines, 100).await.unwrap(),
            count(expected, false)
        );
        let capped = store.count_logs(&lines, 10).await.unwrap();
        assert_eq!(capped, count(expected.min(10), expected > 10));
    }
    let lines = log_query(&a, Filter::default());
    assert_eq!(store.count_logs(&lines, 29).await.unwrap(), count(29, true));
}

pub async fn a_query_without_time_is_stopped(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let mut records = run("r", 0, 1, RunStatus::Success).to_vec();
    records.push(Record::Line(line(0, 0, "x")));
    feed.send(records).await;
    let (runs, logs) = (run_query(&a, Filter::default()), log_query(&a, Filter::default()));
    let late = |error| assert!(matches!(error, StoreError::TimeLimit(_)), "{error}");
    late(within(Duration::ZERO, store.runs(&runs)).await.unwrap_err());
    late(within(Duration::ZERO, store.logs(&logs)).await.unwrap_err());
    let all = Filter::default();
    let figures = store.window_figures(&a, TimeRange::ALL, &all);
    late(within(Duration::ZERO, figures).await.unwrap_err());
    // Whoever comes next has time again.
    assert_eq!(
        within(Duration::from_mins(1), store.runs(&runs))
            .await
            .unwrap()
            .rows
            .len(),
        1
    );
    assert_eq!(store.logs(&logs).await.unwrap().rows.len(), 1);
}
