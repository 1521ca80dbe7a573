//! Counts, rates and percentiles.

use std::f64::consts::TAU;

use scriptscope::{
    ingest::record::Record,
    model::{Column, Filter, Operator, RunStatus, TimeRange, nearest_rank},
};

use crate::support::{Backend, Feed, at, filter, line, run, script, started};

pub async fn one_failure_of_three_is_33_33_per_cent(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    assert_eq!(
        store.figures(&a).await.unwrap(),
        scriptscope::model::Figures::default()
    );
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let mut records = run("1", 0, 100, RunStatus::Success).to_vec();
    records.extend(run("2", 10, 300, RunStatus::Success));
    records.extend(run("3", 20, 999, RunStatus::Failed));
    records.push(Record::RunStarted(started("4", at(30))));
    records.push(Record::Line(line(0, 1, "x")));
    feed.send(records).await;
    let figures = store.figures(&a).await.unwrap();
    assert_eq!(figures.total_runs, 4);
    assert_eq!(
        (
            figures.succeeded_runs,
            figures.failed_runs,
            figures.in_progress_runs
        ),
        (2, 1, 1)
    );
    assert_eq!(figures.failure_rate_basis_points, Some(3333));
    assert_eq!(
        [
            figures.p50_microseconds,
            figures.p90_microseconds,
            figures.p99_microseconds
        ],
        [Some(100), Some(300), Some(300)]
    );
    assert_eq!((figures.total_logs, figures.last_run_time), (1, Some(at(30))));
    let window = store
        .window_figures(&a, TimeRange::ALL, &Filter::default())
        .await
        .unwrap();
    assert_eq!(window, figures);
}

pub async fn lifetime_and_versions_add_up(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    for version in 1..=4 {
        let mut feed = Feed::open(&store, &a, &format!("u{version}"), version).await;
        // Version 3 never ran.
        for n in (0..version * 10).filter(|_| version != 3) {
            let status = if n % 5 == 0 {
                RunStatus::Failed
            } else {
                RunStatus::Success
            };
            feed.send(
                run(
                    &format!("{version}-{n}"),
                    n * 1_000_000_000,
                    version * 100 + n,
                    status,
                )
                .into(),
            )
            .await;
        }
        feed.send(vec![Record::Line(line(feed.offset, 0, "x"))]).await;
    }
    let versions = store.version_figures(&a, 2).await.unwrap();
    assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [4, 2]);
    let two = &versions[1].figures;
    assert_eq!(
        (
            two.total_runs,
            two.succeeded_runs,
            two.failed_runs,
            two.total_logs
        ),
        (20, 16, 4, 1)
    );
    assert_eq!(two.p50_microseconds, Some(209));
    assert_eq!(two.last_run_time, Some(at(19 * 1_000_000_000)));
    let all = store.figures(&a).await.unwrap();
    assert_eq!((all.total_runs, all.failed_runs, all.total_logs), (70, 14, 4));
    assert_eq!(all.last_run_time, Some(at(39 * 1_000_000_000)));
}

/// Log-normal response times in microseconds, as services have them.
fn log_normal(count: usize) -> Vec<i64> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..count)
        .map(|_| {
            let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (TAU * random.f64()).cos();
            #[allow(clippy::cast_possible_truncation)]
            let micros = (normal.mul_add(1.0, 11.0)).exp() as i64;
            micros
        })
        .collect()
}

pub async fn many_runs_are_estimated_within_one_per_cent(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let mut values = log_normal(12_000);
    for (n, chunk) in values.chunks(1_000).enumerate() {
        let hour = i64::try_from(n).unwrap() * 3_600_000_000 / 2;
        let records = chunk
            .iter()
            .enumerate()
            .flat_map(|(k, took)| run(&format!("{n}-{k}"), hour, *took, RunStatus::Success))
            .collect();
        feed.send(records).await;
        if n == 9 {
            // Still exact at 10,000.
            let mut so_far = values[..10_000].to_vec();
            so_far.sort_unstable();
            let p99 = so_far[nearest_rank(10_000, 990).unwrap()];
            assert_eq!(store.figures(&a).await.unwrap().p99_microseconds, Some(p99));
        }
    }
    values.sort_unstable();
    let exact = [500, 900, 990].map(|p| values[nearest_rank(values.len(), p).unwrap()]);
    let lifetime = store.figures(&a).await.unwrap();
    let version = store.version_figures(&a, 1).await.unwrap().remove(0).figures;
    let window = store
        .window_figures(&a, TimeRange::ALL, &Filter::default())
        .await
        .unwrap();
    for figures in [lifetime, version, window] {
        assert_eq!(figures.succeeded_runs, 12_000);
        let found = [
            figures.p50_microseconds,
            figures.p90_microseconds,
            figures.p99_microseconds,
        ];
        for (exact, found) in exact.iter().zip(found) {
            let found = found.unwrap();
            assert!((found - exact).abs() * 100 <= *exact, "{found} for {exact}");
        }
    }
}

pub async fn a_window_counts_its_own_rows(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    for n in 0..20i64 {
        let status = if n % 4 == 0 {
            RunStatus::Failed
        } else {
            RunStatus::Success
        };
        let mut records = run(&n.to_string(), n * 100, n + 1, status).to_vec();
        records.extend(
            (0..3).map(|k| Record::Line(line(feed.offset + k, n * 100 + i64::try_from(k).unwrap(), "x"))),
        );
        feed.send(records).await;
    }
    let range = TimeRange::new(Some(at(401)), Some(at(1_001))).unwrap();
    let figures = store.window_figures(&a, range, &Filter::default()).await.unwrap();
    // Runs 5 to 10; lines 401, 402, all of 500 to 900, and 1000.
    assert_eq!(
        (figures.total_runs, figures.failed_runs, figures.succeeded_runs),
        (6, 1, 5)
    );
    assert_eq!(figures.total_logs, 2 + 15 + 1);
    assert_eq!(
        (figures.p50_microseconds, figures.p99_microseconds),
        (Some(8), Some(11))
    );
    assert_eq!(figures.last_run_time, Some(at(1_000)));
    let slow = filter(Column::ResponseTime, Operator::AtLeast, &["0.010"]);
    let figures = store.window_figures(&a, range, &slow).await.unwrap();
    assert_eq!(
        (figures.total_runs, figures.p50_microseconds, figures.total_logs),
        (2, Some(10), 18)
    );
}
