//! Failed runs and why they failed.

use fastrand::Rng;
use scriptscope::{
    ingest::record::Record,
    model::{Column, Filter, Operator, RunError, RunStatus, TimeRange},
};

use crate::{
    filters::{Shape, random_runs, run_matches},
    support::{Backend, Feed, at, filter, finished, run_query, script, started},
};

pub async fn failed_runs_are_grouped_by_what_failed(backend: &impl Backend) {
    let store = backend.open().await;
    let script = script("a");
    let mut feed = Feed::open(&store, &script, "u", 4).await;
    let mut records = Vec::new();
    for n in 0..9 {
        let id = format!("r{n}");
        records.push(Record::RunStarted(started(&id, at(n * 10))));
        let status = if n % 3 == 2 {
            RunStatus::Success
        } else {
            RunStatus::Failed
        };
        let mut end = finished(&id, at(n * 10 + 5), 5, status);
        if n % 3 == 1 {
            end.error = Some(RunError {
                reason: "Timeout".into(),
                kind: None,
                message: format!("the call took longer than {n} s"),
                traceback: None,
            });
        }
        records.push(Record::RunFinished(end));
    }
    feed.send(records).await;
    let mut query = run_query(&script, Filter::default());
    let (grouping, more) = store.failures(&query).await.unwrap();
    assert!(!more);
    let found = grouping.finish(TimeRange::ALL, at(1_000), 10, more);
    assert_eq!((found.read, found.oldest), (6, Some(at(0))));
    let timeout = found.items.iter().find(|g| g.reason == "Timeout").unwrap();
    assert_eq!(timeout.message, "the call took longer than <n> s");
    assert_eq!(
        (timeout.count, timeout.runs.clone()),
        (3, vec!["r7".into(), "r4".into(), "r1".to_owned()])
    );
    assert_eq!((timeout.first_seen, timeout.last_seen), (at(10), at(70)));
    assert_eq!((timeout.first_version, timeout.last_version), (4, 4));
    let raised = found.items.iter().find(|g| g.reason == "Exception").unwrap();
    assert_eq!((raised.kind.as_deref(), raised.count), (Some("ValueError"), 3));

    // The newest are read, and it is said that there are more.
    query.limit = 2;
    let (grouping, more) = store.failures(&query).await.unwrap();
    let found = grouping.finish(TimeRange::ALL, at(1_000), 10, more);
    assert_eq!((found.read, found.more, found.oldest), (2, true, Some(at(60))));

    query.range.from = Some(at(70));
    let (grouping, more) = store.failures(&query).await.unwrap();
    assert_eq!((grouping.len(), more), (1, false));
    let nobody = run_query(&crate::support::script("nobody"), Filter::default());
    assert!(store.failures(&nobody).await.unwrap().0.is_empty());
}

pub async fn failed_runs_are_those_of_a_naive_scan(backend: &impl Backend) {
    let store = backend.open().await;
    let script = script("a");
    let mut random = Rng::with_seed(7);
    let shape = Shape {
        moments: 20,
        apart: 50,
    };
    let runs = random_runs(&store, &script, &mut random, &shape).await;
    for filter in [
        Filter::default(),
        filter(Column::Status, Operator::Equals, &["Failed"]),
        filter(Column::Status, Operator::NotEquals, &["Failed"]),
        filter(Column::Status, Operator::Equals, &["In Progress"]),
        filter(Column::SourceType, Operator::Equals, &["API", "Test"]),
        filter(Column::DeploymentVersion, Operator::Equals, &["12"]),
        filter(Column::Source, Operator::Contains, &["a"]),
    ] {
        let expected = runs
            .iter()
            .filter(|run| run.status == RunStatus::Failed)
            .filter(|run| filter.conditions.iter().all(|c| run_matches(run, c)));
        let (found, more) = store.failures(&run_query(&script, filter.clone())).await.unwrap();
        assert_eq!((found.len(), more), (expected.count(), false), "{filter:?}");
    }
}
