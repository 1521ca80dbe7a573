//! Random rows and random questions against a naive model in memory. `PROPERTY_CASES` asks for more than a few.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use jiff::{
    Timestamp, ToSpan,
    tz::{Offset, TimeZone},
};
use proptest::{
    prelude::any,
    test_runner::{Config, TestCaseError, TestRunner},
};
use scriptscope::{
    ingest::record::Record,
    model::{
        Bucket, Filter, LogLevel, LogLine, Run, RunStatus, ScriptKey, Step, TimeRange,
        failure_rate_basis_points, nearest_rank,
    },
    store::{SeriesQuery, Store},
};

use crate::{
    filters::{
        Shape, all_or_any, filters, line_conditions, line_matches, random_lines, random_runs, run_conditions,
        run_matches,
    },
    snapshot::lines_of,
    support::{Backend, Feed, all_lines, all_runs, at, log_query, run, run_query, script},
};

/// Two days around noon, so that rows lie in several hours and days.
const SPREAD: Shape = Shape {
    moments: 60,
    apart: 48 * 60_000_000,
};

fn cases() -> u32 {
    std::env::var("PROPERTY_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(3)
}

/// Runs `case` with one seed after the other; a failure names its seed.
fn with_seeds(case: impl AsyncFn(u64)) {
    let config = Config {
        cases: cases(),
        failure_persistence: None,
        // A smaller seed is no simpler.
        max_shrink_iters: 0,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&any::<u64>(), |seed| {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(case(seed)));
        Ok::<_, TestCaseError>(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

pub async fn every_answer_is_that_of_a_naive_model(backend: &impl Backend) {
    let store = backend.open().await;
    with_seeds(async |seed| {
        let mut random = Rng::with_seed(seed);
        let a = script(&format!("s{seed}"));
        let runs = random_runs(&store, &a, &mut random, &SPREAD).await;
        let lines = random_lines(&store, &a, &mut random, &SPREAD).await;
        let ranges = |random: &mut Rng| {
            let mut moment = || random.bool().then(|| at(random.i64(0..60 * 48 * 60_000_000)));
            let (one, other) = (moment(), moment());
            TimeRange {
                from: one.min(other),
                to: one.max(other),
            }
        };
        let conditions = run_conditions(&mut random, &runs);
        let all = filters(&conditions, &mut random);
        for filter in random.choose_multiple(all, 20) {
            let range = ranges(&mut random);
            check_runs(&store, &a, &runs, &lines, range, &filter, &mut random).await;
        }
        let conditions = line_conditions(&mut random, &lines);
        let all = filters(&conditions, &mut random);
        for filter in random.choose_multiple(all, 20) {
            let range = ranges(&mut random);
            let expected: Vec<&LogLine> = lines
                .iter()
                .filter(|l| range.contains(l.timestamp) && all_or_any(&filter, *l, line_matches))
                .collect();
            let mut query = log_query(&a, filter);
            query.range = range;
            query.limit = random.usize(1..90);
            let found = all_lines(&store, query.clone()).await;
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{seed} {query:?}");
            let mut snapshot = store.snapshot(&a).await.unwrap();
            let found = lines_of(&mut *snapshot, query.clone()).await;
            assert_eq!(
                found.iter().collect::<Vec<_>>(),
                expected,
                "one after the other {seed} {query:?}"
            );
            drop(snapshot);
            let count = store.count_logs(&query, 1_000).await.unwrap();
            assert_eq!(
                usize::try_from(count.count).unwrap(),
                expected.len(),
                "{seed} {query:?}"
            );
        }
    });
}

async fn check_runs(
    store: &Arc<dyn Store>,
    script: &ScriptKey,
    runs: &[Run],
    lines: &[LogLine],
    range: TimeRange,
    filter: &Filter,
    random: &mut Rng,
) {
    let expected: Vec<&Run> = runs
        .iter()
        .filter(|r| range.contains(r.executed_on) && all_or_any(filter, *r, run_matches))
        .collect();
    let mut query = run_query(script, filter.clone());
    query.range = range;
    query.limit = random.usize(1..60);
    let found = all_runs(store, query.clone()).await;
    assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?}");
    let count = store.count_runs(&query, 1_000).await.unwrap();
    assert_eq!(usize::try_from(count.count).unwrap(), expected.len(), "{query:?}");
    let figures = store.window_figures(script, range, filter).await.unwrap();
    let lines: Vec<&LogLine> = lines.iter().filter(|l| range.contains(l.timestamp)).collect();
    let whole = bucket(TimeRange::ALL, &expected, &lines);
    assert_eq!(
        (
            figures.succeeded_runs,
            figures.failed_runs,
            figures.in_progress_runs
        ),
        (whole.succeeded_runs, whole.failed_runs, whole.in_progress_runs),
        "{query:?}"
    );
    assert_eq!(
        [
            figures.p50_microseconds,
            figures.p90_microseconds,
            figures.p99_microseconds
        ],
        [
            whole.p50_microseconds,
            whole.p90_microseconds,
            whole.p99_microseconds
        ],
        "{query:?}"
    );
    let rate = failure_rate_basis_points(whole.succeeded_runs, whole.failed_runs);
    assert_eq!(figures.failure_rate_basis_points, rate);
    assert_eq!(figures.total_logs, whole.logs.values().sum::<i64>());
    assert_eq!(
        figures.last_run_time,
        expected.iter().map(|r| r.executed_on).max(),
        "{query:?}"
    );
    let offset = random.choice([0, 3_600, 19_800, -12_600]).unwrap();
    for step in Step::ALL {
        let query = SeriesQuery {
            script: script.clone(),
            range,
            filter: filter.clone(),
            step,
            zone: TimeZone::fixed(Offset::from_seconds(offset).unwrap()),
        };
        let series = store.series(&query).await.unwrap();
        assert_eq!(series, naive_series(&query, &expected, &lines), "{query:?}");
    }
}

/// Figures of all these.
fn bucket(range: TimeRange, runs: &[&Run], lines: &[&LogLine]) -> Bucket {
    let count = |status| i64::try_from(runs.iter().filter(|r| r.status == status).count()).unwrap();
    let mut took: Vec<i64> = runs.iter().filter_map(|r| r.response_time_micros).collect();
    took.sort_unstable();
    let rank = |p| nearest_rank(took.len(), p).map(|at| took[at]);
    let mut logs: BTreeMap<LogLevel, i64> = BTreeMap::new();
    for line in lines {
        *logs.entry(line.level).or_default() += 1;
    }
    Bucket {
        from: range.from.unwrap_or(Timestamp::MIN),
        to: range.to.unwrap_or(Timestamp::MAX),
        succeeded_runs: count(RunStatus::Success),
        failed_runs: count(RunStatus::Failed),
        in_progress_runs: count(RunStatus::InProgress),
        p50_microseconds: rank(500),
        p90_microseconds: rank(900),
        p99_microseconds: rank(990),
        logs,
    }
}

fn naive_series(query: &SeriesQuery, runs: &[&Run], lines: &[&LogLine]) -> Vec<Bucket> {
    let begin = |time: Timestamp| match query.step {
        Step::Hour => Timestamp::from_second(time.as_second().div_euclid(3_600) * 3_600).unwrap(),
        Step::Day => time
            .to_zoned(query.zone.clone())
            .start_of_day()
            .unwrap()
            .timestamp(),
    };
    let mut buckets: BTreeMap<Timestamp, (Vec<&Run>, Vec<&LogLine>)> = BTreeMap::new();
    for run in runs {
        buckets.entry(begin(run.executed_on)).or_default().0.push(*run);
    }
    for line in lines {
        buckets.entry(begin(line.timestamp)).or_default().1.push(*line);
    }
    let hours = if query.step == Step::Hour { 1 } else { 24 };
    buckets
        .into_iter()
        .map(|(from, (runs, lines))| {
            let range = TimeRange {
                from: Some(from),
                to: Some(from + hours.hours()),
            };
            bucket(range, &runs, &lines)
        })
        .collect()
}

/// Rows arrive between two pages: none is given twice, and none that was there at first is left out.
pub async fn pages_are_stable_under_inserts(backend: &impl Backend) {
    let store = backend.open().await;
    with_seeds(async |seed| {
        let mut random = Rng::with_seed(seed);
        let a = script(&format!("s{seed}"));
        let mut feed = Feed::open(&store, &a, &format!("u{seed}"), 1).await;
        let some = |part: u32, random: &mut Rng| -> Vec<Record> {
            let count = random.u32(1..12);
            (0..count)
                .flat_map(|n| {
                    let id = format!("r{}-{part}-{n}", random.u8(..));
                    run(&id, random.i64(0..40), 1, RunStatus::Success)
                })
                .collect()
        };
        for part in 0..4 {
            feed.send(some(part, &mut random)).await;
        }
        let mut query = run_query(&a, Filter::default());
        let before: Vec<String> = all_runs(&store, query.clone())
            .await
            .into_iter()
            .map(|r| r.run_id)
            .collect();
        query.limit = random.usize(1..9);
        let mut seen = Vec::new();
        let mut part = 4;
        loop {
            let page = store.runs(&query).await.unwrap();
            seen.extend(page.rows.into_iter().map(|r| r.run_id));
            let Some(next) = page.next else { break };
            query.after = Some(next);
            // Some come before the place where the next page goes on, some after.
            if part < 20 {
                feed.send(some(part, &mut random)).await;
                part += 1;
            }
        }
        let mut unique = seen.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), seen.len(), "{seed}");
        assert!(before.iter().all(|id| seen.contains(id)), "{seed}");
    });
}
