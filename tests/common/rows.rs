//! A real store with rows that a test wrote down, for tests of what stands in front of the store.

use std::{collections::BTreeMap, sync::Arc};

use scriptscope::{
    ingest::{
        record::{NewLine, Record, RunFinished, RunStarted},
        wire::{Position, StreamKey},
    },
    model::{LogLine, Run, RunError, RunStatus, ScriptKey},
    store::{self, Append, AppendOutcome, PodRecord, Store},
};
use tempfile::TempDir;

/// What a store shall hold.
#[derive(Default)]
pub struct Rows {
    pub runs: Vec<(ScriptKey, Run)>,
    pub logs: Vec<(ScriptKey, LogLine)>,
}

impl Rows {
    /// A store in `folder` that holds them. Ids of lines are the store's.
    pub async fn store(self, folder: &TempDir) -> Arc<dyn Store> {
        let url = format!("sqlite://{}", folder.path().join("store.db").display());
        let store = store::open(&url).await.unwrap();
        let mut records: BTreeMap<(ScriptKey, i64), Vec<Record>> = BTreeMap::new();
        for (script, run) in self.runs {
            let stream = records.entry((script, run.deployment_version)).or_default();
            stream.extend(records_of(run));
        }
        for (script, line) in self.logs {
            let stream = records.entry((script, 1)).or_default();
            stream.push(Record::Line(NewLine {
                offset: u64::try_from(line.log_id.offset).unwrap(),
                index: 0,
                time: line.timestamp,
                level: line.level,
                run_id: line.run_id,
                message: line.message,
                attributes: line.attributes,
            }));
        }
        for ((script, version), records) in records {
            append(&store, &script, version, records).await;
        }
        store
    }
}

fn records_of(run: Run) -> Vec<Record> {
    let mut records = vec![Record::RunStarted(RunStarted {
        run_id: run.run_id.clone(),
        time: run.executed_on,
        function: run.function,
        source_type: run.source_type,
        source: run.source,
        traceparent: run.traceparent,
        input: serde_json::value::RawValue::from_string("{\"n\": 1.0}".into()).ok(),
        input_truncated: false,
    })];
    if run.status != RunStatus::InProgress {
        let took = run.response_time_micros.unwrap_or_default();
        records.push(Record::RunFinished(RunFinished {
            run_id: run.run_id,
            time: run.executed_on + jiff::SignedDuration::from_micros(took),
            status: run.status,
            duration_micros: took,
            output: None,
            output_truncated: false,
            error: (run.status == RunStatus::Failed).then(|| RunError {
                reason: "Exception".into(),
                kind: None,
                message: "no".into(),
                traceback: None,
            }),
        }));
    }
    records
}

async fn append(store: &Arc<dyn Store>, script: &ScriptKey, version: i64, records: Vec<Record>) {
    let pod = PodRecord {
        uid: format!("{script}-{version}"),
        name: "pod".into(),
        container: "script".into(),
        script: script.clone(),
        version,
        deployment_id: "d".into(),
    };
    store.register_pod(&pod).await.unwrap();
    let key = StreamKey {
        namespace: script.namespace.clone(),
        pod: pod.name,
        pod_uid: pod.uid,
        container: pod.container,
        restart: 0,
    };
    let stream = store.open_streams(&[key]).await.unwrap().remove(0).unwrap().id;
    // Behind every line.
    let position = Position {
        offset: 1 << 20,
        file: "f".into(),
        file_start: 0,
    };
    let append = Append {
        stream,
        expected_offset: 0,
        position: position.clone(),
        carry: vec![],
        records: records.into(),
        gap: None,
        last_word: None,
    };
    let outcomes = store.append(vec![append]).await.unwrap();
    assert_eq!(outcomes, [AppendOutcome::Committed(position)]);
}
