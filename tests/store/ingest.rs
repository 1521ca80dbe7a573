//! Exactly once, and what becomes of runs.

use jiff::Timestamp;
use scriptscope::{
    ingest::{record::Record, wire::StreamKey},
    model::{Column, Filter, Operator, RunStatus},
    store::{AppendOutcome, CloseRuns, Gap, StoreError},
};
use serde_json::value::RawValue;

use crate::support::{
    Backend, Feed, all_lines, all_runs, at, filter, finished, line, log_query, pod, position, run, run_query,
    script, started, stream_key,
};

pub async fn the_same_bytes_are_stored_once(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let feed = Feed::open(&store, &a, "u", 1).await;
    let mut append = feed.append(
        [
            &run("r", 0, 10, RunStatus::Success)[..],
            &[Record::Line(line(5, 3, "x"))],
        ]
        .concat(),
    );
    append.carry = b"half a li".to_vec();
    let (_, before) = store.changed_scripts(0);
    assert_eq!(
        store.append(vec![append.clone()]).await.unwrap(),
        [AppendOutcome::Committed(position(1_000))]
    );
    let (changed, next) = store.changed_scripts(before);
    assert_eq!(changed, std::slice::from_ref(&a));
    let figures = store.figures(&a).await.unwrap();
    // The answer was lost, and the same bytes come again, alone and twice in one call.
    for _ in 0..2 {
        assert_eq!(
            store.append(vec![append.clone(), append.clone()]).await.unwrap(),
            [
                AppendOutcome::Conflict(position(1_000)),
                AppendOutcome::Conflict(position(1_000))
            ]
        );
    }
    assert_eq!(store.changed_scripts(next), (vec![], next));
    assert_eq!(store.figures(&a).await.unwrap(), figures);
    assert_eq!((figures.total_runs, figures.total_logs), (1, 1));
    assert_eq!(all_lines(&store, log_query(&a, Filter::default())).await.len(), 1);
    let checkpoint = store
        .open_streams(&[stream_key(&pod(&a, "u", 1))])
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(
        (checkpoint.position, &checkpoint.carry[..]),
        (position(1_000), &b"half a li"[..])
    );
}

pub async fn a_store_goes_on_where_it_was_cut_off(backend: &impl Backend) {
    let a = script("a");
    let mut expected = Vec::new();
    for round in 0..4u32 {
        // Dropped without a word at the end of each round.
        let store = backend.open().await;
        let mut feed = Feed::open(&store, &a, "u", 1).await;
        assert_eq!(feed.offset, u64::from(round) * 2_000);
        for half in 0..2 {
            let message = format!("{round} {half}");
            feed.send(vec![Record::Line(line(
                feed.offset,
                i64::from(round) * 10 + half,
                &message,
            ))])
            .await;
            expected.push(message);
        }
    }
    let store = backend.open().await;
    let mut found: Vec<String> = all_lines(&store, log_query(&a, Filter::default()))
        .await
        .into_iter()
        .map(|l| l.message)
        .collect();
    found.reverse();
    assert_eq!(found, expected);
}

pub async fn a_conflict_does_not_touch_other_streams(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let (mut one, two) = (
        Feed::open(&store, &a, "u1", 1).await,
        Feed::open(&store, &a, "u2", 1).await,
    );
    one.send(vec![]).await;
    let mut late = one.append(vec![Record::Line(line(0, 1, "late"))]);
    late.expected_offset = 0;
    let mut lost = two.append(vec![Record::Line(line(0, 2, "kept"))]);
    lost.gap = Some(Gap {
        reason: "Rotated".into(),
        bytes: 70,
    });
    let next = two.append(vec![Record::Line(line(1_000, 3, "and its next"))]);
    let next = scriptscope::store::Append {
        expected_offset: 1_000,
        position: position(2_000),
        ..next
    };
    let outcomes = store.append(vec![late, lost, next]).await.unwrap();
    assert_eq!(
        outcomes,
        [
            AppendOutcome::Conflict(position(1_000)),
            AppendOutcome::Committed(position(1_000)),
            AppendOutcome::Committed(position(2_000))
        ]
    );
    let lines = all_lines(&store, log_query(&a, Filter::default())).await;
    assert_eq!(
        lines.iter().map(|l| l.message.as_str()).collect::<Vec<_>>(),
        ["and its next", "kept"]
    );
    assert_eq!(store.figures(&a).await.unwrap().total_logs, 2);
}

pub async fn only_streams_of_known_pods_are_opened(backend: &impl Backend) {
    let store = backend.open().await;
    let known = pod(&script("a"), "u", 1);
    let key = stream_key(&known);
    assert_eq!(
        store.open_streams(std::slice::from_ref(&key)).await.unwrap(),
        [None]
    );
    store.register_pod(&known).await.unwrap();
    // The first word on a UID stands.
    let thief = pod(&script("thief"), "u", 9);
    assert_eq!(store.register_pod(&thief).await.unwrap(), known);
    let keys = [
        key.clone(),
        StreamKey {
            container: "sidecar".into(),
            ..key.clone()
        },
        StreamKey {
            namespace: "other".into(),
            ..key.clone()
        },
        StreamKey {
            pod: "other".into(),
            ..key.clone()
        },
        StreamKey {
            pod_uid: "other".into(),
            ..key.clone()
        },
        StreamKey {
            restart: 1,
            ..key.clone()
        },
    ];
    let opened = store.open_streams(&keys).await.unwrap();
    assert_eq!(
        opened.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, false, false, false, false, true]
    );
    let (first, second) = (opened[0].clone().unwrap(), opened[5].clone().unwrap());
    assert_eq!((&first.pod, first.position.offset), (&known, 0));
    assert_ne!(first.id, second.id);
    assert_eq!(store.open_streams(&keys).await.unwrap(), opened);
}

pub async fn concurrent_appends_all_arrive(backend: &impl Backend) {
    let store = backend.open().await;
    let tasks: Vec<_> = (0..8u32)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut feed = Feed::open(&store, &script("a"), &format!("u{n}"), 1).await;
                for k in 0..10i64 {
                    let id = format!("r{n}-{k}");
                    feed.send(run(&id, k, 5, RunStatus::Success).into()).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let figures = store.figures(&script("a")).await.unwrap();
    assert_eq!((figures.total_runs, figures.succeeded_runs), (80, 80));
}

pub async fn hostile_orders_do_not_change_an_ended_run(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 3).await;
    let mut other = Feed::open(&store, &a, "u2", 4).await;
    feed.send(vec![Record::RunStarted(started("r", at(0)))]).await;
    // In another commit and stream of the script: a second start, the end, another end, another start.
    other
        .send(vec![
            Record::RunStarted(started("r", at(77))),
            Record::RunFinished(finished("r", at(30), 30, RunStatus::Success)),
            Record::RunFinished(finished("r", at(40), 40, RunStatus::Failed)),
        ])
        .await;
    feed.send(vec![
        Record::RunStarted(started("r", at(88))),
        Record::RunFinished(finished("r", at(90), 2, RunStatus::Failed)),
    ])
    .await;
    // An end whose start is lost, then that start after all.
    feed.send(vec![
        Record::RunFinished(finished("lost", at(100), 60, RunStatus::Success)),
        Record::RunStarted(started("lost", at(1))),
    ])
    .await;
    feed.send(vec![Record::RunFinished(finished(
        "odd",
        at(10),
        -5,
        RunStatus::Success,
    ))])
    .await;
    feed.send(vec![Record::RunFinished(finished(
        "far",
        Timestamp::MIN,
        i64::MAX,
        RunStatus::Failed,
    ))])
    .await;
    let detail = store.run(&a, "r").await.unwrap().unwrap().run;
    assert_eq!(
        (detail.status, detail.response_time_micros),
        (RunStatus::Success, Some(30))
    );
    assert_eq!((detail.executed_on, detail.finished_at), (at(0), Some(at(30))));
    assert_eq!(
        (detail.deployment_version, detail.deployment_id.as_str()),
        (3, "deploy_3")
    );
    let lost = store.run(&a, "lost").await.unwrap().unwrap().run;
    assert_eq!((lost.executed_on, lost.function.as_str()), (at(40), ""));
    assert_eq!(
        store
            .run(&a, "odd")
            .await
            .unwrap()
            .unwrap()
            .run
            .response_time_micros,
        Some(0)
    );
    assert_eq!(
        store.run(&a, "far").await.unwrap().unwrap().run.executed_on,
        Timestamp::MIN
    );
    let figures = store.figures(&a).await.unwrap();
    assert_eq!(
        (
            figures.succeeded_runs,
            figures.failed_runs,
            figures.in_progress_runs
        ),
        (3, 1, 0)
    );
    assert_eq!(all_runs(&store, run_query(&a, Filter::default())).await.len(), 4);
}

pub async fn a_record_of_another_script_does_not_close_a_run(backend: &impl Backend) {
    let store = backend.open().await;
    let (a, b) = (script("a"), script("b"));
    let mut mine = Feed::open(&store, &a, "u", 1).await;
    let mut foreign = Feed::open(&store, &b, "v", 1).await;
    mine.send(vec![Record::RunStarted(started("r", at(0)))]).await;
    foreign
        .send(vec![Record::RunFinished(finished(
            "r",
            at(9),
            9,
            RunStatus::Failed,
        ))])
        .await;
    assert_eq!(
        store.run(&a, "r").await.unwrap().unwrap().run.status,
        RunStatus::InProgress
    );
    assert_eq!(
        store.run(&b, "r").await.unwrap().unwrap().run.status,
        RunStatus::Failed
    );
    assert!(store.run(&script("c"), "r").await.unwrap().is_none());
}

pub async fn payloads_come_back(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let json = |text: String| Some(RawValue::from_string(text).unwrap());
    let large = format!("[{}1]", "\"spam\\u0000 and ü\",".repeat(2_000));
    for commits in [1, 2] {
        let id = format!("r{commits}");
        let mut start = started(&id, at(0));
        start.input = json(large.clone());
        let mut end = finished(&id, at(5), 5, RunStatus::Failed);
        end.output = json(r#"{"a":1}"#.to_owned());
        let (start, end) = (Record::RunStarted(start), Record::RunFinished(end));
        if commits == 1 {
            feed.send(vec![start, end]).await;
        } else {
            feed.send(vec![start]).await;
            feed.send(vec![end]).await;
        }
        let detail = store.run(&a, &id).await.unwrap().unwrap();
        assert_eq!(detail.input.unwrap().get(), large);
        assert_eq!(detail.output.unwrap().get(), r#"{"a":1}"#);
        let error = detail.error.unwrap();
        assert_eq!(
            (error.reason.as_str(), error.kind.as_deref()),
            ("Exception", Some("ValueError"))
        );
        assert_eq!(detail.run.reason.as_deref(), Some("Exception"));
        assert_eq!(detail.run.response_time_micros, None);
    }
}

pub async fn payloads_that_were_too_large_are_told_from_none(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    for (id, truncated) in [("cut", true), ("none", false)] {
        let mut start = started(id, at(0));
        start.input_truncated = truncated;
        let mut end = finished(id, at(5), 5, RunStatus::Success);
        end.output_truncated = truncated;
        feed.send(vec![Record::RunStarted(start), Record::RunFinished(end)])
            .await;
        let detail = store.run(&a, id).await.unwrap().unwrap();
        assert!(detail.input.is_none() && detail.output.is_none());
        assert_eq!(
            (detail.input_truncated, detail.output_truncated),
            (truncated, truncated),
            "{id}"
        );
    }
}

pub async fn runs_of_a_gone_pod_are_closed(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut gone = Feed::open(&store, &a, "gone", 1).await;
    let mut alive = Feed::open(&store, &a, "alive", 2).await;
    gone.send(run("done", 0, 10, RunStatus::Success).into()).await;
    gone.send(vec![
        Record::RunStarted(started("open", at(100))),
        Record::RunStarted(started("later", at(200))),
    ])
    .await;
    alive
        .send(vec![Record::RunStarted(started("other", at(150)))])
        .await;
    let open = store.pods_with_open_runs().await.unwrap();
    let open: Vec<_> = open
        .iter()
        .map(|(pod, since)| (pod.uid.as_str(), *since))
        .collect();
    assert_eq!(open, [("gone", at(100)), ("alive", at(150))]);
    let close = CloseRuns {
        pod_uid: "gone".into(),
        begun_before: at(1_000),
        reason: "OOMKilled".into(),
        message: "out of memory".into(),
        time: at(150),
    };
    let (_, before) = store.changed_scripts(0);
    let early = CloseRuns {
        begun_before: at(100),
        ..close.clone()
    };
    assert_eq!(store.close_runs(&early).await.unwrap(), 0, "they began later");
    assert_eq!(store.close_runs(&close).await.unwrap(), 2);
    assert_eq!(store.changed_scripts(before).0, std::slice::from_ref(&a));
    assert_eq!(store.close_runs(&close).await.unwrap(), 0);
    // The end arrives after all: it is late.
    gone.send(vec![Record::RunFinished(finished(
        "open",
        at(400),
        300,
        RunStatus::Success,
    ))])
    .await;
    let closed = store.run(&a, "open").await.unwrap().unwrap();
    assert_eq!(
        (closed.run.status, closed.run.reason.as_deref()),
        (RunStatus::Failed, Some("OOMKilled"))
    );
    assert_eq!(closed.error.unwrap().message, "out of memory");
    assert_eq!(closed.run.finished_at, Some(at(150)));
    // The clocks differ: no run ends before it began.
    assert_eq!(
        store.run(&a, "later").await.unwrap().unwrap().run.finished_at,
        Some(at(200))
    );
    let figures = store.figures(&a).await.unwrap();
    assert_eq!(
        (
            figures.succeeded_runs,
            figures.failed_runs,
            figures.in_progress_runs
        ),
        (1, 2, 1)
    );
}

pub async fn a_lost_stream_and_a_backward_position_are_refused(backend: &impl Backend) {
    let store = backend.open().await;
    let mut feed = Feed::open(&store, &script("a"), "u", 1).await;
    feed.send(vec![]).await;
    let mut unknown = feed.append(vec![]);
    unknown.stream += 1_000;
    assert_eq!(
        store.append(vec![unknown]).await.unwrap(),
        [AppendOutcome::Unknown]
    );
    let mut backward = feed.append(vec![]);
    backward.position = position(5);
    let refused = store.append(vec![backward]).await;
    assert!(
        matches!(&refused, Err(StoreError::Unusable(text)) if text.contains("go back")),
        "{refused:?}"
    );
}

pub async fn a_nul_is_kept_as_a_replacement_character(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let mut feed = Feed::open(&store, &a, "u", 1).await;
    let mut began = started("r\0", at(0));
    (began.function, began.source) = ("f\0".into(), "\0s".into());
    began.traceparent = Some("\0".into());
    let mut text = line(0, 1, "a\0b");
    text.run_id = Some("r\0".into());
    feed.send(vec![
        Record::RunStarted(began),
        Record::Line(text),
        Record::RunFinished(finished("r\0", at(5), 5, RunStatus::Failed)),
    ])
    .await;
    for filter in [
        Filter::default(),
        filter(Column::RunId, Operator::Equals, &["r\0"]),
        filter(Column::Source, Operator::Contains, &["\0S"]),
    ] {
        let runs = all_runs(&store, run_query(&a, filter)).await;
        assert_eq!(runs.len(), 1);
        assert_eq!((&*runs[0].run_id, &*runs[0].function), ("r\u{fffd}", "f\u{fffd}"));
        assert_eq!(runs[0].source, "\u{fffd}s");
        assert_eq!(runs[0].status, RunStatus::Failed);
    }
    assert!(store.run(&a, "r\0").await.unwrap().is_some());
    // The text of a line is kept as it is, and its run is that run.
    let lines = all_lines(&store, log_query(&a, Filter::default())).await;
    assert_eq!(lines[0].message, "a\0b");
    assert_eq!(lines[0].run_id.as_deref(), Some("r\u{fffd}"));
}
