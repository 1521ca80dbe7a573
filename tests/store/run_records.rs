//! Records of runs in any order and cut in any way, against a model that takes them one by one.

use std::collections::BTreeMap;

use scriptscope::{
    ingest::record::Record,
    model::{Filter, RunStatus, nearest_rank},
};
use serde_json::value::RawValue;

use crate::support::{Backend, Feed, all_runs, at, finished, run_query, script, started};

struct Expected {
    began: i64,
    ended: Option<(RunStatus, i64)>,
    input: Option<String>,
    output: Option<String>,
}

fn json(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

/// A record of one of a few runs, and what it does to the model.
fn next(random: &mut fastrand::Rng, model: &mut BTreeMap<String, Expected>) -> Record {
    let id = format!("r{}", random.u8(..60));
    let (time, took) = (1_000_000 + random.i64(0..1_000), random.i64(0..500));
    let payload = random.bool().then(|| format!("[{}]", random.u8(..)));
    if random.bool() {
        let mut start = started(&id, at(time));
        start.input = payload.as_deref().and_then(json);
        model.entry(id).or_insert(Expected {
            began: time,
            ended: None,
            input: payload,
            output: None,
        });
        return Record::RunStarted(start);
    }
    let status = if random.u8(..4) == 0 {
        RunStatus::Failed
    } else {
        RunStatus::Success
    };
    let mut end = finished(&id, at(time), took, status);
    end.output = payload.as_deref().and_then(json);
    let run = model.entry(id).or_insert(Expected {
        began: time - took,
        ended: None,
        input: None,
        output: None,
    });
    if run.ended.is_none() {
        run.ended = Some((status, took));
        run.output = payload;
    }
    Record::RunFinished(end)
}

pub async fn runs_are_those_of_the_model_however_their_records_come(backend: &impl Backend) {
    let store = backend.open().await;
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..6 {
        let a = script(&format!("a{round}"));
        let mut feed = Feed::open(&store, &a, &format!("u{round}"), 1).await;
        let mut model = BTreeMap::new();
        for _ in 0..12 {
            let records = (0..random.usize(1..=20)).map(|_| next(&mut random, &mut model));
            feed.send(records.collect()).await;
        }
        let runs = all_runs(&store, run_query(&a, Filter::default())).await;
        assert_eq!(runs.len(), model.len());
        for run in runs {
            let expected = &model[&run.run_id];
            let (status, took) = expected.ended.unwrap_or((RunStatus::InProgress, 0));
            assert_eq!((run.status, run.executed_on), (status, at(expected.began)));
            assert_eq!(
                run.response_time_micros,
                (status == RunStatus::Success).then_some(took)
            );
            let detail = store.run(&a, &run.run_id).await.unwrap().unwrap();
            let text = |json: &Option<Box<RawValue>>| json.as_ref().map(|json| json.get().to_owned());
            assert_eq!(
                (text(&detail.input), text(&detail.output)),
                (expected.input.clone(), expected.output.clone())
            );
            assert_eq!(detail.error.is_some(), status == RunStatus::Failed);
        }
        let figures = store.figures(&a).await.unwrap();
        let ended = |wanted| {
            let times = model.values().filter_map(|run| run.ended);
            let mut times: Vec<i64> = times.filter(|(s, _)| *s == wanted).map(|(_, t)| t).collect();
            times.sort_unstable();
            times
        };
        let (succeeded, failed) = (ended(RunStatus::Success), ended(RunStatus::Failed));
        let count = |n: usize| i64::try_from(n).unwrap();
        assert_eq!(
            (figures.succeeded_runs, figures.failed_runs, figures.total_runs),
            (count(succeeded.len()), count(failed.len()), count(model.len()))
        );
        let rank = |per_mille| nearest_rank(succeeded.len(), per_mille).map(|at| succeeded[at]);
        assert_eq!(
            [
                figures.p50_microseconds,
                figures.p90_microseconds,
                figures.p99_microseconds
            ],
            [rank(500), rank(900), rank(990)]
        );
    }
}
