//! Backends, and short ways to say what is stored.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    ingest::{
        record::{NewLine, Record, RunFinished, RunStarted},
        wire::{Position, StreamKey},
    },
    model::{
        Column, Condition, Filter, LogLevel, LogLine, Match, Operator, Run, RunError, RunStatus, ScriptKey,
        SourceType, TimeRange,
    },
    store::{
        self, Append, AppendOutcome, LogQuery, Page, PodRecord, RowQuery, RunQuery, Store, StoreError,
        StreamCheckpoint,
    },
};
use tempfile::TempDir;

/// A place where a store can be opened again and again.
#[async_trait]
pub trait Backend: Sync {
    async fn try_open(&self) -> Result<Arc<dyn Store>, StoreError>;

    async fn open(&self) -> Arc<dyn Store> {
        self.try_open().await.unwrap()
    }
}

pub struct Sqlite {
    pub path: PathBuf,
    _folder: TempDir,
}

pub fn sqlite() -> Sqlite {
    let folder = TempDir::new().unwrap();
    Sqlite {
        path: folder.path().join("data/store.db"),
        _folder: folder,
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn try_open(&self) -> Result<Arc<dyn Store>, StoreError> {
        store::open(&format!("sqlite://{}", self.path.display())).await
    }
}

pub struct Postgres {
    pub url: String,
}

pub fn postgres() -> Postgres {
    Postgres {
        url: crate::pg::Cluster::shared().new_database(),
    }
}

#[async_trait]
impl Backend for Postgres {
    async fn try_open(&self) -> Result<Arc<dyn Store>, StoreError> {
        store::open(&self.url).await
    }
}

pub fn script(name: &str) -> ScriptKey {
    ScriptKey::new("shop", name)
}

/// So many microseconds after noon of a day.
pub fn at(micros: i64) -> Timestamp {
    let noon: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    noon + SignedDuration::from_micros(micros)
}

pub fn pod(script: &ScriptKey, uid: &str, version: i64) -> PodRecord {
    PodRecord {
        uid: uid.into(),
        name: format!("pod-{uid}"),
        container: "script".into(),
        script: script.clone(),
        version,
        deployment_id: format!("deploy_{version}"),
    }
}

pub fn stream_key(pod: &PodRecord) -> StreamKey {
    StreamKey {
        namespace: pod.script.namespace.clone(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        container: pod.container.clone(),
        restart: 0,
    }
}

pub fn position(offset: u64) -> Position {
    Position {
        offset,
        file: "f".into(),
        file_start: 0,
    }
}

/// One stream, followed from its checkpoint on.
pub struct Feed {
    pub store: Arc<dyn Store>,
    pub checkpoint: StreamCheckpoint,
    pub offset: u64,
}

impl Feed {
    pub async fn open(store: &Arc<dyn Store>, script: &ScriptKey, uid: &str, version: i64) -> Self {
        let pod = pod(script, uid, version);
        store.register_pod(&pod).await.unwrap();
        let opened = store.open_streams(&[stream_key(&pod)]).await.unwrap();
        let checkpoint = opened.into_iter().next().unwrap().unwrap();
        Self {
            store: Arc::clone(store),
            offset: checkpoint.position.offset,
            checkpoint,
        }
    }

    pub fn append(&self, records: Vec<Record>) -> Append {
        Append {
            stream: self.checkpoint.id,
            expected_offset: self.offset,
            position: position(self.offset + 1_000),
            carry: vec![],
            records: records.into(),
            gap: None,
            last_word: None,
        }
    }

    /// Appends records, which must succeed.
    pub async fn send(&mut self, records: Vec<Record>) {
        let outcome = self.store.append(vec![self.append(records)]).await.unwrap();
        self.offset += 1_000;
        assert_eq!(outcome, [AppendOutcome::Committed(position(self.offset))]);
    }
}

pub fn started(run_id: &str, time: Timestamp) -> RunStarted {
    RunStarted {
        run_id: run_id.into(),
        time,
        function: "check".into(),
        source_type: SourceType::Api,
        source: "billing".into(),
        traceparent: None,
        input: None,
        input_truncated: false,
    }
}

pub fn finished(run_id: &str, time: Timestamp, duration_micros: i64, status: RunStatus) -> RunFinished {
    RunFinished {
        run_id: run_id.into(),
        time,
        status,
        duration_micros,
        output: None,
        output_truncated: false,
        error: (status == RunStatus::Failed).then(|| RunError {
            reason: "Exception".into(),
            kind: Some("ValueError".into()),
            message: "no".into(),
            traceback: None,
        }),
    }
}

/// A run's two records.
pub fn run(run_id: &str, began: i64, took: i64, status: RunStatus) -> [Record; 2] {
    [
        Record::RunStarted(started(run_id, at(began))),
        Record::RunFinished(finished(run_id, at(began + took), took, status)),
    ]
}

pub fn line(offset: u64, micros: i64, message: &str) -> NewLine {
    NewLine {
        offset,
        index: 0,
        time: at(micros),
        level: LogLevel::Stdout,
        run_id: None,
        message: message.into(),
        attributes: None,
    }
}

pub fn filter(column: Column, operator: Operator, values: &[&str]) -> Filter {
    Filter {
        matching: Match::All,
        conditions: vec![Condition {
            column,
            operator,
            values: values.iter().map(|&v| v.to_owned()).collect(),
        }],
    }
}

pub fn run_query(script: &ScriptKey, filter: Filter) -> RunQuery {
    RunQuery {
        script: script.clone(),
        range: TimeRange::ALL,
        filter,
        after: None,
        limit: 100,
    }
}

pub fn log_query(script: &ScriptKey, filter: Filter) -> LogQuery {
    LogQuery {
        script: script.clone(),
        range: TimeRange::ALL,
        filter,
        after: None,
        limit: 100,
    }
}

/// Every run that a query finds, page by page.
pub async fn all_runs(store: &Arc<dyn Store>, query: RunQuery) -> Vec<Run> {
    all_pages(query, async |query: &RunQuery| store.runs(query).await.unwrap()).await
}

/// Every line that a query finds, page by page.
pub async fn all_lines(store: &Arc<dyn Store>, query: LogQuery) -> Vec<LogLine> {
    all_pages(query, async |query: &LogQuery| store.logs(query).await.unwrap()).await
}

async fn all_pages<T, C: PartialEq + std::fmt::Debug>(
    mut query: RowQuery<C>,
    read: impl AsyncFn(&RowQuery<C>) -> Page<T, C>,
) -> Vec<T> {
    let mut all = Vec::new();
    loop {
        let page = read(&query).await;
        assert!(page.rows.len() <= query.limit);
        assert!(page.next.is_none() || page.rows.len() == query.limit);
        all.extend(page.rows);
        match page.next {
            Some(next) => {
                assert_ne!(query.after.as_ref(), Some(&next), "the page does not move on");
                query.after = Some(next);
            }
            None => return all,
        }
    }
}
