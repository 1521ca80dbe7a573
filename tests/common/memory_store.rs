//! The ingest half of a store, in memory: checkpoints and appends as the contract has them, nothing to read with.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use jiff::Timestamp;
use scriptscope::{
    failures::Grouping,
    ingest::{
        record::Record,
        wire::{Position, StreamKey},
    },
    model::{
        Bucket, Count, DeployedSpec, Deployment, DeploymentState, Figures, Filter, KeptSpec, LogGap, LogLine,
        Run, RunDetail, ScriptKey, TimeRange, VersionFigures,
    },
    store::{
        Append, AppendOutcome, Budget, CloseRuns, Cutoffs, Gap, LastWord, LogCursor, LogPosition, LogQuery,
        Page, PodRecord, Retained, Retention, RunCursor, RunQuery, SeenObject, SeriesQuery, SettlePod,
        Storage, Store, StoreError, StoreSnapshot, StreamCheckpoint, StreamProgress, Tail, TailQuery,
    },
};

/// What one stream holds.
#[derive(Clone, Debug, Default)]
pub struct StoredStream {
    pub records: Vec<Record>,
    pub gaps: Vec<Gap>,
    pub position: Position,
    pub last_word: Option<LastWord>,
    carry: Vec<u8>,
    key: Option<StreamKey>,
}

#[derive(Default)]
struct State {
    pods: HashMap<String, PodRecord>,
    streams: Vec<StoredStream>,
    failures: u32,
}

/// A store that forgets everything when it is dropped.
#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The next `count` appends fail.
    pub fn fail(&self, count: u32) {
        self.state().failures = count;
    }

    /// What is stored of a stream.
    pub fn stream(&self, key: &StreamKey) -> StoredStream {
        let state = self.state();
        let found = state.streams.iter().find(|s| s.key.as_ref() == Some(key));
        found.cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn register_pod(&self, pod: &PodRecord) -> Result<PodRecord, StoreError> {
        let mut state = self.state();
        let known = state.pods.entry(pod.uid.clone());
        Ok(known.or_insert_with(|| pod.clone()).clone())
    }

    async fn open_streams(&self, streams: &[StreamKey]) -> Result<Vec<Option<StreamCheckpoint>>, StoreError> {
        let mut state = self.state();
        let open = |key: &StreamKey| {
            let pod = state.pods.get(&key.pod_uid)?.clone();
            if pod.container != key.container {
                return None;
            }
            let found = state.streams.iter().position(|s| s.key.as_ref() == Some(key));
            let place = found.unwrap_or_else(|| {
                state.streams.push(StoredStream {
                    key: Some(key.clone()),
                    ..StoredStream::default()
                });
                state.streams.len() - 1
            });
            let stream = &state.streams[place];
            Some(StreamCheckpoint {
                id: i64::try_from(place).unwrap(),
                pod,
                position: stream.position.clone(),
                carry: stream.carry.clone(),
            })
        };
        Ok(streams.iter().map(open).collect())
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<AppendOutcome>, StoreError> {
        let mut state = self.state();
        if state.failures > 0 {
            state.failures -= 1;
            return Err(StoreError::Unusable("the disk is full".into()));
        }
        let append = |append: Append| {
            let Some(stream) = state.streams.get_mut(usize::try_from(append.stream).unwrap()) else {
                return AppendOutcome::Unknown;
            };
            if stream.position.offset != append.expected_offset {
                return AppendOutcome::Conflict(stream.position.clone());
            }
            stream.position = append.position;
            stream.carry = append.carry;
            stream.records.extend(append.records);
            stream.gaps.extend(append.gap);
            stream.last_word = append.last_word.or(stream.last_word.take());
            AppendOutcome::Committed(stream.position.clone())
        };
        Ok(appends.into_iter().map(append).collect())
    }

    async fn begin_deployment(
        &self,
        _: &ScriptKey,
        _: &str,
        _: i64,
        _: Timestamp,
    ) -> Result<Deployment, StoreError> {
        Err(StoreError::Unusable("keeps no deployments".into()))
    }

    async fn set_deployment_state(
        &self,
        _: &ScriptKey,
        _: i64,
        _: DeploymentState,
        _: Option<&str>,
        _: Timestamp,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn keep_spec(&self, _: &ScriptKey, _: i64, _: &KeptSpec) -> Result<(), StoreError> {
        Ok(())
    }

    async fn deployed_spec(&self, _: &ScriptKey, _: i64) -> Result<Option<DeployedSpec>, StoreError> {
        Ok(None)
    }

    async fn deployments(&self, _: &ScriptKey, _: usize) -> Result<Vec<Deployment>, StoreError> {
        Ok(Vec::new())
    }

    async fn close_runs(&self, _: &CloseRuns) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn pods_with_open_runs(&self) -> Result<Vec<(PodRecord, Timestamp)>, StoreError> {
        Ok(Vec::new())
    }

    async fn unsettled_pods(&self) -> Result<Vec<PodRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn pod_streams(&self, _: &[String]) -> Result<HashMap<String, Vec<StreamProgress>>, StoreError> {
        Ok(HashMap::new())
    }

    async fn settle_pod(&self, _: &SettlePod) -> Result<Vec<LogGap>, StoreError> {
        Ok(Vec::new())
    }

    async fn gaps(&self, _: &ScriptKey, _: TimeRange, _: usize) -> Result<Vec<LogGap>, StoreError> {
        Ok(Vec::new())
    }

    async fn figures(&self, _: &ScriptKey) -> Result<Figures, StoreError> {
        Ok(Figures::default())
    }

    async fn version_figures(&self, _: &ScriptKey, _: usize) -> Result<Vec<VersionFigures>, StoreError> {
        Ok(Vec::new())
    }

    async fn window_figures(&self, _: &ScriptKey, _: TimeRange, _: &Filter) -> Result<Figures, StoreError> {
        Ok(Figures::default())
    }

    async fn figures_of(&self, scripts: &[ScriptKey]) -> Result<Vec<Figures>, StoreError> {
        Ok(vec![Figures::default(); scripts.len()])
    }

    async fn series(&self, _: &SeriesQuery) -> Result<Vec<Bucket>, StoreError> {
        Ok(Vec::new())
    }

    async fn count_runs(&self, _: &RunQuery, _: usize) -> Result<Count, StoreError> {
        Ok(Count::default())
    }

    async fn count_logs(&self, _: &LogQuery, _: usize) -> Result<Count, StoreError> {
        Ok(Count::default())
    }

    fn changed_scripts(&self, since: u64) -> (Vec<ScriptKey>, u64) {
        (Vec::new(), since)
    }

    async fn runs(&self, _: &RunQuery) -> Result<Page<Run, RunCursor>, StoreError> {
        Ok(Page {
            rows: Vec::new(),
            next: None,
        })
    }

    async fn failures(&self, _: &RunQuery) -> Result<(Grouping, bool), StoreError> {
        Ok((Grouping::default(), false))
    }

    async fn run(&self, _: &ScriptKey, _: &str) -> Result<Option<RunDetail>, StoreError> {
        Ok(None)
    }

    async fn logs(&self, _: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError> {
        Ok(Page {
            rows: Vec::new(),
            next: None,
        })
    }

    async fn log_position(&self, _: &ScriptKey) -> Result<LogPosition, StoreError> {
        Ok(LogPosition::default())
    }

    async fn logs_between(&self, _: &TailQuery) -> Result<Tail, StoreError> {
        Ok(Tail::default())
    }

    async fn snapshot(&self, _: &ScriptKey) -> Result<Box<dyn StoreSnapshot>, StoreError> {
        Err(StoreError::Unusable("has no rows to read".into()))
    }

    async fn scripts(&self, _: Option<&str>) -> Result<Vec<ScriptKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn close(&self) {}

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Retention for MemoryStore {
    async fn retain(&self, _: &ScriptKey, _: &Cutoffs, _: Budget) -> Result<Retained, StoreError> {
        Ok(Retained::default())
    }

    async fn purge(&self, _: &ScriptKey, _: Timestamp, _: Budget) -> Result<Retained, StoreError> {
        Ok(Retained::default())
    }

    async fn forget_pods(
        &self,
        _: &ScriptKey,
        _: &[String],
        _: Timestamp,
        _: Budget,
    ) -> Result<Retained, StoreError> {
        Ok(Retained::default())
    }

    async fn storage(&self, _: &ScriptKey) -> Result<Storage, StoreError> {
        Ok(Storage::default())
    }

    async fn give_back_space(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn note_object(&self, _: &ScriptKey, _: &SeenObject) -> Result<(), StoreError> {
        Ok(())
    }

    async fn seen_objects(&self) -> Result<Vec<(ScriptKey, SeenObject)>, StoreError> {
        Ok(Vec::new())
    }
}
